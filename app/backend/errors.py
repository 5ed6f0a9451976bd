"""Errors that a client sees: one exception, one JSON shape, the service's own.

Knows nothing of tables, buckets or tokens. The text of an error is one sentence of plain English
and never carries a token, the content of a row, or a traceback.
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
    of error, and `description` the sentence for people. `operation_index` counts from 0 the write of
    the client's transaction that is at fault; `retry_after` says in how many seconds to come again.
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
    """A database other than the backend's own file cannot be used now; nothing was kept, and a repeat can succeed."""


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
    """The answer; a 401 also names the accepted scheme, a 429 the time to wait."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == HTTPStatus.UNAUTHORIZED else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return _render(error, headers)


async def answer_request_error(_request: Request, error: Exception) -> Response:
    """Answer a RequestError."""
    assert isinstance(error, RequestError)
    return answer_to(error)


async def answer_http_exception(_request: Request, error: Exception) -> Response:
    """Answer what the router refuses: an unknown path (404) or a method it does not have (405)."""
    assert isinstance(error, HTTPException)
    code = "PSYNC_S2002" if error.status_code == HTTPStatus.NOT_FOUND else "not_allowed"
    refusal = RequestError(error.status_code, code, f"{error.detail}.", name="RouteError")
    return _render(refusal, dict(error.headers or {}))


async def answer_database_error(_request: Request, error: Exception) -> Response:
    """Answer trouble of the database with 503: input is checked before, so a retry can succeed."""
    assert isinstance(error, (sqlite3.Error, DatabaseTroubleError))
    _log.warning("The database refused a request: %s", error)
    refusal = RequestError(
        503, "unavailable", "The database is busy or cannot be used now; try again soon.", name="DatabaseError"
    )
    return _render(refusal, {"Retry-After": "1"})


async def answer_unexpected(_request: Request, _error: Exception) -> Response:
    """Answer a mistake of the backend itself; the server logs it, the client learns no details."""
    refusal = RequestError(500, "PSYNC_S2001", "The backend made a mistake; its log says more.", name="InternalError")
    return _render(refusal)
