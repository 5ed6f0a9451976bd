"""Connections to the database file: one writer, several readers, and what each commit changed.

Owns the aiosqlite connections, their threads, leases and transactions, and tells after each commit which tables it
changed, once. SQL runs on the connection's own thread, never on the event loop; a whole function runs there in one
hop. Must not know what the tables mean (`sync.storage` does) nor anything of the sync protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite

from sync.cancellation import end_task, to_the_end
from sync.errors import DatabaseClosedError, DatabaseOpenError, NestedUseError, NoRowError
from sync.statements import STATEMENT_CACHE, Parameters, Row, Statements
from sync.wal import KEPT_BYTES, WriteAheadLog

T = TypeVar("T")

logger = logging.getLogger("sync.connection")

ChangeListener = Callable[[frozenset[str] | None], None]
"""Called on the event loop after a commit with the names of the changed tables; None means any table may have."""

BUSY_TIMEOUT_SECONDS = 10.0
OTHER_PROCESS_POLL_SECONDS = 0.1
READERS = 3

_INTERRUPT_AGAIN_SECONDS = 0.01


class _Connection(aiosqlite.Connection):
    """An aiosqlite connection on whose thread a whole function can run in one hop."""

    statements: Statements

    async def start(self) -> None:
        await self
        self.statements = await self.run(lambda: Statements(self._conn))

    async def run(self, function: Callable[[], T], *, interrupt: bool = False) -> T:
        """Run `function` on the connection's thread.

        If cancelled, first waits until the thread has finished it, so that nothing of it happens later; with
        `interrupt`, the SQL that is running is broken off.

        Raises:
            DatabaseClosedError: the connection is closed.
        """
        try:
            return cast("T", await self._queue(function))
        except asyncio.CancelledError:
            await to_the_end(self._until_idle(interrupt=interrupt))
            raise

    async def _until_idle(self, *, interrupt: bool) -> None:
        idle = asyncio.ensure_future(self._queue(_nothing))
        while not idle.done():
            if interrupt and self._connection is not None:
                self._connection.interrupt()  # has no effect on a statement that has not begun yet: say it again
            await asyncio.wait({idle}, timeout=_INTERRUPT_AGAIN_SECONDS if interrupt else None)

    def _queue(self, function: Callable[[], Any]) -> Awaitable[Any]:
        if not self._running or self._connection is None:
            raise DatabaseClosedError("The database is closed.")
        return cast("Awaitable[Any]", self._execute(function))  # pyright: ignore[reportUnknownMemberType]


def _nothing() -> None:
    """Queued behind a function to learn when that one has ended."""


class ConnectionPool:
    """One writer and several readers over one database file.

    Args:
        path: the file, made with mode 0600 if it is missing, or `":memory:"`.
        before_write: run at the start of each write transaction, on the writer's thread.
        before_commit: run at the end of each write transaction, on the writer's thread.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        before_write: Callable[[Statements], None],
        before_commit: Callable[[Statements], None],
    ) -> None:
        self.path = str(path)
        self._in_memory = self.path == ":memory:"
        self._before_write = before_write
        self._before_commit = before_commit
        self._write_lock = asyncio.Lock()
        self._log = None if self._in_memory else WriteAheadLog(self.path)
        self._writer: _Connection | None = None
        self._readers: list[_Connection] = []
        self._idle_readers: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()
        self._listeners: list[ChangeListener] = []
        self._poll: asyncio.Task[None] | None = None
        self._was_opened = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self, check: Callable[[Statements], None], prepare: Callable[[Statements], None]) -> None:
        """Open the file, run `check` before anything is changed, and `prepare` in a first write transaction.

        Raises:
            DatabaseOpenError: the file cannot be used and is left as it was, or this object was opened before.
        """
        if self._was_opened:
            raise DatabaseOpenError("This database object has been opened before; make a new one to open it again.")
        self._was_opened = True
        self._loop = asyncio.get_running_loop()
        try:
            if not self._in_memory:
                await asyncio.to_thread(_make_private_file, self.path)
            self._writer = self._connection()
            await to_the_end(self._writer.start())
            statements = self._writer.statements
            await self._writer.run(lambda: check(statements))
            await self._writer.run(lambda: _configure(statements, read_only=False))
            await self._writer.run(lambda: self._in_transaction(prepare, hooks=False))
            if not self._in_memory:
                for _ in range(READERS):
                    reader = self._connection()
                    self._readers.append(reader)
                    await to_the_end(reader.start())
                    await reader.run(lambda reader=reader: _configure(reader.statements, read_only=True))
                    self._idle_readers.put_nowait(reader)
                self._poll = asyncio.create_task(self._watch_other_processes(), name="sync: other processes")
        except (OSError, sqlite3.Error) as error:
            await self.close()
            raise DatabaseOpenError(_why_not_opened(self.path, error)) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close all connections, after the transactions that are running. Idempotent; cancelled, it still closes."""
        self._refuse_nested_use()
        await to_the_end(self._close())

    async def _close(self) -> None:
        if self._poll is not None:
            await end_task(self._poll)
        async with self._write_lock:
            if self._log is not None:
                await self._log.close()
            writer, self._writer = self._writer, None
            readers, self._readers = self._readers, []
            for connection in (*readers, writer):
                if connection is not None:
                    await connection.close()

    def require_open(self) -> None:
        """Raises DatabaseClosedError if the database is not open."""
        self._open_writer()

    def listen(self, listener: ChangeListener) -> None:
        """Call `listener` after each commit that changed something, of this process or another."""
        self._listeners.append(listener)

    async def write(self, function: Callable[[Statements], T]) -> T:
        """Run `function` in a write transaction of its own, in one hop; roll back if it raises.

        If cancelled once it runs, the transaction is still carried out before the cancellation is raised.
        """
        self._refuse_nested_use()
        async with self._write_lock:
            return await self._open_writer().run(lambda: self._in_transaction(function))

    async def write_in_bulk(self, function: Callable[[Statements], T]) -> T:
        """As `write`, for large transactions in a row: waits first if the write-ahead log has grown long."""
        if self._log is not None:
            await self._log.until_short()
        return await self.write(function)

    @asynccontextmanager
    async def write_transaction(self) -> AsyncGenerator[Transaction]:
        """A write transaction over several awaits; rolled back on any exception or cancellation inside."""
        self._refuse_nested_use()
        async with self._write_lock:
            writer = self._open_writer()
            transaction = Transaction(self, writer.run, writer.statements)
            try:
                await writer.run(lambda: self._begin(writer.statements))
                _live_transaction.set(transaction)
                try:
                    yield transaction
                finally:
                    _live_transaction.set(None)
                    transaction.end()
                await writer.run(lambda: self._commit(writer.statements))
            except BaseException:
                await to_the_end(writer.run(writer.statements.rollback))
                raise

    async def read(self, function: Callable[[Statements], T]) -> T:
        """Run `function` on a reader, on one consistent snapshot, in one hop."""
        self._refuse_nested_use()
        async with self._reader() as reader:

            def transaction() -> T:
                reader.statements.begin("DEFERRED")
                try:
                    return function(reader.statements)
                finally:
                    reader.statements.rollback()

            def read_only_transaction() -> T:
                reader.statements.execute("PRAGMA query_only = ON")
                try:
                    return transaction()
                finally:
                    reader.statements.execute("PRAGMA query_only = OFF")

            return await reader.run(read_only_transaction if self._in_memory else transaction, interrupt=True)

    @asynccontextmanager
    async def _reader(self) -> AsyncGenerator[_Connection]:
        if self._in_memory:
            async with self._write_lock:
                yield self._open_writer()
            return
        self._open_writer()
        reader = await self._idle_readers.get()
        try:
            yield reader
        finally:
            self._idle_readers.put_nowait(reader)

    def _connection(self) -> _Connection:
        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(
                self.path,
                timeout=BUSY_TIMEOUT_SECONDS,
                isolation_level=None,
                cached_statements=STATEMENT_CACHE,
            )
            connection.row_factory = sqlite3.Row
            for name in ("uuid", "gen_random_uuid"):
                connection.create_function(name, 0, lambda: str(uuid.uuid4()))
            return connection

        return _Connection(connect, iter_chunk_size=64)

    def _in_transaction(self, function: Callable[[Statements], T], *, hooks: bool = True) -> T:
        statements = self._open_writer().statements
        self._begin(statements, hooks=hooks)
        try:
            result = function(statements)
            self._commit(statements, hooks=hooks)
        except BaseException:
            statements.rollback()
            raise
        return result

    def _begin(self, statements: Statements, *, hooks: bool = True) -> None:
        statements.begin("IMMEDIATE")
        if hooks:
            self._before_write(statements)

    def _commit(self, statements: Statements, *, hooks: bool = True) -> None:
        if hooks:
            self._before_commit(statements)
        changed = statements.commit()
        if (changed is None or changed) and self._loop is not None:
            self._loop.call_soon_threadsafe(self._announce, changed)
            if self._log is not None and self._log.is_due():
                self._loop.call_soon_threadsafe(self._log.begin_checkpoint)

    def _announce(self, changed: frozenset[str] | None) -> None:
        for listener in self._listeners:
            listener(changed)

    def _open_writer(self) -> _Connection:
        if self._writer is None:
            raise DatabaseClosedError("The database is closed.")
        return self._writer

    def _refuse_nested_use(self) -> None:
        transaction = _live_transaction.get()
        if transaction is not None and transaction.is_of(self):
            raise NestedUseError(
                "The database was used inside its own write transaction; use the transaction object there."
            )

    async def _watch_other_processes(self) -> None:
        """Announce commits of other processes. A look costs two stats; only if they differ is the file asked."""
        files = [Path(self.path), Path(f"{self.path}-wal")]
        writer = self._open_writer()

        def version() -> int:
            return cast("int", writer.statements.value("PRAGMA data_version"))

        async with self._write_lock:
            last_version = await writer.run(version)
        last_stamps = _stamps(files)
        settled = True
        while self._writer is not None:
            await asyncio.sleep(OTHER_PROCESS_POLL_SECONDS)
            stamps = _stamps(files)
            if stamps == last_stamps and settled:
                continue
            # A commit within the same tick of the file system's clock leaves no new stamp: look once more.
            settled = stamps == last_stamps
            last_stamps = stamps
            try:
                async with self._write_lock:
                    now_version = await writer.run(version)
            except sqlite3.Error as error:
                logger.warning("changes of other processes may be seen late: %s", error)
                settled = False
                continue
            if now_version != last_version:
                last_version = now_version
                self._announce(None)


class Transaction:
    """The handle inside `write_transaction()`; of no use after its end."""

    def __init__(
        self, pool: ConnectionPool, run: Callable[[Callable[[], Any]], Awaitable[Any]], statements: Statements
    ) -> None:
        self._pool = pool
        self._run = run
        self._statements = statements
        self._ended = False

    def end(self) -> None:
        self._ended = True

    def is_of(self, pool: ConnectionPool) -> bool:
        """Whether this transaction is open on `pool`."""
        return self._pool is pool and not self._ended

    async def execute(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run one statement and return its rows. An SQL error leaves the transaction usable unless SQLite ended it.

        Raises:
            sqlite3.Error: SQLite refused the statement.
            DatabaseClosedError: the transaction has ended, be it by an error that made SQLite roll it back.
        """
        return cast("list[Row]", await self._on_thread(lambda: self._statements.execute(sql, parameters)))

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run one statement once for each row of parameters."""
        await self._on_thread(lambda: self._statements.execute_many(sql, rows))

    async def get_all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run a query and return all rows, this transaction's own changes included."""
        return await self.execute(sql, parameters)

    async def get_optional(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """Run a query and return its first row, or None."""
        rows = await self.execute(sql, parameters)
        return rows[0] if rows else None

    async def get(self, sql: str, parameters: Parameters = ()) -> Row:
        """Run a query and return its first row.

        Raises:
            NoRowError: there is none.
        """
        row = await self.get_optional(sql, parameters)
        if row is None:
            raise NoRowError(f"The query found no row: {sql}")
        return row

    async def _on_thread(self, function: Callable[[], Any]) -> Any:
        if self._ended:
            raise DatabaseClosedError("The transaction has ended; its handle cannot be used any more.")

        def inside() -> Any:
            if not self._statements.in_transaction:
                raise DatabaseClosedError("SQLite has rolled this transaction back after an error; begin a new one.")
            return function()

        return await self._run(inside)


_live_transaction: ContextVar[Transaction | None] = ContextVar("live transaction", default=None)
"""The transaction that the current task, or the task that started it, is inside of."""


def _stamps(files: Sequence[Path]) -> tuple[tuple[int, int] | None, ...]:
    stamps: list[tuple[int, int] | None] = []
    for file in files:
        try:
            stat = file.stat()
            stamps.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            stamps.append(None)
    return tuple(stamps)


def _make_private_file(path: str) -> None:
    # An existing file is not opened here: closing it again would drop the locks that SQLite holds on it elsewhere in
    # this process.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _configure(statements: Statements, *, read_only: bool) -> None:
    statements.execute("PRAGMA synchronous = NORMAL")
    statements.execute("PRAGMA recursive_triggers = OFF")
    # Debian's SQLite overwrites what is deleted, which doubles the writing.
    statements.execute("PRAGMA secure_delete = OFF")
    if read_only:
        statements.execute("PRAGMA query_only = ON")
    else:
        _switch_to_wal(statements)
        statements.execute(f"PRAGMA journal_size_limit = {KEPT_BYTES}")
        statements.execute("PRAGMA wal_autocheckpoint = 0")  # `sync.wal` does it, beside the writer


def _switch_to_wal(statements: Statements) -> None:
    """Another process that opens the same new file makes this fail at once, without SQLite's own waiting."""
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            statements.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _why_not_opened(path: str, error: Exception) -> str:
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        return f"{path} is not a SQLite database; it was left as it is. Move it away or choose another file."
    if isinstance(error, OSError) and error.strerror:
        return f"The database {path} cannot be opened: {error.strerror}."
    return f"The database {path} cannot be opened: {error}."
