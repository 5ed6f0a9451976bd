"""The engine's face: `PowerSyncDatabase`.

Thin on purpose: every method delegates to the room that owns the matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sync.client.coordinator import SyncCoordinator
from sync.client.options import SyncOptions
from sync.connection import ConnectionPool, Transaction
from sync.connector import BackendConnector
from sync.crud import CrudBatch, CrudTransaction, RejectedWrite, UploadQueue
from sync.errors import NoRowError
from sync.schema import Schema
from sync.statements import Parameters, Row, Statements
from sync.status import StatusBoard, SyncStatus
from sync.storage import conflicts, rejected_writes, upload_queue
from sync.storage.conflicts import CONFLICTS, Conflict
from sync.storage.migrations import check_version, create_tables
from sync.storage.rejected_writes import REJECTED_TRANSACTIONS
from sync.storage.upload_queue import BatchLimits, UploadQueueStats
from sync.storage.views import replace_schema
from sync.stored_status import StoredStatus
from sync.streams import SyncStream
from sync.watch import Watch, WatchedQueries


class PowerSyncDatabase:
    """A local SQLite database that syncs with a PowerSync Service.

    Every read and write is local; local writes are queued for upload in the same transaction. Use it as an async
    context manager, or call `open` and `close`, on one event loop.

    Args:
        path: the file, made with mode 0600 if it is missing; `":memory:"` for a database that is gone when closed.
        schema: the tables of the app, as views of the same names.
    """

    def __init__(self, path: str | Path, schema: Schema) -> None:
        self.path = str(path)
        self.schema = schema
        self._board = StatusBoard()
        self._entry_times = upload_queue.EntryTimes()
        self._pool = ConnectionPool(
            self.path,
            before_write=upload_queue.end_transaction_id,
            before_commit=self._before_commit,
        )
        self._watched = WatchedQueries(self._pool)
        self._stored_status = StoredStatus(self._pool, self._board)
        self._coordinator = SyncCoordinator(self._pool, self._board, self._upload)
        self._queue = UploadQueue(self._pool, self._coordinator.upload_progressed, self._tables_with_rows)

    async def open(self) -> None:
        """Open the file and bring it to the schema.

        Raises:
            DatabaseOpenError: the file cannot be used; it is left as it was.
        """

        def prepare(statements: Statements) -> None:
            create_tables(statements)
            upload_queue.create_tables(statements)
            rejected_writes.create_tables(statements)
            conflicts.create_tables(statements)
            replace_schema(statements, self.schema)
            upload_queue.end_transaction_id(statements)

        await self._pool.open(check_version, prepare)
        try:
            await self._stored_status.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect, end all watches, and close the file. Idempotent. Data and queue stay in the file."""
        await self._coordinator.close()
        await self._stored_status.close()
        self._watched.close()
        self._board.close()
        await self._pool.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Reading and writing

    async def execute(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run one statement in a write transaction of its own, and return its rows (of RETURNING, say).

        If cancelled once it runs, it is still carried out.

        Raises:
            sqlite3.Error: SQLite refused the statement; nothing was changed.
            NestedUseError: called inside this database's own write transaction.
        """
        return await self._pool.write(lambda statements: statements.execute(sql, parameters))

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run one statement for each row of parameters, all in one write transaction. Raises as `execute`."""
        await self._pool.write(lambda statements: statements.execute_many(sql, rows))

    async def get_all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run a query and return all rows. If cancelled, the query is broken off.

        Raises:
            sqlite3.Error: SQLite refused the query, or it would write.
        """
        return await self._pool.read(lambda statements: statements.execute(sql, parameters))

    async def get_optional(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """Run a query and return its first row, or None. Raises as `get_all`."""
        return await self._pool.read(lambda statements: statements.first(sql, parameters))

    async def get(self, sql: str, parameters: Parameters = ()) -> Row:
        """Run a query and return its first row. Raises as `get_all`.

        Raises:
            NoRowError: there is none.
        """
        row = await self.get_optional(sql, parameters)
        if row is None:
            raise NoRowError(f"The query found no row: {sql}")
        return row

    def write_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A write transaction over several statements; its edits upload together.

        Rolled back on any exception or cancellation inside. Inside, use only the transaction object.
        """
        return self._pool.write_transaction()

    def watch(self, sql: str, parameters: Parameters = (), *, throttle: float = 0.03) -> Watch:
        """The results of a query, now and after every commit that changes them, local or synced.

        Args:
            sql: a query; the tables that it depends on are found by SQLite itself.
            parameters: of the query.
            throttle: the shortest time between two runs, in seconds; a burst of commits makes one run.

        Returns:
            An async iterator of lists of rows. The first comes at once; a slow reader gets only the newest; an
            unchanged result is not delivered. Errors in the SQL are raised at the first step.
        """
        return self._watched.watch(sql, parameters, throttle)

    # Synchronization

    async def connect(self, connector: BackendConnector, options: SyncOptions | None = None) -> None:
        """Sync from now on, until `disconnect`. Returns at once; watch the status for what comes of it.

        Called again with the same connector and options it only cuts the wait for the next attempt short; with others
        it connects anew. Of several processes on one file one syncs, and another takes over when it ends.

        Raises:
            DatabaseClosedError: the database is not open.
        """
        self._pool.require_open()
        self._coordinator.connect(connector, options or SyncOptions())

    async def disconnect(self) -> None:
        """Stop syncing, and wait until all connections are closed. Reads and writes go on locally."""
        await self._coordinator.disconnect()

    def sync_stream(self, name: str, parameters: dict[str, Any] | None = None) -> SyncStream:
        """A sync stream to subscribe to.

        Raises:
            TypeError: the parameters are not JSON.
        """
        return SyncStream(self._pool, self._board, self._coordinator, name, parameters)

    @property
    def status(self) -> SyncStatus:
        """The state of synchronization now."""
        return self._board.status

    def watch_status(self) -> AsyncIterator[SyncStatus]:
        """The state of synchronization, now and whenever it changes, until the database is closed."""
        return self._board.watch()

    async def wait_for_first_sync(self, timeout: float | None = None) -> None:
        """Wait until a complete checkpoint has ever been published on this device.

        Raises:
            TimeoutError: not within `timeout` seconds.
            DatabaseClosedError: the database was closed first.
        """
        async with asyncio.timeout(timeout):
            await self._board.wait_for(lambda status: status.has_synced)

    # The upload queue

    def crud_transactions(self) -> AsyncIterator[CrudTransaction]:
        """The transactions that wait for upload, oldest first; completing one completes all before it."""
        return self._queue.transactions()

    async def next_crud_transaction(self) -> CrudTransaction | None:
        """The first transaction that waits for upload, or None."""
        return next(iter(await self._queue.next_transactions(BatchLimits(transactions=1))), None)

    async def crud_transaction_batch(self, limits: BatchLimits | None = None) -> tuple[CrudTransaction, ...]:
        """The first transactions that wait for upload, each whole; empty if nothing waits.

        Args:
            limits: how many transactions, entries and bytes; the first transaction comes however large it is.
        """
        return await self._queue.next_transactions(limits or BatchLimits())

    async def crud_batch(self, limit: int = 100) -> CrudBatch | None:
        """The first entries that wait for upload, at most `limit`, whatever transactions they belong to, or None.

        Raises:
            ValueError: the limit is less than 1.
        """
        return await self._queue.batch(limit)

    async def upload_queue_stats(self) -> UploadQueueStats:
        """How much waits for upload, and since when."""
        return await self._queue.stats()

    async def rejected_writes(self) -> list[RejectedWrite]:
        """The local transactions that the backend refused for good, oldest first."""
        return await self._queue.rejected_writes()

    async def watch_rejected_writes(self) -> AsyncIterator[list[RejectedWrite]]:
        """The rejected writes, now and whenever they change, until the database is closed."""
        async for _ in self._watched.watch(f"SELECT id FROM {REJECTED_TRANSACTIONS} ORDER BY id", (), 0):
            yield await self.rejected_writes()

    async def conflicts(self) -> tuple[Conflict, ...]:
        """Values of this client that the service replaced by others, until they are dismissed; oldest first."""
        return await self._pool.read(conflicts.conflicts)

    async def watch_conflicts(self) -> AsyncIterator[tuple[Conflict, ...]]:
        """The conflicts, now and whenever they change, until the database is closed."""
        async for _ in self._watched.watch(f"SELECT id FROM {CONFLICTS} ORDER BY id", (), 0):
            yield await self.conflicts()

    async def dismiss_conflicts(self, up_to: Conflict) -> None:
        """Forget a conflict and all before it."""
        await self._pool.write(lambda statements: conflicts.dismiss(statements, up_to.id))

    def _tables_with_rows(self) -> set[str]:
        return {table.name for table in self.schema.tables if not table.local_only}

    def _before_commit(self, statements: Statements) -> None:
        self._entry_times.note(statements)
        upload_queue.end_transaction_id(statements)

    async def _upload(self, connector: BackendConnector) -> None:
        await connector.upload_data(self)
