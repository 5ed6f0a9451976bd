"""Watched queries: changed tables → queries that run again.

Owns which query depends on which tables, and when it runs. Bursts of commits coalesce, a slow reader gets only the
newest result, and a result that did not change is not delivered. Must not know HTTP or the sync protocol.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from sync.errors import DatabaseClosedError
from sync.sqlite.pool import ConnectionPool
from sync.sqlite.queries import converter
from sync.sqlite.row_recorder import ChangedRows, add_rows
from sync.sqlite.rows import row_reader
from sync.sqlite.sql_connection import SCHEMA_TABLE, Parameters, Row, SqlConnection
from sync.watch.row_diff import NO_ROWS, KeyedRows, RowDiff, difference, keyed
from sync.watch.shared_reads import SharedReads

T = TypeVar("T")
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


class TableNames(Protocol):
    """Maps the tables in the file to those of the app."""

    def app_tables(self, changed: frozenset[str] | None) -> frozenset[str]:
        """The app's names of the tables that a commit changed (None: any)."""
        ...

    def table_behind(self, name: str) -> str:
        """The name in the file of one of the app's tables."""
        ...


class _Stream(AsyncIterator[V]):
    """Values that are delivered after changes, no more often than the throttle allows; for one reader.

    The first change after a quiet time is delivered immediately, those of a burst together once the throttle allows.
    """

    def __init__(self, throttle: float) -> None:
        self._throttle = throttle
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._not_before = 0.0

    async def __anext__(self) -> V:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            await self._wait_until(self._not_before)
            if self._ended.is_set():
                raise StopAsyncIteration
            self._wake.clear()
            try:
                found = await self._look()
            except DatabaseClosedError:
                raise StopAsyncIteration from None
            except BaseException:
                self._wake.set()  # the changes seen so far were not delivered
                raise
            self._not_before = loop.time() + self._throttle
            if self._ended.is_set():
                raise StopAsyncIteration
            if found is not None:
                return self._deliver(found)

    async def _wait_until(self, time: float) -> None:
        if time > asyncio.get_running_loop().time() and not self._ended.is_set():
            try:
                async with asyncio.timeout_at(time):
                    await self._ended.wait()
            except TimeoutError:
                return

    async def _look(self) -> Any:
        """What to deliver, or None if nothing changed."""
        raise NotImplementedError

    def _deliver(self, found: Any) -> V:
        raise NotImplementedError

    def on_commit(self, changed: frozenset[str] | None) -> None:
        """Called after each commit with the tables that it changed; None means any."""
        raise NotImplementedError

    def on_rows(self, rows: Mapping[str, set[str] | None]) -> None:
        """Called before `on_commit` with the changed rows of the tables whose rows are recorded."""

    async def aclose(self) -> None:
        """End the iteration, even for a reader that is waiting for the next value."""
        self.end()

    def end(self) -> None:
        self._ended.set()
        self._wake.set()


class WatchedQuery(Protocol[V_co]):
    """What a watch runs on a reader's thread. Its state belongs to the watch, which keeps it once delivered."""

    sql: str
    parameters: Parameters

    def run(self, connection: SqlConnection, before: Any) -> tuple[Any, V_co] | None:
        """The new state and the value to deliver, given the previous state (None at first); None if unchanged."""
        ...


class Watch(_Stream[V]):
    """The successive results of a watched query. Made by `PowerSyncDatabase.watch`; for one reader.

    Ends when it or the database is closed. May be dropped at any point; no cleanup is needed.
    """

    def __init__(
        self, reads: SharedReads, query: WatchedQuery[V], throttle: float, tables: frozenset[str] | None
    ) -> None:
        super().__init__(throttle)
        self._reads = reads
        self._query = query
        self._fixed_tables = tables
        self._tables = tables
        self._known_tables = tables
        self._schema_version: int | None = None
        self._schema_changes = 0
        self._state: Any = None
        self._took: float | None = None
        self._wake.set()

    def on_commit(self, changed: frozenset[str] | None) -> None:
        if changed is None or SCHEMA_TABLE in changed:
            self._schema_changes += 1
            self._tables = None  # until the query has run again, any change may concern it
        elif self._tables is not None and self._tables.isdisjoint(changed):
            return
        self._outdated()

    def _outdated(self) -> None:
        self._wake.set()

    async def _look(self) -> tuple[Any, V] | None:
        # The function must not reference this watch: a thread keeps its last function, and would keep the watch alive.
        query, state, fixed, last_version = self._query, self._state, self._fixed_tables, self._schema_version
        schema_changes = self._schema_changes
        last_tables = self._known_tables

        def look(connection: SqlConnection) -> tuple[int, frozenset[str], tuple[Any, V] | None, float]:
            began = time.perf_counter()
            version = connection.schema_version()
            if fixed is not None:
                tables = fixed
            elif last_tables is not None and version == last_version:
                tables = last_tables
            else:
                tables = connection.tables_read_by(query.sql, query.parameters)
            found = query.run(connection, state)
            return version, tables, found, time.perf_counter() - began

        self._schema_version, self._known_tables, found, self._took = await self._reads.read(look, self._took)
        if schema_changes == self._schema_changes:
            self._tables = self._known_tables
        return found

    def _deliver(self, found: tuple[Any, V]) -> V:
        self._state, value = found
        return value


class TableChanges(_Stream[frozenset[str]]):
    """The names of the tables that changed, after each commit. Made by `PowerSyncDatabase.on_change`; for one reader.

    Ends when it or the database is closed. May be dropped at any point; no cleanup is needed.
    """

    def __init__(self, throttle: float, names: TableNames, tables: frozenset[str] | None) -> None:
        super().__init__(throttle)
        self._names = names
        self._only = tables
        self._changed: set[str] = set()

    def on_commit(self, changed: frozenset[str] | None) -> None:
        tables = self._names.app_tables(changed)
        if self._only is not None:
            tables = self._only if changed is None else tables & self._only
        if tables:
            self._changed |= tables
            self._wake.set()

    async def _look(self) -> frozenset[str] | None:
        return frozenset(self._changed) or None

    def _deliver(self, found: frozenset[str]) -> frozenset[str]:
        self._changed.clear()
        return found


class RowChanges(_Stream[ChangedRows]):
    """The ids of the rows that changed, by table. Made by `PowerSyncDatabase.on_row_change`; for one reader.

    Ends when it or the database is closed. May be dropped at any point; no cleanup is needed.
    """

    def __init__(self, throttle: float, pool: ConnectionPool, names: TableNames, tables: frozenset[str]) -> None:
        super().__init__(throttle)
        self._pool = pool
        self._names = names
        self._tables = tables
        self._is_recorded = False
        self._changed: dict[str, set[str] | None] = {}
        self._wake.set()

    def on_commit(self, changed: frozenset[str] | None) -> None:
        if changed is None or SCHEMA_TABLE in changed:
            self._is_recorded = False  # a table that was recreated has lost its triggers
            self._wake.set()

    def on_rows(self, rows: Mapping[str, set[str] | None]) -> None:
        add_rows(self._changed, {table: ids for table, ids in rows.items() if table in self._tables})
        if self._changed:
            self._wake.set()

    async def _look(self) -> ChangedRows | None:
        if not self._is_recorded:
            self._is_recorded = True
            try:
                await self._pool.record_rows([(table, self._names.table_behind(table)) for table in self._tables])
            except BaseException:
                self._is_recorded = False
                raise
            return dict.fromkeys(self._tables)
        return {table: None if ids is None else frozenset(ids) for table, ids in self._changed.items()} or None

    def _deliver(self, found: ChangedRows) -> ChangedRows:
        self._changed.clear()
        return found


class WatchedQueries:
    """All watches of one database. They are weakly referenced: a dropped watch disappears.

    Attributes:
        reads: runs their queries.
    """

    def __init__(self, pool: ConnectionPool, names: TableNames) -> None:
        self._pool = pool
        self.reads = SharedReads(pool)
        self._names = names
        self._streams: WeakSet[_Stream[Any]] = WeakSet()
        pool.listen(self._on_commit)

    def watch(
        self, sql: str, parameters: Parameters, throttle: float, tables: Iterable[str] | None, row_type: type[Any]
    ) -> Watch[list[Any]]:
        """See `PowerSyncDatabase.watch`."""
        return self.watch_query(_Rows(sql, parameters, row_type), throttle, tables)

    def watch_diff(
        self,
        sql: str,
        parameters: Parameters,
        key: str,
        throttle: float,
        tables: Iterable[str] | None,
        row_type: type[Any],
    ) -> Watch[RowDiff[Any]]:
        """See `PowerSyncDatabase.watch_diff`."""
        return self.watch_query(_Diffs(sql, parameters, key, row_type), throttle, tables)

    def watch_query(self, query: WatchedQuery[V], throttle: float, tables: Iterable[str] | None) -> Watch[V]:
        """The values of any query."""
        return self.add(Watch(self.reads, query, throttle, None if tables is None else table_set(tables)))

    def changes(self, tables: Iterable[str] | None, throttle: float) -> TableChanges:
        """See `PowerSyncDatabase.on_change`."""
        return self.add(TableChanges(throttle, self._names, None if tables is None else table_set(tables)))

    def row_changes(self, tables: Iterable[str], throttle: float) -> RowChanges:
        """See `PowerSyncDatabase.on_row_change`."""
        return self.add(RowChanges(throttle, self._pool, self._names, table_set(tables)))

    async def source_tables(self, sql: str, parameters: Parameters) -> frozenset[str]:
        """See `PowerSyncDatabase.source_tables`."""
        return self._names.app_tables(
            await self._pool.read(lambda connection: connection.tables_read_by(sql, parameters))
        )

    def add(self, stream: S) -> S:
        """Notify it of each commit from now on."""
        self._streams.add(stream)
        return stream

    def close(self) -> None:
        """End all watches."""
        for stream in list(self._streams):
            stream.end()

    def _on_commit(self, changed: frozenset[str] | None) -> None:
        if changed is not None:
            changed |= self._names.app_tables(changed)
        rows = self._pool.changed_rows.take()
        for stream in list(self._streams):
            stream.on_rows(rows)
            stream.on_commit(changed)


S = TypeVar("S", bound=_Stream[Any])


def table_set(tables: Iterable[str]) -> frozenset[str]:
    """A set of table names; a single name may be given as a string."""
    return frozenset([tables]) if isinstance(tables, str) else frozenset(tables)


class _Rows(Generic[T]):
    """A query whose value is the list of its rows."""

    def __init__(self, sql: str, parameters: Parameters, row_type: type[T]) -> None:
        self.sql = sql
        self.parameters = parameters
        self._convert = converter(row_type)

    def run(self, connection: SqlConnection, before: list[Row] | None) -> tuple[list[Row], list[T]] | None:
        rows = connection.execute(self.sql, self.parameters)
        return None if rows == before else (rows, self._convert(rows))


class _Diffs(Generic[T]):
    """A query whose value is what changed."""

    def __init__(self, sql: str, parameters: Parameters, key: str, row_type: type[T]) -> None:
        self.sql = sql
        self.parameters = parameters
        self._key = key
        self._make = row_reader(row_type)

    def run(self, connection: SqlConnection, before: KeyedRows[T] | None) -> tuple[KeyedRows[T], RowDiff[T]] | None:
        rows = connection.execute(self.sql, self.parameters)
        if before is not None and rows == list(before.raw.values()):
            return None
        after = keyed(rows, self._key, self._make, before or NO_ROWS)
        return after, difference(before or NO_ROWS, after)
