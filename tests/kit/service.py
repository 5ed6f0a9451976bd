"""A sync service on a real socket whose every answer a test decides.

Owns HTTP/1.1 as far as the engine speaks it, so that a test can hold, cut or break any answer at any byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

import zstandard


@dataclass(eq=False)
class Exchange:
    """One HTTP request, and the connection to answer it on."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    muted: bool = False
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    _compress: Callable[[bytes], bytes] = field(default=lambda data: data, repr=False)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        await self.answer_bytes(status, json.dumps(body).encode(), "application/json", headers)

    async def answer_bytes(
        self, status: int, payload: bytes, content_type: str, headers: dict[str, str] | None = None
    ) -> None:
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(payload)}",
        ]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await self._write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + payload)

    async def begin_stream(self, encoding: Literal["gzip", "zstd"] | None = None) -> None:
        """Begin an answer without an end; with an encoding each `send` is compressed and flushed."""
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"
        if encoding == "gzip":
            gzip = zlib.compressobj(wbits=31)
            self._compress = lambda data: gzip.compress(data) + gzip.flush(zlib.Z_SYNC_FLUSH)
        elif encoding == "zstd":
            zstd = zstandard.ZstdCompressor().compressobj()
            self._compress = lambda data: zstd.compress(data) + zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        if encoding is not None:
            head += f"Content-Encoding: {encoding}\r\n"
        await self._write(f"{head}Connection: close\r\n\r\n".encode())

    async def send(self, data: bytes | str) -> None:
        data = self._compress(data.encode() if isinstance(data, str) else data)
        await self._write(b"%x\r\n%s\r\n" % (len(data), data))

    async def send_line(self, line: Any) -> None:
        await self.send(json.dumps(line) + "\n")

    async def end_stream(self) -> None:
        await self._write(b"0\r\n\r\n")

    def drop(self) -> None:
        """Break the connection without an end."""
        self.writer.transport.abort()

    async def _write(self, data: bytes) -> None:
        if self.muted:
            # As on a path that swallows packets: nothing goes out, and nothing says so.
            await self.closed_by_client()
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def closed_by_client(self) -> None:
        """Wait until the client has closed the connection. Several may wait."""
        async with self._reading:
            while await self.reader.read(1024):
                pass


Handler = Callable[[Exchange], Awaitable[None]]


@dataclass
class ScriptedService:
    """Where the service listens, and what it was asked."""

    port: int
    handler: Handler
    requests: list[Exchange] = field(default_factory=list)
    broken: list[BaseException] = field(default_factory=list)
    address: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"


@asynccontextmanager
async def scripted_service(
    handler: Handler, port: int = 0, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1"
) -> AsyncGenerator[ScriptedService]:
    """Serve `handler`, on loopback if nothing else is said, over TLS if asked to.

    An exception in the handler fails the test at the end.
    """

    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if (exchange := await _read_request(reader, writer)) is not None:
                service.requests.append(exchange)
                await service.handler(exchange)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:  # noqa: BLE001 - raised again at the end of the test
            service.broken.append(error)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Known from here on: a task that is cancelled before its first step would leave its connection open.
        connections[asyncio.get_running_loop().create_task(serve(reader, writer))] = writer

    server = await asyncio.start_server(accept, address, port, ssl=tls)
    service = ScriptedService(server.sockets[0].getsockname()[1], handler, address=address)
    try:
        yield service
    finally:
        # First no more is accepted, and what was becomes a connection: asyncio (3.11) loses sockets that it accepted
        # just before the server was closed.
        for listening in server.sockets:
            asyncio.get_running_loop().remove_reader(listening)
        await _turns_of_the_loop()
        server.close()
        for task, writer in connections.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*connections, return_exceptions=True)
        for writer in connections.values():
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await _turns_of_the_loop()  # aborted connections are closed
    if service.broken:
        raise service.broken[0]


async def _turns_of_the_loop() -> None:
    """Let the loop go on with what it has begun; it needs a few turns for that, and nothing tells when it is done."""
    for _ in range(5):
        await asyncio.sleep(0)


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except asyncio.IncompleteReadError:
        return None  # the client thought better of it
    method, target, _ = first.split(" ")
    return Exchange(method, target, headers, body, reader, writer)
