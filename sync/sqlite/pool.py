"""Connections to the database file: one writer, several readers, and what each commit changed.

Owns who may use which connection when, the transactions, and tells after each commit which tables it changed, once.
SQL runs on the connections' own threads, never on the event loop; a whole function runs there in one hop. Must not
know what the tables mean (`sync.storage` does) nor anything of the sync protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite

from sync.errors import DatabaseClosedError, DatabaseOpenError, NestedUseError
from sync.sqlite.cancellation import end_task, run_to_completion
from sync.sqlite.connection_thread import (
    BUSY_TIMEOUT_SECONDS,
    ConnectionThread,
    set_up_reader,
    set_up_writer,
    why_not_opened,
)
from sync.sqlite.openers import OpenMark
from sync.sqlite.other_processes import watch_other_processes
from sync.sqlite.row_recorder import RowRecorder
from sync.sqlite.sql_connection import Parameters, Row, SqlConnection
from sync.sqlite.transaction import ReadTransaction, Transaction
from sync.sqlite.wal import WriteAheadLog

T = TypeVar("T")

logger = logging.getLogger("sync.connection")

ChangeListener = Callable[[frozenset[str] | None], None]
"""Called on the event loop after a commit with the names of the changed tables; None means any table may have."""

READERS = 3

_ROWS_AT_ONCE = 256
_WAL_TURN_SECONDS = 5.0


class ConnectionPool:
    """One writer and several readers over one database file.

    A query that is one call takes one of the readers. What lasts longer (a lease, a read transaction, a stream of rows)
    takes a connection of its own, so that whoever holds one can wait for any call.

    Args:
        path: the file, made with mode 0600 if it is missing, or `":memory:"`.
        readers: how many queries may run at once, at least 1.
        before_write: run at the start of each write transaction, on the writer's thread.
        before_commit: run at the end of each write transaction, on the writer's thread.

    Attributes:
        path: as it was given; once the file is open, its real path.
        changed_rows: the rows that this process changed, of tables that `record_rows` was asked for.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        readers: int = READERS,
        before_write: Callable[[SqlConnection], None],
        before_commit: Callable[[SqlConnection], None],
    ) -> None:
        if readers < 1:
            raise ValueError(f"A database needs at least one reader, not {readers}.")
        self.path = self._name = str(path)
        self._in_memory = self._name == ":memory:"
        self._mark = OpenMark(self._name)
        self._reader_count = readers
        self._before_write = before_write
        self._before_commit = before_commit
        self._write_lock = asyncio.Lock()
        self._writer: ConnectionThread | None = None
        self._readers: list[ConnectionThread] = []
        self._idle_readers: list[ConnectionThread] = []
        self._reader_turns = asyncio.Semaphore(readers)  # whoever waits is served in order, unlike by a queue
        self._leased: set[ConnectionThread] = set()
        self._spare: list[ConnectionThread] = []
        self._listeners: list[ChangeListener] = []
        self.changed_rows = RowRecorder()
        self._committed: deque[frozenset[str] | None] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._wal_is_due = asyncio.Event()
        self._wal: WriteAheadLog | None = None
        self._was_opened = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self, check: Callable[[SqlConnection], None], prepare: Callable[[SqlConnection], None]) -> None:
        """Open the file, run `check` before anything is changed, and `prepare` in a first write transaction.

        Only a file that passed both is switched to WAL.

        Raises:
            DatabaseOpenError: the file cannot be used and is left as it was, or this object was opened before.
            DatabaseInUseError: another process has had the file for itself alone for several seconds.
        """
        if self._was_opened:
            raise DatabaseOpenError("This database object has been opened before; make a new one to open it again.")
        self._was_opened = True
        self._loop = asyncio.get_running_loop()
        try:
            if not self._in_memory:
                await self._mark.put_up()
                self.path = self._mark.path
                self._wal = WriteAheadLog(self.path, BUSY_TIMEOUT_SECONDS, self._wal_is_due.set)
            self._writer = writer = ConnectionThread(self.path)
            await writer.open(set_up=check)
            await writer.run(lambda: self._in_transaction(prepare, hooks=False))
            self._announce_committed()
            await writer.run(lambda: set_up_writer(writer.connection))
            if (log := self._wal) is not None:
                for _ in range(self._reader_count):
                    reader = ConnectionThread(self.path)
                    self._readers.append(reader)
                    await reader.open(set_up=set_up_reader)
                    self._idle_readers.append(reader)
                for name, task in (
                    ("other processes", watch_other_processes(self.path, self._data_version, self._announce_all)),
                    ("write-ahead log", self._keep_wal_small(log)),
                ):
                    self._tasks.append(asyncio.create_task(task, name=f"sync: {name}"))
        except (OSError, sqlite3.Error) as error:
            await self.close()
            raise DatabaseOpenError(why_not_opened(self._name, error)) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close all connections, after the transactions that are running. Idempotent; cancelled, it still closes."""
        self.refuse_nested_use()
        await run_to_completion(self._close())

    async def _close(self) -> None:
        for task in self._tasks:
            await end_task(task)
        async with self._write_lock:
            if self._wal is not None:
                await self._wal.close()
            writer, self._writer = self._writer, None
            readers, self._readers = self._readers, []
            spare, self._spare = self._spare, []
            for connection in (*readers, *spare, *self._leased, writer):
                if connection is not None:
                    await connection.close()
            await self._mark.take_down()

    def require_open(self) -> None:
        """Raises DatabaseClosedError if the database is not open."""
        self._open_writer()

    def listen(self, listener: ChangeListener) -> None:
        """Call `listener` after each commit that changed something, of this process or another."""
        self._listeners.append(listener)

    async def record_rows(self, tables: Iterable[tuple[str, str]]) -> None:
        """Have the changed rows of these tables noted from here on. Arguments and errors as `RowRecorder.record`."""
        self.refuse_nested_use()
        async with self._write_lock:
            writer = self._open_writer()
            await writer.run(lambda: self.changed_rows.record(writer.connection, tables))

    # Writing

    async def write(self, function: Callable[[SqlConnection], T]) -> T:
        """Run `function` in a write transaction of its own, in one hop; roll back if it raises.

        If cancelled once it runs, the transaction is still carried out before the cancellation is raised.
        """
        self.refuse_nested_use()
        async with self._write_lock:
            try:
                return await self._open_writer().run(lambda: self._in_transaction(function))
            finally:
                self._announce_committed()

    async def write_in_bulk(self, function: Callable[[SqlConnection], T]) -> T:
        """As `write`, for large transactions in a row: waits first if the write-ahead log has grown long."""
        if self._wal is not None:
            await self._wal.until_short()
        return await self.write(function)

    @asynccontextmanager
    async def write_transaction(self) -> AsyncGenerator[Transaction]:
        """A write transaction over several awaits; rolled back on any exception or cancellation inside."""
        self.refuse_nested_use()
        async with self._write_lock:
            writer = self._open_writer()
            transaction = Transaction(writer.run, writer.connection)
            try:
                await writer.run(lambda: self._begin(writer.connection))
                try:
                    with self._held():
                        yield transaction
                finally:
                    transaction.end()
                await writer.run(lambda: self._commit(writer.connection))
            except BaseException:
                await run_to_completion(writer.run(writer.connection.rollback))
                raise
            finally:
                self._announce_committed()

    @asynccontextmanager
    async def writer(self) -> AsyncGenerator[aiosqlite.Connection]:
        """The writing connection itself. What is left open at the end is rolled back."""
        self.refuse_nested_use()
        async with self._write_lock:
            writer = self._open_writer()

            def after_call(written: frozenset[str]) -> None:
                self._before_write(writer.connection)
                self.changed_rows.committed()
                self._call_on_loop(self._announce, written)
                self._begin_checkpoint_if_due()

            loan = writer.lend(after_call, set_up=set_up_writer)
            try:
                await writer.run(lambda: self._before_write(writer.connection))
                await loan.begin()
                with self._held():
                    yield loan
            finally:
                await run_to_completion(loan.take_back())

    def _in_transaction(self, function: Callable[[SqlConnection], T], *, hooks: bool = True) -> T:
        connection = self._open_writer().connection
        try:
            self._begin(connection, hooks=hooks)
            result = function(connection)
            self._commit(connection, hooks=hooks)
        except BaseException:
            connection.rollback()
            raise
        return result

    def _begin(self, connection: SqlConnection, *, hooks: bool = True) -> None:
        connection.begin("IMMEDIATE")
        if hooks:
            self._before_write(connection)

    def _commit(self, connection: SqlConnection, *, hooks: bool = True) -> None:
        if hooks:
            self._before_commit(connection)
        changed = connection.commit()
        self.changed_rows.committed()
        if changed is None or changed:
            self._committed.append(changed)
            self._begin_checkpoint_if_due()

    # Reading

    async def read(self, function: Callable[[SqlConnection], T]) -> T:
        """Run `function` on a reader, on one consistent snapshot, in one hop."""
        self.refuse_nested_use()
        async with self._reader() as reader:

            def transaction() -> T:
                try:
                    self._begin_read(reader.connection)
                    return function(reader.connection)
                finally:
                    self._end_read(reader.connection)

            return await reader.run(transaction, interrupt=True)

    @asynccontextmanager
    async def read_transaction(self) -> AsyncGenerator[ReadTransaction]:
        """Several queries on one snapshot, that of the beginning."""
        self.refuse_nested_use()
        async with self._leased_reader() as reader:
            transaction = ReadTransaction(lambda function: reader.run(function, interrupt=True), reader.connection)

            def begin() -> None:
                self._begin_read(reader.connection)
                reader.connection.value("SELECT 1 FROM sqlite_master LIMIT 1")  # the snapshot is that of the first read

            try:
                await reader.run(begin, interrupt=True)
                yield transaction
            finally:
                transaction.end()
                await self._end_lease(reader)

    async def stream(
        self, sql: str, parameters: Parameters, convert: Callable[[list[Row]], list[T]]
    ) -> AsyncGenerator[T]:
        """The rows of a query one by one, all of one snapshot, of which few are in memory at a time."""
        self.refuse_nested_use()
        if self._in_memory:
            # The rows are in memory anyway, and there is one connection only, which must not be held meanwhile.
            for row in await self.read(lambda connection: convert(connection.execute(sql, parameters))):
                self._open_writer()
                yield row
            return
        async with self._leased_reader() as reader:

            def begin() -> sqlite3.Cursor:
                self._begin_read(reader.connection)
                return reader.connection.cursor(sql, parameters)

            try:
                cursor = await reader.run(begin, interrupt=True)
                while rows := await reader.run(lambda: convert(cursor.fetchmany(_ROWS_AT_ONCE)), interrupt=True):
                    for row in rows:
                        self._open_writer()
                        yield row
            finally:
                await self._end_lease(reader)

    @asynccontextmanager
    async def reader(self) -> AsyncGenerator[aiosqlite.Connection]:
        """A connection that reads, itself."""
        self.refuse_nested_use()
        async with self._leased_reader() as reader:
            restore = set_up_writer if self._in_memory else set_up_reader
            loan = reader.lend(lambda _written: None, set_up=restore)
            try:
                await reader.run(lambda: set_up_reader(reader.connection))
                await loan.begin()
                yield loan
            finally:
                await run_to_completion(loan.take_back())

    @asynccontextmanager
    async def _reader(self) -> AsyncGenerator[ConnectionThread]:
        """A reader for one hop."""
        if self._in_memory:
            async with self._write_lock:
                yield self._open_writer()
            return
        self._open_writer()
        async with self._reader_turns:
            reader = self._idle_readers.pop()
            try:
                yield reader
            finally:
                self._idle_readers.append(reader)

    @asynccontextmanager
    async def _leased_reader(self) -> AsyncGenerator[ConnectionThread]:
        """A reader for as long as the caller likes."""
        if self._in_memory:
            async with self._write_lock:
                with self._held():
                    yield self._open_writer()
            return
        self._open_writer()
        reader = self._spare.pop() if self._spare else await self._open_reader()
        self._leased.add(reader)
        try:
            yield reader
        finally:
            self._leased.discard(reader)
            if self._writer is not None and len(self._spare) < self._reader_count:
                self._spare.append(reader)
            else:
                await reader.close()

    async def _open_reader(self) -> ConnectionThread:
        self._open_writer()
        reader = ConnectionThread(self.path)
        try:
            await reader.open(set_up=set_up_reader)
            self._open_writer()
        except BaseException:
            await reader.close()
            raise
        return reader

    async def _end_lease(self, reader: ConnectionThread) -> None:
        async def end() -> None:
            with contextlib.suppress(DatabaseClosedError):  # then there is nothing to end
                await reader.run(lambda: self._end_read(reader.connection))

        await run_to_completion(end())

    def _begin_read(self, connection: SqlConnection) -> None:
        if self._in_memory:
            connection.execute("PRAGMA query_only = ON")
        connection.begin("DEFERRED")

    def _end_read(self, connection: SqlConnection) -> None:
        connection.release()
        if self._in_memory:
            connection.execute("PRAGMA query_only = OFF")

    # What others are told

    def _announce_committed(self) -> None:
        """Tell what the writer's thread has committed, with its answer: a call of its own to the loop costs as much."""
        while self._committed:
            self._announce(self._committed.popleft())

    def _announce(self, changed: frozenset[str] | None) -> None:
        for listener in self._listeners:
            listener(changed)

    def _announce_all(self) -> None:
        self._announce(None)

    def _begin_checkpoint_if_due(self) -> None:
        if self._wal is not None and self._wal.is_due():
            self._call_on_loop(self._wal.begin_checkpoint)

    def _call_on_loop(self, function: Callable[..., object], *arguments: Any) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(function, *arguments)

    async def _data_version(self) -> int:
        async with self._write_lock:
            writer = self._open_writer()
            return await writer.run(lambda: cast("int", writer.connection.value("PRAGMA data_version")))

    # The write-ahead log

    async def _keep_wal_small(self, log: WriteAheadLog) -> None:
        """When it is due, let no query begin until those that run have ended, and begin the log anew."""
        while True:
            await self._wal_is_due.wait()
            self._wal_is_due.clear()
            held = 0
            try:
                with contextlib.suppress(TimeoutError):  # a long query is in the way; part of the log can be written
                    async with asyncio.timeout(_WAL_TURN_SECONDS):
                        while held < self._reader_count:
                            await self._reader_turns.acquire()
                            held += 1
                async with self._write_lock:
                    writer = self._open_writer()
                    await writer.run(lambda writer=writer: log.begin_anew(writer.connection))
            except sqlite3.Error as error:
                logger.warning("the write-ahead log could not be emptied: %s", error)
            finally:
                self._wal_is_due.clear()
                for _ in range(held):
                    self._reader_turns.release()

    def _open_writer(self) -> ConnectionThread:
        if self._writer is None:
            raise DatabaseClosedError("The database is closed.")
        return self._writer

    # Use inside a lease

    @contextmanager
    def _held(self) -> Generator[None]:
        """Whoever is inside holds the write lock, and would wait for itself."""
        outer = _innermost_hold.get()
        hold = _Hold(self, outer)
        _innermost_hold.set(hold)
        try:
            yield
        finally:
            hold.ended = True
            _innermost_hold.set(outer)

    def refuse_nested_use(self) -> None:
        """Raises NestedUseError inside a transaction or lease of this pool."""
        hold = _innermost_hold.get()
        while hold is not None:
            if hold.pool is self and not hold.ended:
                raise NestedUseError(
                    "The database was used inside its own transaction or lease; use the object that it gave there."
                )
            hold = hold.outer


class _Hold:
    def __init__(self, pool: Any, outer: _Hold | None) -> None:
        self.pool = pool
        self.outer = outer
        self.ended = False


_innermost_hold: ContextVar[_Hold | None] = ContextVar("innermost hold", default=None)
"""What the current task, or the task that started it, is inside of."""
