"""One connection to the file, on a thread of its own.

Owns how a connection is opened and set up, how a function runs on its thread, and how it is lent out as a raw
aiosqlite connection and restored afterwards. Must not know who uses which connection: `sync.sqlite.pool` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar, cast

import aiosqlite

from sync.errors import DatabaseClosedError
from sync.sqlite import wal
from sync.sqlite.cancellation import run_to_completion
from sync.sqlite.sql_connection import SCHEMA_TABLE, STATEMENT_CACHE, SqlConnection, TableRecorder

T = TypeVar("T")

BUSY_TIMEOUT_SECONDS = 10.0

_INTERRUPT_AGAIN_SECONDS = 0.01

_WRITER_CACHE_KIB = 8 << 10  # a large transaction outgrows SQLite's 2 MB, and its pages are written and read twice


class ConnectionThread(aiosqlite.Connection):
    """An aiosqlite connection on whose thread a whole function can run in one hop."""

    connection: SqlConnection

    def __init__(self, path: str) -> None:
        super().__init__(lambda: _connect(path), iter_chunk_size=64)
        self._closing: asyncio.Future[None] | None = None

    async def open(self, *, set_up: Callable[[SqlConnection], None]) -> None:
        """Open the file and run `set_up`. Completes even if cancelled."""

        async def start() -> None:
            await self
            self.connection = await self.run(lambda: SqlConnection(self._conn))
            await self.run(lambda: set_up(self.connection))

        await run_to_completion(start())

    async def run(self, function: Callable[[], T], *, interrupt: bool = False) -> T:
        """Run `function` on the connection's thread.

        If cancelled, first waits until the thread has finished it, so that none of it happens later; with `interrupt`,
        the running SQL is interrupted.

        Raises:
            DatabaseClosedError: the connection is closed.
        """
        try:
            return await self._queue(function)
        except asyncio.CancelledError:
            await run_to_completion(self._until_idle(interrupt=interrupt))
            raise

    async def _until_idle(self, *, interrupt: bool) -> None:
        idle = self._queue(_nothing)
        while not idle.done():
            if interrupt and self._connection is not None:
                self._connection.interrupt()  # repeated, as it has no effect on a statement that has not started yet
            await asyncio.wait({idle}, timeout=_INTERRUPT_AGAIN_SECONDS if interrupt else None)

    def _queue(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Like aiosqlite's own queue to its thread, without a coroutine and a wrapper for each function."""
        if not self._running or self._connection is None:
            raise DatabaseClosedError("The database is closed.")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        cast("Any", self)._tx.put_nowait((done, function))
        return done

    async def close(self) -> None:
        """Close, after the thread's pending work. Idempotent; if cancelled, it still closes."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await run_to_completion(self._closing)

    async def _close(self) -> None:
        if hasattr(self, "connection"):
            await self.run(self.connection.release)
        await super().close()

    def lend(self, after_call: Callable[[frozenset[str]], None], *, set_up: Callable[[SqlConnection], None]) -> Loan:
        """A raw connection on the same thread, until it is taken back.

        Args:
            after_call: run on the thread after each call that left no transaction open and changed something, with
                the tables changed since the loan began.
            set_up: restores the connection's settings, whatever was done to it.
        """
        return Loan(self, self._conn, after_call, set_up)


def _nothing() -> None:
    """Queued after a function to find out when that has ended."""


class Loan(aiosqlite.Connection):
    """A connection lent out. Has no thread of its own, and cannot be used after it was taken back."""

    def __init__(
        self,
        owner: ConnectionThread,
        connection: sqlite3.Connection,
        after_call: Callable[[frozenset[str]], None],
        set_up: Callable[[SqlConnection], None],
    ) -> None:
        super().__init__(lambda: connection, iter_chunk_size=64)
        self._owner = owner
        self._tx = cast("Any", owner)._tx
        self._after_call = after_call
        self._set_up = set_up
        self._recorder = TableRecorder()
        self._total_changes = 0

    async def begin(self) -> None:
        """Open it for calls."""
        connection = self._connection = self._connector()

        def begin() -> None:
            # Setting an authorizer makes SQLite prepare all statements again, and so report the tables of each.
            connection.set_authorizer(self._recorder)
            self._total_changes = connection.total_changes

        await self._owner.run(begin)

    async def take_back(self) -> None:
        """Close all cursors, roll back an open transaction, and restore all settings. Waits for running calls."""
        connection, self._connection = self._connection, None
        self._running = False
        if connection is None:
            return

        def restore() -> None:
            self._owner.connection.release()
            set_up_rows(connection)
            self._owner.connection.install_authorizer()
            self._set_up(self._owner.connection)

        with contextlib.suppress(DatabaseClosedError):  # closing has released everything
            await self._owner.run(restore)

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        connection = self._connection
        if connection is None or not cast("Any", self._owner)._running:
            raise ValueError("no active connection")  # aiosqlite's own message, which SQLAlchemy recognizes

        def call() -> Any:
            try:
                result = fn(*args, **kwargs)
                if isinstance(result, sqlite3.Cursor):
                    self._owner.connection.tracked(result)
                return result
            finally:
                if not connection.in_transaction:
                    self._notify(connection)

        return await cast("Any", super())._execute(call)

    def _notify(self, connection: sqlite3.Connection) -> None:
        written = frozenset(self._recorder.written)
        if connection.total_changes != self._total_changes or SCHEMA_TABLE in written:
            self._after_call(written)
            self._total_changes = connection.total_changes

    async def close(self) -> None:
        """Does nothing: the connection is taken back at the end of the lease."""

    def stop(self) -> None:
        """Does nothing: this object does not own the thread."""


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, cached_statements=STATEMENT_CACHE)
    set_up_rows(connection)
    for name in ("uuid", "gen_random_uuid"):
        connection.create_function(name, 0, lambda: str(uuid.uuid4()))
    return connection


def set_up_rows(connection: sqlite3.Connection) -> None:
    """Set how values are returned, and that only explicit BEGINs start transactions."""
    connection.isolation_level = None
    connection.row_factory = sqlite3.Row
    connection.text_factory = str


def set_up_reader(connection: SqlConnection) -> None:
    """Set up a connection that must not write."""
    connection.execute("PRAGMA recursive_triggers = OFF")
    connection.execute("PRAGMA query_only = ON")


def set_up_writer(connection: SqlConnection) -> None:
    """Set up the one connection that writes."""
    connection.execute("PRAGMA query_only = OFF")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA recursive_triggers = OFF")
    # Debian's SQLite overwrites deleted content, which doubles the amount written.
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
    _switch_to_wal(connection)
    connection.execute(f"PRAGMA journal_size_limit = {wal.KEPT_BYTES}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # `sync.sqlite.wal` does it, in parallel with the writer


def _switch_to_wal(connection: SqlConnection) -> None:
    """If another process opens the same new file, this fails immediately without SQLite's busy timeout: retry here."""
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def make_private_file(path: str) -> None:
    """Create the file with mode 0600, if it does not exist."""
    # An existing file is not opened here: closing it again would drop the locks that SQLite holds on it elsewhere in
    # this process.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def why_not_opened(path: str, error: Exception) -> str:
    """Why the file could not be opened, in one sentence for the user."""
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        return f"{path} is not a SQLite database; it was left as it is. Move it away or choose another file."
    if isinstance(error, OSError) and error.strerror:
        return f"The database {path} cannot be opened: {error.strerror}."
    return f"The database {path} cannot be opened: {error}."
