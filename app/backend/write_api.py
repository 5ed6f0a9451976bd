"""The write side: the official Node demo's HTTP interface, tokens and uploads.

Turns requests into calls of `rows`, `checkpoints` and `auth`, and their results into answers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from http import HTTPMethod
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.backend import checkpoints
from app.backend.bodies import MEBIBYTE, convert, read_json
from app.backend.errors import RequestError
from app.backend.rows import CrudEntry, RowWriter
from app.backend.service import Service

_MAX_USER_ID = 255
# One transaction of a client is one body and cannot be parted: refused, it would hold up all that wait behind it.
_DATA_BYTES = 16 * MEBIBYTE


class CrudBatch(msgspec.Struct):
    """Writes that are applied all or not at all."""

    batch: list[CrudEntry]


class SingleWrite(msgspec.Struct):
    """One row, its `id` inside the data; the HTTP method says what to do with it."""

    table: str
    data: dict[str, Any]


class CheckpointBody(msgspec.Struct):
    """Who asks for a write checkpoint, and for which of their clients."""

    user_id: str
    client_id: str


def json_answer(value: Any) -> Response:
    """A 200 with `value` as JSON."""
    return Response(msgspec.json.encode(value), media_type="application/json")


class WriteApi:
    """The routes under `/api`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """What to mount."""
        return [
            Route("/api/auth/token", self.token, methods=["GET"]),
            Route("/api/auth/keys", self.keys, methods=["GET"]),
            Route("/api/data", self.batch, methods=["POST"]),
            Route("/api/data", self.single, methods=["PUT", "PATCH", "DELETE"]),
            Route("/api/data/checkpoint", self.checkpoint, methods=["PUT"]),
        ]

    async def token(self, request: Request) -> Response:
        """A token for the user named in the query; this demo asks for no password."""
        user_id = request.query_params.get("user_id", "")
        if not 0 < len(user_id) <= _MAX_USER_ID:
            description = f"Name the user in the query as user_id, with 1 to {_MAX_USER_ID} characters."
            raise RequestError(400, "missing_field", description)
        return json_answer(
            {
                "token": self._service.opened.tokens.issue(user_id),
                "powersync_url": str(request.base_url).rstrip("/"),
            }
        )

    async def keys(self, _request: Request) -> Response:
        """The keys with which tokens can be checked."""
        return json_answer(self._service.opened.tokens.public_keys())

    async def batch(self, request: Request) -> Response:
        """Apply a batch of writes in one transaction."""
        user_id = self._service.opened.tokens.authenticate(request).user_id
        body = await read_json(request, CrudBatch, _DATA_BYTES)
        await self._write(user_id, body.batch)
        return json_answer({"message": "Batch completed"})

    async def single(self, request: Request) -> Response:
        """Apply one write."""
        user_id = self._service.opened.tokens.authenticate(request).user_id
        body = await read_json(request, SingleWrite, _DATA_BYTES)
        op = HTTPMethod(request.method).value
        entry = convert({"op": op, "table": body.table, "id": body.data.get("id"), "data": body.data}, CrudEntry)
        await self._write(user_id, [entry])
        return json_answer({"message": f"{op} completed"})

    async def checkpoint(self, request: Request) -> Response:
        """Count up the write checkpoint of one of the user's clients."""
        user_id = self._service.opened.tokens.authenticate(request).user_id
        body = await read_json(request, CheckpointBody)
        if body.user_id != user_id:
            raise RequestError(403, "forbidden", "The token belongs to another user.", name="OwnershipError")

        def advance(connection: sqlite3.Connection) -> int:
            return checkpoints.advance(connection, user_id, body.client_id)

        value = await self._service.opened.database.write(advance, user_id=user_id)
        return json_answer({"checkpoint": value})

    async def _write(self, user_id: str, entries: Sequence[CrudEntry]) -> None:
        opened = self._service.opened

        def apply(connection: sqlite3.Connection) -> None:
            RowWriter(connection, opened.log, prefix=opened.bucket_prefix, user_id=user_id).apply(entries)

        await opened.database.write(apply, user_id=user_id)
