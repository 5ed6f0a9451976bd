"""The real client on a real file: the engine's download loop over an in-memory wire, steered step by step.

Everything that knows the inside of the engine is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sync import BackendConnector, Column, PowerSyncCredentials, PowerSyncDatabase, Schema, SyncOptions, Table
from sync.client.connector import PowerSyncCredentials as Credentials
from sync.client.context import SessionContext
from sync.client.credentials import CredentialsCache
from sync.client.download import DownloadLoop
from sync.client.mailbox import SyncMail
from sync.client.streams_in_use import StreamsInUse
from sync.errors import ChecksumError
from sync.protocol import StreamRequest
from sync.sqlite.sql_connection import SqlConnection
from sync.storage import upload_queue
from tests.kit import inside
from tests.sync.model.expectation import Edit, Entry
from tests.sync.model.server import Row, Server, Value

_COLUMNS = (Column.text("name"), Column.integer("n"))
SCHEMAS = {
    names: Schema([Table(name, _COLUMNS) for name in names])
    for names in (("lists", "todos"), ("lists", "notes", "todos"), ("lists",))
}

_OPTIONS = SyncOptions(retry_delay=1e-6, max_retry_delay=1e-6)
_DEADLINE_SECONDS = 60


class _Connector(BackendConnector):
    async def fetch_credentials(self) -> PowerSyncCredentials:
        return PowerSyncCredentials("http://localhost", "token")

    async def upload_data(self, database: PowerSyncDatabase) -> None:
        raise AssertionError(database)


class Stream:
    """One request of the client and, once it is accepted, the bytes that it gets."""

    def __init__(self, request: StreamRequest, changed: asyncio.Condition) -> None:
        self.positions = {b["name"]: int(b["after"]) for b in json.loads(request.encode())["buckets"]}
        self.accepted = asyncio.Event()
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.is_waiting = False
        self.is_closed = False
        self._changed = changed

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        async with self._changed:
            self.is_waiting = self.chunks.empty()
            self._changed.notify_all()
        chunk = await self.chunks.get()
        self.is_waiting = False
        if chunk is None:
            raise StopAsyncIteration
        return chunk


class Wire:
    """In the place of the HTTP client: every stream that the engine opens waits here for the test."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.changed = asyncio.Condition()

    @asynccontextmanager
    async def open_stream(self, _credentials: Credentials, request: StreamRequest) -> AsyncGenerator[Stream]:
        stream = Stream(request, self.changed)
        async with self.changed:
            self.stream = stream
            self.changed.notify_all()
        try:
            await stream.accepted.wait()
            yield stream
        finally:
            stream.is_closed = True
            async with self.changed:
                self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(_DEADLINE_SECONDS), self.changed:
            await self.changed.wait_for(condition)


@dataclass(frozen=True)
class Seen:
    """What the file shows."""

    visible: dict[Row, Value]
    queue: list[list[Entry]]
    is_gate_open: bool
    priorities: set[int]
    streams: set[str]
    has_notes: bool


class Client:
    """A database that is open, and its download loop, which always has a request out or a stream open."""

    def __init__(self, database: PowerSyncDatabase, tables: tuple[str, ...]) -> None:
        self.database = database
        self.tables = tables
        self._wire = Wire()
        self._loop = DownloadLoop(
            SessionContext(
                pool=inside.pool_of(database),
                board=inside.board_of(database),
                raw_tables=(),
                streams=StreamsInUse(),
                mail=SyncMail(),
                options=_OPTIONS,
                service=self._wire,  # type: ignore[arg-type]
                credentials=CredentialsCache(_Connector(), 10),
            )
        )
        self._running = asyncio.create_task(self._loop.run())

    @classmethod
    async def open(cls, path: Path, tables: tuple[str, ...]) -> Client:
        database = PowerSyncDatabase(path, SCHEMAS[tables])
        await database.open()
        client = cls(database, tables)
        await client._wire.until(lambda: client._wire.stream is not None)
        return client

    async def close(self) -> None:
        """Stop syncing wherever it is: what came and is not committed is lost."""
        self._running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running
        await self.database.close()

    @property
    def has_synced(self) -> bool:
        return self.database.status.last_synced_at is not None

    @property
    def refused_buckets(self) -> tuple[str, ...]:
        """Those whose checksums ended the stream before."""
        error = self.database.status.download_error
        return error.buckets if isinstance(error, ChecksumError) else ()

    # The stream

    @property
    def stream(self) -> Stream:
        assert self._wire.stream is not None
        return self._wire.stream

    async def accept(self) -> None:
        stream = self.stream
        stream.accepted.set()
        await self._until(lambda: stream.is_waiting and self._all_is_taken)

    @property
    def _all_is_taken(self) -> bool:
        return inside.are_all_lines_taken(self._loop)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """As `Wire.until`, for what the engine tells nobody of."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while not condition():
                await asyncio.sleep(0.0002)

    async def send(self, *chunks: bytes) -> bool:
        """Send bytes and wait until they are dealt with. False: the client gave the stream up and asks for another."""
        stream = self.stream
        for chunk in chunks:
            stream.is_waiting = False
            stream.chunks.put_nowait(chunk)
            await self._until(lambda: (stream.is_waiting and self._all_is_taken) or stream.is_closed)
            if stream.is_closed:
                await self._wire.until(lambda: self._wire.stream is not stream)
                return False
        return True

    async def end(self) -> None:
        """End the stream, and wait for the next request."""
        stream = self.stream
        stream.chunks.put_nowait(None)
        await self._wire.until(lambda: self._wire.stream is not stream)

    # Writing and uploading

    async def write(self, edits: list[Edit], *, roll_back: bool) -> None:
        """One transaction. Raises sqlite3.IntegrityError if an insert meets a row."""
        with contextlib.suppress(InterruptedError):
            async with self.database.write_transaction() as transaction:
                for kind, (table, row_id), (name, n) in edits:
                    if kind == "insert":
                        await transaction.execute(
                            f"INSERT INTO {table}(id, name, n) VALUES (?, ?, ?)", (row_id, name, n)
                        )
                    elif kind == "update":
                        await transaction.execute(f"UPDATE {table} SET name = ?, n = ? WHERE id = ?", (name, n, row_id))
                    else:
                        await transaction.execute(f"DELETE FROM {table} WHERE id = ?", (row_id,))
                if roll_back:
                    raise InterruptedError

    async def waiting_transactions(self) -> list[list[Entry]]:
        return [
            [(entry.op, (entry.table, entry.id), entry.data) for entry in transaction.crud]
            async for transaction in self.database.crud_transactions()
        ]

    async def complete_first(self) -> None:
        """The backend has answered for the first transaction."""
        async for transaction in self.database.crud_transactions():
            await transaction.complete()
            return

    async def request_checkpoint(self, server: Server) -> tuple[int, int] | None:
        """Ask the service, as after an upload. Returns the id and the queue's state then; None: nothing to ask for."""
        pool = inside.pool_of(self.database)
        state = await pool.read(upload_queue.queue_state)
        if not state.checkpoint_wanted:
            return None
        request_id, answer = 0, 1
        while answer > request_id:
            request_id = await pool.write(
                lambda connection, answer=answer: upload_queue.next_checkpoint_request_id(connection, answer)
            )
            answer = server.request_checkpoint(request_id)
        return request_id, state.last_ever

    async def checkpoint_answered(self, request_id: int, last_ever: int) -> None:
        await inside.write(self.database, lambda connection: upload_queue.set_target(connection, request_id, last_ever))

    async def uploads_completed(self) -> None:
        await self._loop.publish_held_back()

    # Looking

    async def look(self) -> Seen:
        queue = await self.waiting_transactions()

        def read(connection: SqlConnection) -> Seen:
            visible: dict[Row, Value] = {}
            for table in self.tables:
                for row in connection.execute(f"SELECT id, name, n FROM {table}"):
                    visible[table, row["id"]] = (row["name"], row["n"])
            for row in connection.execute("SELECT type, id, data FROM ps_untyped"):
                data: dict[str, Any] = json.loads(row["data"])
                visible[row["type"], row["id"]] = (data.get("name"), data.get("n"))
            return Seen(
                visible,
                queue,
                upload_queue.is_gate_open(connection),
                {row[0] for row in connection.execute("SELECT priority FROM ps_sync_state")},
                {
                    row[0]
                    for row in connection.execute(
                        "SELECT stream_name FROM ps_stream_subscriptions WHERE last_synced_at IS NOT NULL"
                    )
                },
                connection.first("SELECT 1 FROM ps_updated_rows") is not None,
            )

        return await inside.read(self.database, read)

    async def integrity(self) -> str:
        return (await self.database.get("PRAGMA integrity_check"))[0]


# Each threshold with the modules that may hold it and the values that a run draws from: with low ones small data takes
# the ways of large data. None leaves it as it is.
THRESHOLDS: dict[str, tuple[tuple[str, ...], tuple[int | None, ...]]] = {
    "_TAKE_IN_BYTES": (("sync.client.stream_connection",), (None, 1, 400)),
    "FILL_FROM_OPERATIONS": (("sync.storage.publish",), (None, 1, 4)),
    "REBUILD_FACTOR": (("sync.storage.staging",), (None, 0)),
}


@contextlib.contextmanager
def thresholds(values: dict[str, int | None]) -> Generator[None]:
    """Set thresholds of the engine for a while."""
    with contextlib.ExitStack() as restore:
        for name, value in values.items():
            modules = [importlib.import_module(one) for one in THRESHOLDS[name][0] if importlib.util.find_spec(one)]
            holders = [module for module in modules if hasattr(module, name)]
            assert holders, f"no module has {name}"
            for module in holders:
                restore.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, getattr(module, name) if value is None else value)
        yield
