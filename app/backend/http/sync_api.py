"""The sync API: the HTTP interface of the PowerSync Service, on top of `sync_stream` and `checkpoints`.

Owns how a stream uses its connection: the timeout for a client that does not read, and a prompt end
when the backend stops. Knows nothing about the content of the lines.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.backend.data import checkpoints
from app.backend.data.changes import Changes
from app.backend.errors import RequestError
from app.backend.http import encodings
from app.backend.http.bodies import read_json, read_json_object_or_empty
from app.backend.http.service import Service
from app.backend.http.sync_stream import SyncStream
from app.backend.http.write_api import json_answer
from app.backend.rules.streams import SyncRequest, resolve

_SEND_SECONDS = 60.0
_STOP_SECONDS = 1.0
_PROXY_HEADERS = ("forwarded", "x-forwarded-for")

_log = logging.getLogger(__name__)


class CheckpointRequest(msgspec.Struct):
    """A request to raise the write checkpoint of a client to an id, a positive integer as a decimal string."""

    client_id: str
    checkpoint_request_id: Annotated[str, msgspec.Meta(pattern="^[0-9]{1,19}$")]


class SyncApi:
    """The routes of the sync API."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/sync/stream", self.stream, methods=["POST"]),
            Route("/write-checkpoint2.json", self.write_checkpoint, methods=["GET"]),
            Route("/sync/checkpoint-request", self.checkpoint_request, methods=["POST"]),
        ]

    async def stream(self, request: Request) -> Response:
        """Open a sync stream."""
        opened = self._service.opened
        credentials = opened.tokens.authenticate(request)
        body = await read_json_object_or_empty(request, SyncRequest)
        log, feed = opened.log, opened.feed
        target = resolve(log.rules, body, prefix=log.prefix, user_id=credentials.user_id)
        kind = encodings.media_type(request.headers.get("accept"))
        stream = SyncStream(
            opened.database,
            log,
            feed,
            target,
            credentials,
            body,
            encode=encodings.encoder(kind, raw_data=bool(body.raw_data)),
            keepalive_seconds=self._service.config.keepalive_seconds,
        )
        with ExitStack() as watching:
            watching.enter_context(self._service.streams.one_of(credentials.user_id))
            watcher = watching.enter_context(feed.watch(credentials.user_id, body.client_id or ""))
            # Errors must be raised before the response starts.
            await stream.first_look(watcher)
            watching = watching.pop_all()
        encoding = encodings.content_encoding(request.headers.get("accept-encoding"))
        return _LinesResponse(stream.chunks(watcher), watching, kind, encoding, self._service.changes)

    async def write_checkpoint(self, request: Request) -> Response:
        """Increment the write checkpoint of the client."""
        user_id = self._service.opened.tokens.authenticate(request).user_id
        client_id = request.query_params.get("client_id", "")

        def advance(connection: sqlite3.Connection) -> int:
            return checkpoints.advance(connection, user_id, client_id)

        value = await self._service.opened.database.write(advance, user_id=user_id)
        return json_answer({"data": {"write_checkpoint": str(value)}})

    async def checkpoint_request(self, request: Request) -> Response:
        """Raise the write checkpoint of the client to the requested id."""
        user_id = self._service.opened.tokens.authenticate(request).user_id
        body = await read_json(request, CheckpointRequest)
        text = body.checkpoint_request_id
        requested = (
            int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(checkpoints.MAX_CHECKPOINT)) else 0
        )
        if not 0 < requested <= checkpoints.MAX_CHECKPOINT:
            description = f"checkpoint_request_id must be a decimal string from 1 to {checkpoints.MAX_CHECKPOINT}."
            raise RequestError(400, "invalid_request", description)

        def raise_to(connection: sqlite3.Connection) -> int:
            return checkpoints.raise_to(connection, user_id, body.client_id, requested)

        value = await self._service.opened.database.write(raise_to, user_id=user_id)
        return json_answer({"data": {"checkpoint_request_id": str(value)}})


class _LinesResponse(StreamingResponse):
    """Sends lines until they end, the client disconnects or stops reading, or the backend stops."""

    def __init__(
        self, chunks: AsyncGenerator[bytes], watching: ExitStack, kind: str, encoding: str | None, changes: Changes
    ) -> None:
        # Keep proxies from buffering lines.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept, Accept-Encoding"}
        if encoding is not None:
            headers["Content-Encoding"] = encoding
        super().__init__(chunks, media_type=kind, headers=headers)
        self._chunks = chunks
        self._watching = watching
        self._compress = encodings.compressor(encoding)
        self._changes = changes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response. Cancellation closes the generator of the lines."""
        del scope
        with self._watching:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send_lines(send))
                leaving = tasks.create_task(self.listen_for_disconnect(receive))
                stopping = tasks.create_task(self._changes.wait_closed())
                await asyncio.wait({sending, leaving, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done() and not sending.done():
                    # The lines now end on their own, unless the client does not read them.
                    await asyncio.wait({sending, leaving}, timeout=_STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for task in (sending, leaving, stopping):
                    task.cancel()

    async def _send_lines(self, send: Send) -> None:
        async with aclosing(self._chunks) as chunks:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async for chunk in chunks:
                    async with asyncio.timeout(_SEND_SECONDS):
                        await send({"type": "http.response.body", "body": self._compress(chunk), "more_body": True})
            except TimeoutError:
                _log.warning("Closing a sync stream: the client has not read anything for %d seconds.", _SEND_SECONDS)
                return
            except sqlite3.Error as error:
                _log.warning("Closing a sync stream: cannot read the database: %s", error)
            except RequestError as error:
                _log.warning("Closing a sync stream: %s", error)
            await send({"type": "http.response.body", "body": self._compress.end(), "more_body": False})


def sync_elsewhere(powersync_url: str | None) -> list[Route]:
    """Return routes that refer clients to the PowerSync Service that replicates the rows of this backend."""
    where = f"at {powersync_url}" if powersync_url else "by a PowerSync Service"

    async def refuse(_request: Request) -> Response:
        raise RequestError(
            404, "PSYNC_S2002", f"This backend only accepts writes; its lists are synced {where}.", name="RouteError"
        )

    paths = {"/sync/stream": ["POST"], "/write-checkpoint2.json": ["GET"], "/sync/checkpoint-request": ["POST"]}
    return [Route(path, refuse, methods=methods) for path, methods in paths.items()]
