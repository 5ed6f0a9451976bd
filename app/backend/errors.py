"""Errors that a client sees: one exception and one JSON shape, that of the PowerSync Service.

Knows nothing of tables, buckets or tokens. The message of an error is one sentence of plain
English and never contains a token, row data, or a traceback.
"""

from __future__ import annotations

import logging
import sqlite3
from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_log = logging.getLogger(__name__)


class RequestError(Exception):
    """A request that is answered with an HTTP error.

    `status` is the HTTP status, `code` a stable word or PSYNC_ code for programs, `name` the kind
    of error, and `description` the message for people. `operation_index` is the zero-based index of
    the write that failed within the client's transaction; `retry_after` is the number of seconds
    after which to retry.
    """

    operation_index: int | None = None
    retry_after: int | None = None

    def __init__(self, status: int, code: str, description: str, *, name: str = "ValidationError") -> None:
        super().__init__(description)
        self.status = status
        self.code = code
        self.description = description
        self.name = name


class DatabaseTroubleError(Exception):
    """A database other than the backend's own file is unavailable; nothing was committed, and a retry can succeed."""


def _render(refusal: RequestError, headers: dict[str, str] | None = None) -> Response:
    body = {
        "error": {
            "code": refusal.code,
            "status": refusal.status,
            "description": refusal.description,
            "name": refusal.name,
        }
    }
    return Response(msgspec.json.encode(body), refusal.status, headers=headers, media_type="application/json")


def answer_to(error: RequestError) -> Response:
    """Return the response for `error`, with `WWW-Authenticate` on a 401 and `Retry-After` where it is set."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == HTTPStatus.UNAUTHORIZED else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return _render(error, headers)


async def answer_request_error(_request: Request, error: Exception) -> Response:
    """Handle a RequestError."""
    assert isinstance(error, RequestError)
    return answer_to(error)


async def answer_http_exception(_request: Request, error: Exception) -> Response:
    """Handle the errors of the router: an unknown path (404) or a method that is not allowed (405)."""
    assert isinstance(error, HTTPException)
    code = "PSYNC_S2002" if error.status_code == HTTPStatus.NOT_FOUND else "not_allowed"
    refusal = RequestError(error.status_code, code, f"{error.detail}.", name="RouteError")
    return _render(refusal, dict(error.headers or {}))


async def answer_database_error(_request: Request, error: Exception) -> Response:
    """Answer a database error with 503: the input has been validated by then, so a retry can succeed."""
    assert isinstance(error, (sqlite3.Error, DatabaseTroubleError))
    _log.warning("A request failed because of a database error: %s", error)
    refusal = RequestError(
        503, "unavailable", "The database is busy or unavailable; try again shortly.", name="DatabaseError"
    )
    return _render(refusal, {"Retry-After": "1"})


async def answer_unexpected(_request: Request, _error: Exception) -> Response:
    """Answer an internal error with 500. The server logs it; the client gets no details."""
    refusal = RequestError(
        500, "PSYNC_S2001", "Internal error in the backend; see its log for details.", name="InternalError"
    )
    return _render(refusal)
