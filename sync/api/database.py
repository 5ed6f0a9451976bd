"""The engine's face: `PowerSyncDatabase`.

Thin on purpose: every method delegates to the room that owns the matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sync.api.explain import SyncExplanation, explain
from sync.api.local_database import LocalDatabase
from sync.api.stored_status import StoredStatus
from sync.api.streams import SyncStream, SyncStreams, SyncStreamSubscription
from sync.api.upload_queue import CrudBatch, CrudTransaction, RejectedWrite, UploadQueue
from sync.api.waiting import CheckpointRequest, Waiting
from sync.client.connector import Connector
from sync.client.context import DatabaseContext
from sync.client.coordinator import SyncCoordinator
from sync.client.mailbox import SyncMail
from sync.client.options import SyncOptions
from sync.client.streams_in_use import StreamsInUse
from sync.client.sync_lock import delete_database
from sync.errors import SchemaError
from sync.schema.raw_tables import RawTable
from sync.schema.tables import Schema
from sync.sqlite.cancellation import run_to_completion
from sync.sqlite.pool import READERS, ConnectionPool
from sync.sqlite.sql_connection import SqlConnection
from sync.status.status import StatusBoard, SyncStatus
from sync.storage import clearing, conflicts, raw_table_triggers, raw_tables, upload_queue
from sync.storage.conflicts import CONFLICTS, Conflict
from sync.storage.crud_entry import CrudEntry
from sync.storage.current_schema import CurrentSchema
from sync.storage.file import prepare
from sync.storage.migrations import check_version
from sync.storage.rejected_writes import REJECTED_TRANSACTIONS
from sync.storage.upload_queue import QUEUED_ROWS, BatchLimits, UploadQueueStats
from sync.storage.views import replace_schema
from sync.watch.watched_queries import WatchedQueries


class PowerSyncDatabase(LocalDatabase):
    """A local SQLite database that syncs with a PowerSync Service.

    Every read and write is local; local writes are queued for upload in the same transaction. Use it as an async
    context manager, or call `open` and `close`, on one event loop.

    Args:
        path: the file, made with mode 0600 if it is missing; `":memory:"` for a database that is gone when closed.
        schema: the tables of the app, as views of the same names.
        readers: how many queries may run at once; each has a connection and a thread.
    """

    def __init__(self, path: str | Path, schema: Schema, *, readers: int = READERS) -> None:
        self.path = str(path)
        self._entry_times = upload_queue.EntryTimes()
        pool = ConnectionPool(
            self.path,
            readers=readers,
            before_write=upload_queue.end_transaction_id,
            before_commit=self._before_commit,
        )
        self._schema = CurrentSchema(schema)
        super().__init__(pool, WatchedQueries(pool, self._schema))
        self._board = StatusBoard()
        self._in_use: StreamsInUse[SyncStreamSubscription] = StreamsInUse()
        context = DatabaseContext(pool, self._board, self._schema, self._in_use, SyncMail())
        self._stored_status = StoredStatus(pool, self._board)
        self._coordinator: SyncCoordinator[PowerSyncDatabase] = SyncCoordinator(context, self)
        self._waiting = Waiting(context, self._stored_status)
        self._streams = SyncStreams(context, self._stored_status, self._waiting)
        self._queue = UploadQueue(pool, self._schema, context.mail.uploads)

    @property
    def schema(self) -> Schema:
        """The tables of the app; another schema after `update_schema`."""
        return self._schema.value

    async def open(self) -> None:
        """Open the file and bring it to the schema.

        Raises:
            DatabaseOpenError: the file cannot be used; it is left as it was.
            DatabaseInUseError: another process rescues the file, and has not ended within 10 seconds.
        """

        await self._pool.open(check_version, lambda connection: prepare(connection, self.schema))
        try:
            await self._stored_status.start()
            self._streams.start()
        except BaseException:
            await self.close()
            raise

    async def close(self, *, delete: bool = False) -> None:
        """Disconnect, end all watches, and close the file. Idempotent; if cancelled, it is closed all the same.

        Data and queue stay in the file, unless `delete` is set: then the file is removed with all that is in it, also
        what was not uploaded yet. No other process may use it then.

        Raises:
            NestedUseError: called inside this database's own write transaction, or by its own connector's call.
            OSError: the file could not be removed.
        """
        self._coordinator.refuse_connector_call()
        await run_to_completion(self._close(delete=delete))

    async def _close(self, *, delete: bool) -> None:
        await self._coordinator.close()
        await self._streams.close()
        await self._stored_status.close()
        self._watched.close()
        self._board.close()
        await self._pool.close()
        if delete and self.path != ":memory:":
            await asyncio.to_thread(delete_database, self._pool.path)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def client_id(self) -> str:
        """The id by which the service tells this file from others of the same user; it stays for the file's life."""
        return await self._pool.read(upload_queue.client_id)

    # The schema

    async def update_schema(self, schema: Schema) -> None:
        """Bring the file to another schema, all or nothing. Rows of tables that it lacks are kept out of sight.

        Watches see it: they give what their query finds now, or raise what SQLite says of it.

        Raises:
            ConnectedError: the database is connected; call `disconnect` first.
            sqlite3.Error: the file could not be changed; it and the attribute `schema` are as they were.
        """
        self._coordinator.require_disconnected()

        async def change() -> None:
            await self._pool.write(lambda connection: replace_schema(connection, schema))
            self._schema.value = schema

        async with self._coordinator.disconnected():
            await run_to_completion(change())

    async def create_raw_table_triggers(self, name: str) -> None:
        """Have local writes of a raw table queued for upload, by triggers on the app's own table.

        To be called once the app has made or migrated its table, at each start: it changes only what differs. Synced
        rows that came before the table was there are moved into it.

        Args:
            name: the name of the raw table in the schema. Its triggers are `TABLE_insert`, `TABLE_update` and
                `TABLE_delete`.

        Raises:
            SchemaError: the schema has no such raw table, or not the schema of its table.
            RawTableError: the table is not there, or lacks a column; nothing was changed.
        """
        table = self._raw_table(name)

        def create(connection: SqlConnection) -> None:
            raw_table_triggers.create_triggers(connection, table)
            raw_tables.take_over_waiting_rows(connection, [table])

        await self._pool.write(create)

    async def resync_raw_table(self, name: str) -> None:
        """Have all synced rows of a raw table written again, when the app has added a column or made the table anew.

        It happens with the next complete checkpoint, at the latest when the database connects anew.

        Raises:
            SchemaError: the schema has no such raw table.
        """
        table = self._raw_table(name)
        await self._pool.write(lambda connection: raw_tables.note_all_rows(connection, table))

    def _raw_table(self, name: str) -> RawTable:
        for table in self.schema.raw_tables:
            if table.name == name:
                return table
        raise SchemaError(f"The schema has no raw table {name!r}.")

    # Synchronization

    async def connect(self, connector: Connector[PowerSyncDatabase], options: SyncOptions | None = None) -> None:
        """Sync from now on, until `disconnect`. Returns at once; watch the status for what comes of it.

        Called again with the same connector and options it only cuts the wait for the next attempt short, also one
        that the service asked for; with others it connects anew. Of several processes on one file one syncs, and
        another takes over when it ends.

        Raises:
            DatabaseClosedError: the database is not open.
        """
        self._pool.require_open()
        self._coordinator.connect(connector, options or SyncOptions())

    async def disconnect(self) -> None:
        """Stop syncing, and wait until all connections are closed. Reads and writes go on locally."""
        await self._coordinator.disconnect()

    async def disconnect_and_clear(self, *, soft: bool = False, clear_local: bool = True) -> None:
        """Disconnect, and empty the database: what to do when a user logs out.

        Changes that were not uploaded yet are dropped. The client id stays. Subscriptions are forgotten, but those that
        are in use begin anew with the next connection.

        Args:
            soft: keep downloaded data, out of sight, so that the same user's next sync is quick. Do not use it when
                another user may log in on a device that is not trusted.
            clear_local: empty local-only tables too.

        Raises:
            NestedUseError: called by the connector's own call, which ends first when the database disconnects.
            RawTableError: a raw table could not be emptied; nothing was.
        """
        self._coordinator.refuse_connector_call()
        async with self._coordinator.disconnected():
            await self._pool.write(
                lambda connection: clearing.clear(
                    connection,
                    self.schema,
                    soft=soft,
                    clear_local=clear_local,
                    streams_in_use=self._in_use.keys,
                )
            )
            await self._stored_status.refresh()

    def sync_stream(self, name: str, parameters: dict[str, Any] | None = None) -> SyncStream:
        """A sync stream to subscribe to.

        Raises:
            TypeError: the parameters are not JSON.
            ValueError: they contain NaN or an infinity.
        """
        return SyncStream(self._streams, name, parameters)

    @property
    def status(self) -> SyncStatus:
        """The state of synchronization now."""
        return self._board.status

    def watch_status(self) -> AsyncIterator[SyncStatus]:
        """The state of synchronization, now and whenever it changes, until the database is closed."""
        return self._board.watch()

    async def explain_sync(self) -> SyncExplanation:
        """Why the database is, or is not, synced: what is known as a value, and as one paragraph of plain English.

        Raises:
            DatabaseClosedError: the database is closed.
        """
        return await explain(self._pool, self._board, self._stored_status)

    async def wait_for_first_sync(self, timeout: float | None = None, *, priority: int | None = None) -> None:
        """Wait until a complete checkpoint has ever been published on this device.

        True for ever after, also offline and after a restart. May be called before `connect`. May be cancelled.

        Args:
            timeout: seconds.
            priority: wait only for the data of this priority and all above it.

        Raises:
            SyncTimeoutError: not within `timeout`.
            NotConnectedError: `disconnect` was called during the wait.
            DatabaseClosedError: the database was closed first.
        """
        await self._waiting.for_first_sync(priority, timeout)

    async def wait_for_status(
        self, predicate: Callable[[SyncStatus], bool], timeout: float | None = None
    ) -> SyncStatus:
        """Wait until the status satisfies `predicate`, and return it. What `predicate` raises ends the wait.

        A status that lasts only for a moment may be missed. May be called, and wait, without a connection.

        Raises:
            SyncTimeoutError: not within `timeout` seconds.
            DatabaseClosedError: the database was closed first.
        """
        return await self._waiting.for_status(predicate, timeout)

    async def wait_for_upload(self, timeout: float | None = None) -> None:
        """Wait until the backend has answered for every local change that was made before the call.

        Later changes are not waited for. Whether other devices, or this one, already see the effects is another
        matter: `wait_for_sync`. Of several processes any may be the one that uploads.

        Args:
            timeout: seconds.

        Raises:
            SyncTimeoutError: not within `timeout`.
            NotConnectedError: changes wait and no connection is wished for, or `disconnect` was called meanwhile.
            WriteRejectedError: the backend has answered for all, and refused at least one.
            DatabaseClosedError: the database was closed.
        """
        await self._waiting.for_upload(timeout, retry_now=False)

    async def flush(self, timeout: float | None = None) -> None:
        """Upload now: like `wait_for_upload`, and cuts the waits after failures short, once, if this process syncs.

        Time that the service or the backend asked for (`Retry-After`) is kept.
        """
        await self._waiting.for_upload(timeout, retry_now=True)

    async def wait_for_sync(self, timeout: float | None = None) -> None:
        """Wait until this device has all that the service had, and the backend all local changes, at this call.

        A request for a checkpoint is made (see `request_checkpoint`) and its publishing awaited: local changes made
        before are uploaded and have come back, and what others had changed before is visible to the next query.

        Args:
            timeout: seconds.

        Raises:
            SyncTimeoutError: not within `timeout`.
            NotConnectedError: no connection is wished for, or `disconnect` was called meanwhile.
            WriteRejectedError: all is here, but the backend refused at least one of the local changes.
            DatabaseClosedError: the database was closed.
        """
        await self._waiting.for_sync(timeout)

    async def request_checkpoint(self) -> CheckpointRequest:
        """Ask for a checkpoint that includes all that the backend's database holds now.

        The wish is noted in the file, and returns at once; the process that syncs asks the service when the changes
        that wait are uploaded. Until its answer comes, downloaded data (but that of priority 0) is held back, as
        after a local change. Needs a backend without custom write checkpoints.

        Raises:
            NotConnectedError: no connection is wished for.
            DatabaseClosedError: the database is closed.
        """
        return await self._waiting.request_checkpoint()

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

    async def put_back(self, entries: Sequence[CrudEntry]) -> None:
        """Put entries that were rescued from another file at the end of this queue, as one transaction.

        Their effect shows at once, as far as the rows are here. If cancelled once it runs, it is still carried out.
        """
        await self._queue.put_back(entries)

    async def watch_queued_rows(
        self, table: str | None = None, *, throttle: float = 0.03
    ) -> AsyncIterator[frozenset[str]]:
        """The ids of the rows whose changes wait for upload, now and whenever the queue changes.

        Ends when the database is closed.

        Args:
            table: its name in the schema; None for all tables.
            throttle: the shortest time between two values, in seconds.
        """
        async for rows in self.watch(QUEUED_ROWS, [table], throttle=throttle):
            yield frozenset(row["id"] for row in rows)

    async def rejected_writes(self) -> list[RejectedWrite]:
        """The local transactions that the backend refused for good, oldest first."""
        return await self._queue.rejected_writes()

    async def watch_rejected_writes(self) -> AsyncIterator[list[RejectedWrite]]:
        """The rejected writes, now and whenever they change, until the database is closed."""
        async for _ in self.watch(f"SELECT id FROM {REJECTED_TRANSACTIONS} ORDER BY id", throttle=0):
            yield await self.rejected_writes()

    async def conflicts(self) -> tuple[Conflict, ...]:
        """Values of this client that the service replaced by others, until they are dismissed; oldest first."""
        return await self._pool.read(conflicts.conflicts)

    async def watch_conflicts(self) -> AsyncIterator[tuple[Conflict, ...]]:
        """The conflicts, now and whenever they change, until the database is closed."""
        async for _ in self.watch(f"SELECT id FROM {CONFLICTS} ORDER BY id", throttle=0):
            yield await self.conflicts()

    async def dismiss_conflicts(self, up_to: Conflict) -> None:
        """Forget a conflict and all before it."""
        await self._pool.write(lambda connection: conflicts.dismiss(connection, up_to.id))

    def _before_commit(self, connection: SqlConnection) -> None:
        self._entry_times.note(connection)
        upload_queue.end_transaction_id(connection)
