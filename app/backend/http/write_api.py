"""The write API: tokens and uploads, compatible with the official Node demo and PowerSync's reference write API.

Translates requests into calls of `rows`, `checkpoints` and `auth`, and their results into responses.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from http import HTTPMethod
from itertools import chain
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.backend.data.rows import CrudEntry, Rows, RowWriter
from app.backend.errors import DatabaseTroubleError, RequestError
from app.backend.http.bodies import MEBIBYTE, convert, parse_json, read_body, read_json
from app.backend.http.service import Service
from app.system.sign_in_keys import ANSWER_HEADER

_log = logging.getLogger(__name__)

# A client sends a transaction in one body and cannot split it. If it were too large, it would block all later uploads.
_DATA_BYTES = 16 * MEBIBYTE


class CrudBatch(msgspec.Struct):
    """Writes that are applied atomically."""

    batch: list[CrudEntry]


class TransactionEntry(msgspec.Struct):
    """One write of a transaction. The previous values and the metadata that clients may send are ignored."""

    op: Literal["PUT", "PATCH", "DELETE"]
    table: str
    id: str
    op_data: dict[str, Any] | None = None


class ClientTransaction(msgspec.Struct):
    """Writes that are applied atomically. The `transaction_id` that clients send is ignored."""

    crud: list[TransactionEntry]

    def entries(self) -> list[CrudEntry]:
        """Return the writes as the entries that `rows` expects."""
        return [CrudEntry(entry.op, entry.table, entry.id, entry.op_data) for entry in self.crud]


class Transactions(msgspec.Struct):
    """Transactions of a client, in order; each gets its own result."""

    transactions: list[ClientTransaction]


class SingleWrite(msgspec.Struct):
    """A single write, with the `id` of the row in its data; the HTTP method determines the operation."""

    table: str
    data: dict[str, Any]


class CheckpointBody(msgspec.Struct):
    """A request for a write checkpoint: the user, and the client that it is for."""

    user_id: str
    client_id: str


_RETRYABLE_ERROR = {
    "status": "retryable_error",
    "message": "The database is busy or unavailable; try again shortly.",
    "retry_after_ms": 1000,
}


def _fatal_error(error: RequestError, entries: Sequence[CrudEntry]) -> dict[str, Any]:
    index = error.operation_index or 0
    entry = entries[index]
    return {
        "status": "fatal_error",
        "requires_client_handling": True,
        "message": error.description,
        "failed_operation": {
            "operation_index": index,
            "op": entry.op,
            "table": entry.table,
            "id": entry.id,
            "error_code": error.code,
            "message": error.description,
        },
    }


def json_answer(value: Any) -> Response:
    """Return a 200 response with `value` as JSON."""
    return Response(msgspec.json.encode(value), media_type="application/json")


class WriteApi:
    """The routes under `/api`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api/auth/token", self.token, methods=["GET"]),
            Route("/api/auth/keys", self.keys, methods=["GET"]),
            Route("/api/data", self.upload, methods=["POST"]),
            Route("/api/data", self.single, methods=["PUT", "PATCH", "DELETE"]),
            Route("/api/data/checkpoint", self.checkpoint, methods=["PUT"]),
        ]

    async def token(self, request: Request) -> Response:
        """Issue a token for the user in the query, or for the user whose sign-in key the client proves to have."""
        opened = self._service.opened
        server = request.scope.get("server")

        def look(connection: sqlite3.Connection) -> tuple[str, Callable[[str], str] | None]:
            return opened.sign_in.user_of(
                connection,
                request.headers.get("authorization", ""),
                request.query_params.get("user_id", ""),
                request.headers.get("host", ""),
                server[1] if server else None,
            )

        user_id, prove = await opened.database.read(look)
        token = opened.tokens.issue(user_id)
        answer = json_answer({"token": token, "powersync_url": self._service.sync_url(request.base_url)})
        answer.headers["Cache-Control"] = "no-store"
        if prove is not None:
            answer.headers[ANSWER_HEADER] = prove(token)
        return answer

    async def keys(self, _request: Request) -> Response:
        """Return the public keys that verify tokens."""
        return json_answer(self._service.opened.tokens.public_keys())

    async def upload(self, request: Request) -> Response:
        """Apply a batch of writes in one transaction, or several transactions with one result each."""
        user_id = self._service.opened.tokens.authenticate(request).user_id
        body = parse_json(await read_body(request, _DATA_BYTES))
        if isinstance(body, dict) and "transactions" in body:
            transactions = [each.entries() for each in convert(body, Transactions).transactions]
            return json_answer({"results": await self._results(user_id, transactions)})
        await self._write(user_id, convert(body, CrudBatch).batch)
        return json_answer({"message": "Batch completed"})

    async def _results(self, user_id: str, transactions: list[list[CrudEntry]]) -> list[dict[str, Any]]:
        """Apply transactions up to the first that is rejected, and return a result for each.

        The applied transactions are committed together. If the database fails, none of them is.
        """

        def apply(rows: Rows) -> list[dict[str, Any]]:
            writer = RowWriter(rows, chain.from_iterable(transactions), user_id=user_id)
            results: list[dict[str, Any]] = []
            for entries in transactions:
                try:
                    with rows.savepoint():
                        writer.apply(entries)
                except RequestError as error:
                    results.append(_fatal_error(error, entries))
                    break
                results.append({"status": "success"})
            return results

        try:
            results = await self._service.opened.rows.write_rows(apply, user_id=user_id)
        except (sqlite3.Error, DatabaseTroubleError) as error:
            _log.warning("An upload failed because of a database error: %s", error)
            results = [_RETRYABLE_ERROR][: len(transactions)]
        return results + [{"status": "not_attempted"}] * (len(transactions) - len(results))

    async def single(self, request: Request) -> Response:
        """Apply a single write."""
        user_id = self._service.opened.tokens.authenticate(request).user_id
        body = await read_json(request, SingleWrite, _DATA_BYTES)
        op = HTTPMethod(request.method).value
        entry = convert({"op": op, "table": body.table, "id": body.data.get("id"), "data": body.data}, CrudEntry)
        await self._write(user_id, [entry])
        return json_answer({"message": f"{op} completed"})

    async def checkpoint(self, request: Request) -> Response:
        """Increment the write checkpoint of one of the user's clients."""
        user_id = self._service.opened.tokens.authenticate(request).user_id
        body = await read_json(request, CheckpointBody)
        if body.user_id != user_id:
            raise RequestError(403, "forbidden", "The token belongs to another user.", name="OwnershipError")

        value = await self._service.opened.rows.advance_checkpoint(user_id, body.client_id)
        return json_answer({"checkpoint": value})

    async def _write(self, user_id: str, entries: Sequence[CrudEntry]) -> None:
        def apply(rows: Rows) -> None:
            RowWriter(rows, entries, user_id=user_id).apply(entries)

        await self._service.opened.rows.write_rows(apply, user_id=user_id)
