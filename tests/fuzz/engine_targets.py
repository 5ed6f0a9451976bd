"""What is fuzzed of the engine: spoiled streams taken in by a real database, and spoiled answers of a service.

Each target keeps one loop, one database or one server for all of its inputs, as a client does that reconnects, and
closes it in the end.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from sync import PowerSyncCredentials, PowerSyncDatabase, SyncOptions
from sync.client.context import SessionContext
from sync.client.line_reader import lines_of
from sync.client.mailbox import SyncMail
from sync.client.service import SyncService
from sync.client.stream_connection import StreamConnection
from sync.client.streams_in_use import StreamsInUse
from sync.errors import ChecksumError, NetworkError, ProtocolError, ServiceError
from sync.protocol import CheckpointComplete, KeepAlive, StreamRequest, SubscriptionsRequest, decode_line
from sync.sqlite.sql_connection import SqlConnection
from tests.fuzz.mutation import mutated, transcripts
from tests.kit import inside
from tests.sync.rig import SCHEMA

_INPUTS_PER_FILE: Final = 300
_SECONDS: Final = 30.0

_PUBLISHED: Final = """
    SELECT 'lists', id, data FROM ps_data__lists UNION ALL SELECT 'todos', id, data FROM ps_data__todos
     UNION ALL SELECT type, id, data FROM ps_untyped ORDER BY 1, 2"""
_NEWEST: Final = """
    SELECT row_type, row_id, data FROM (SELECT row_type, row_id, data, max(op_id) FROM ps_oplog
     WHERE row_type IS NOT NULL AND row_id IS NOT NULL GROUP BY row_type, row_id)
     WHERE data IS NOT NULL ORDER BY 1, 2"""
"""A row that was put without data is none, here as to PowerSync's own core."""
_MISCOUNTED: Final = """
    SELECT name FROM ps_buckets
     WHERE (op_checksum - (SELECT coalesce(sum(hash), 0) FROM ps_oplog WHERE bucket = ps_buckets.id)) & 0xffffffff"""


class Client:
    """A database that takes in one spoiled stream after another."""

    def __init__(self, scratch: Path) -> None:
        self._runner = asyncio.Runner()
        self._scratch = scratch
        self._database: PowerSyncDatabase | None = None
        self._inputs = 0
        self._completed: list[int | None] = []
        self.published = 0
        self.refused: ProtocolError | ChecksumError | None = None

    def take(self, chunks: Sequence[list[bytes]]) -> None:
        """Take in the lines of one connection, looking at the file after each chunk."""
        self._runner.run(asyncio.wait_for(self._take(chunks), _SECONDS))

    def rows(self) -> list[tuple[Any, ...]]:
        """What is published: type, id and data of each row."""
        return self._runner.run(self._rows(_PUBLISHED))

    def close(self) -> None:
        if self._database is not None:
            self._runner.run(self._database.close())
        self._runner.close()

    async def _opened(self) -> PowerSyncDatabase:
        if self._inputs % _INPUTS_PER_FILE == 0:
            if self._database is not None:
                await self._database.close()
            self._database = PowerSyncDatabase(self._scratch / f"{self._inputs}.db", SCHEMA)
            await self._database.open()
        self._inputs += 1
        assert self._database is not None
        return self._database

    async def _take(self, chunks: Sequence[list[bytes]]) -> None:
        database = await self._opened()

        async def keep_alive(_: KeepAlive) -> None:
            return

        context = SessionContext(
            pool=inside.pool_of(database),
            board=inside.board_of(database),
            raw_tables=(),
            streams=StreamsInUse(),
            mail=SyncMail(),
            options=SyncOptions(),
            service=None,  # type: ignore[arg-type]
            credentials=None,  # type: ignore[arg-type]
        )
        connection = StreamConnection(context, asyncio.Lock(), keep_alive, self._completed.append)
        await connection.prepare()
        before = await self._rows(_PUBLISHED)
        try:
            for chunk in chunks:
                self._completed.clear()
                self.refused = None
                try:
                    await connection.take(chunk)
                except (ProtocolError, ChecksumError) as error:
                    self.refused = error
                after = await self._rows(_PUBLISHED)
                if not self._completed:
                    assert after == before, "something was published without a checkpoint"
                elif None in self._completed and self.refused is None and _completes(chunk[-1]):
                    self.published += 1
                    assert after == await self._rows(_NEWEST), "what is published is no whole checkpoint"
                assert not await self._rows(_MISCOUNTED), "the checksums do not add up"
                before = after
                if self.refused is not None:
                    break
        finally:
            await connection.end()
        if self._inputs % _INPUTS_PER_FILE == 0:
            assert await self._rows("PRAGMA integrity_check") == [("ok",)]

    async def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        assert self._database is not None

        def read(connection: SqlConnection) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in connection.execute(sql)]

        return await inside.read(self._database, read)


def _completes(line: bytes) -> bool:
    """Whether nothing comes after the checkpoint: the next one may take buckets away before it is published."""
    try:
        return isinstance(decode_line(line), CheckpointComplete)
    except ProtocolError:
        return False


@contextmanager
def streams(scratch: Path) -> Generator[Callable[[random.Random], None]]:
    """Whatever comes, what is published is a whole checkpoint that adds up, and trouble is a typed error."""
    client = Client(scratch)
    try:
        yield lambda chance: client.take(_spoiled_stream(chance))
    finally:
        client.close()


def _spoiled_stream(chance: random.Random) -> list[list[bytes]]:
    """Lines as they come together."""
    lines = list(chance.choice(transcripts()))
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(lines))
        match chance.randrange(5):
            case 0:
                del lines[place]
            case 1:
                lines.insert(chance.randrange(len(lines) + 1), lines[place])
            case 2:
                lines[place] = _other_number(chance, lines[place])
            case 3:
                lines.insert(place, chance.choice(chance.choice(transcripts())))
            case _:
                lines[place] = mutated(chance, lines[place])
        if not lines:
            break
    chunks: list[list[bytes]] = [[]]
    for line in lines:
        chunks[-1].append(line)
        if line.startswith((b'{"checkpoint_complete', b'{"partial_')) and chance.random() < 0.8:
            chunks.append([])
    return [chunk for chunk in chunks if chunk]


def _other_number(chance: random.Random, line: bytes) -> bytes:
    """The line with a digit of one of its numbers changed: it can still be read, and is wrong."""
    digits = [place for place, byte in enumerate(line) if 0x30 <= byte <= 0x39]
    if not digits:
        return line
    place = chance.choice(digits)
    return line[:place] + str(chance.randrange(10)).encode() + line[place + 1 :]


class _Service:
    """A server that answers with whatever bytes it is given, and the engine's client of it."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._answer = b""
        self._runner.run(self._start())

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self._credentials = PowerSyncCredentials(f"http://{host}:{port}", "a.secret.token")
        self._client = httpx.AsyncClient(trust_env=False)
        self._service = SyncService(self._client, 2.0, 2.0, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def ask(self, answer: bytes, *, stream: bool) -> None:
        self._answer = answer
        try:
            self._runner.run(asyncio.wait_for(self._stream() if stream else self._checkpoint(), _SECONDS))
        except (NetworkError, ProtocolError) as error:
            told = str(error)
        except ServiceError as error:
            told = f"{error} {error.code}"
        else:
            return
        assert self._credentials.token not in told

    def close(self) -> None:
        self._runner.run(self._end())
        self._runner.close()

    async def _end(self) -> None:
        await self._client.aclose()
        self._server.close()
        await self._server.wait_closed()

    async def _checkpoint(self) -> None:
        assert isinstance(await self._service.request_checkpoint(self._credentials, "client", 1), int)

    async def _stream(self) -> None:
        request = StreamRequest((), "client", SubscriptionsRequest(include_defaults=True, subscriptions=()))
        async with self._service.open_stream(self._credentials, request) as chunks, lines_of(chunks) as lines:
            async for several in lines:
                assert all(b"\n" not in line for line in several)


@contextmanager
def responses(_: Path) -> Generator[Callable[[random.Random], None]]:
    """Whatever bytes a service answers with, the engine has an id, lines, or a typed error without the token."""
    service = _Service()
    try:
        yield lambda chance: service.ask(_spoiled_answer(chance), stream=chance.random() < 0.5)
    finally:
        service.close()


def _spoiled_answer(chance: random.Random) -> bytes:
    good = b"".join(line + b"\n" for line in chance.choice(transcripts())[:5])
    body = chance.choice(
        [
            good,
            json.dumps({"data": {"checkpoint_request_id": "7"}}).encode(),
            json.dumps({"error": {"code": "PSYNC_S2101", "description": "no a.secret.token"}}).encode(),
            b"",
        ]
    )
    status = chance.choice([b"200 OK", b"401 Unauthorized", b"429 Too Many Requests", b"503 ", b"204 No", b"302 Found"])
    headers = chance.choice(
        [
            b"Content-Length: %d" % len(body),
            b"Content-Length: %d" % chance.randrange(2000),
            b"Transfer-Encoding: chunked",
            b"Content-Encoding: gzip",
            b"Content-Encoding: zstd",
            b"Retry-After: 99999999999999999999\r\nConnection: close",
            b"Retry-After: Fri, 31 Dec 9999 23:59:59 GMT",
            b"Location: http://[",
        ]
    )
    answer = b"HTTP/1.1 " + status + b"\r\n" + headers + b"\r\n\r\n" + body
    return mutated(chance, answer) if chance.random() < 0.7 else answer
