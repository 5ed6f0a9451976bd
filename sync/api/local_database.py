"""The local half of the public API: SQL, transactions, leases, and watched queries.

Thin on purpose: every method delegates to the module that owns the matter. Must not know that anything is synced.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, overload

import aiosqlite

from sync.sqlite.pool import ConnectionPool
from sync.sqlite.queries import WritingQueries, converter
from sync.sqlite.sql_connection import Parameters, Row, SqlConnection
from sync.sqlite.transaction import ReadTransaction, Transaction
from sync.watch.row_diff import RowDiff
from sync.watch.watched_queries import RowChanges, TableChanges, Watch, WatchedQueries, table_set
from sync.watch.window import WindowQuery, WindowWatch

T = TypeVar("T")
R = TypeVar("R")

THROTTLE_SECONDS = 0.03


class LocalDatabase(WritingQueries):
    """A database that can be read, written and watched.

    Args:
        pool: the connections.
        watched: all watches of the database.
    """

    def __init__(self, pool: ConnectionPool, watched: WatchedQueries) -> None:
        self._pool = pool
        self._watched = watched

    async def _read(self, function: Callable[[SqlConnection], T]) -> T:
        return await self._pool.read(function)

    async def _write(self, function: Callable[[SqlConnection], T]) -> T:
        return await self._pool.write(function)

    @overload
    def iterate(self, sql: str, parameters: Parameters = ()) -> AsyncGenerator[Row]: ...
    @overload
    def iterate(self, sql: str, parameters: Parameters = (), *, row_type: type[R]) -> AsyncGenerator[R]: ...
    def iterate(self, sql: str, parameters: Parameters = (), *, row_type: type[Any] = Row) -> AsyncGenerator[Any]:
        """The rows of a query one by one, from one snapshot, with few in memory at a time. Raises as `get_all`.

        The snapshot lasts until the end, until `aclose()`, or until the generator is dropped; meanwhile the file's
        write-ahead log cannot be truncated. The database may be used inside the loop, even for writing.
        """
        return self._pool.stream(sql, parameters, converter(row_type))

    def write_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A write transaction over several statements; its changes upload together.

        Rolled back on any exception or cancellation inside the block. Inside it, use only the transaction object.
        """
        return self._pool.write_transaction()

    def read_transaction(self) -> AbstractAsyncContextManager[ReadTransaction]:
        """Several queries on one snapshot of the file, regardless of later commits.

        Other methods of the database may be called inside the block, and see the newest data. With `":memory:"`, which
        has only one connection, they raise NestedUseError.
        """
        return self._pool.read_transaction()

    def reader(self) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """A raw aiosqlite connection for reading, usable only inside the block. It is in autocommit mode.

        With `":memory:"`, any other use of the database inside the block raises NestedUseError.
        """
        return self._pool.reader()

    def writer(self) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """The raw aiosqlite connection for writing, usable only inside the block. It is in autocommit mode.

        No other task of this process writes meanwhile; using the database inside the block raises NestedUseError.
        Changes are queued for upload and watchers are notified after each statement or COMMIT. A transaction left open
        is rolled back.
        """
        return self._pool.writer()

    @overload
    def watch(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        throttle: float = THROTTLE_SECONDS,
        tables: Iterable[str] | None = None,
    ) -> Watch[list[Row]]: ...
    @overload
    def watch(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        throttle: float = THROTTLE_SECONDS,
        tables: Iterable[str] | None = None,
        row_type: type[R],
    ) -> Watch[list[R]]: ...
    def watch(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        throttle: float = THROTTLE_SECONDS,
        tables: Iterable[str] | None = None,
        row_type: type[Any] = Row,
    ) -> Watch[list[Any]]:
        """The results of a query, now and after every commit that changes them, local or synced.

        Args:
            sql: a query.
            parameters: of the query.
            throttle: the shortest time between two runs, in seconds; a burst of commits causes one run.
            tables: run again when one of these changes, instead of those that SQLite says the query depends on.
            row_type: what to make of each row; see `get_all`.

        Returns:
            An async iterator of lists of rows. The first is delivered immediately; a slow reader gets only the newest;
            an unchanged result is not delivered. Errors in the SQL are raised at the first step. Cancelling a step
            loses nothing: the next one delivers.
        """
        return self._watched.watch(sql, parameters, throttle, tables, row_type)

    @overload
    def watch_diff(
        self,
        sql: str,
        parameters: Parameters = (),
        key: str = "id",
        *,
        throttle: float = THROTTLE_SECONDS,
        tables: Iterable[str] | None = None,
    ) -> Watch[RowDiff[Row]]: ...
    @overload
    def watch_diff(
        self,
        sql: str,
        parameters: Parameters = (),
        key: str = "id",
        *,
        throttle: float = THROTTLE_SECONDS,
        tables: Iterable[str] | None = None,
        row_type: type[R],
    ) -> Watch[RowDiff[R]]: ...
    def watch_diff(
        self,
        sql: str,
        parameters: Parameters = (),
        key: str = "id",
        *,
        throttle: float = THROTTLE_SECONDS,
        tables: Iterable[str] | None = None,
        row_type: type[Any] = Row,
    ) -> Watch[RowDiff[Any]]:
        """Like `watch`, but also reports what changed since the previously delivered result.

        Args:
            key: the column that identifies a row.

        Raises (its steps):
            RowKeyError: the rows have no such column, or its values are not unique.
        """
        return self._watched.watch_diff(sql, parameters, key, throttle, tables, row_type)

    @overload
    def watch_window(
        self,
        sql: str,
        parameters: Sequence[Any] = (),
        *,
        order_by: str | Sequence[str],
        size: int,
        offset: int = 0,
        around: Any = None,
        key: str = "id",
        throttle: float = THROTTLE_SECONDS,
        tables: Iterable[str] | None = None,
    ) -> WindowWatch[Row]: ...
    @overload
    def watch_window(
        self,
        sql: str,
        parameters: Sequence[Any] = (),
        *,
        order_by: str | Sequence[str],
        size: int,
        offset: int = 0,
        around: Any = None,
        key: str = "id",
        throttle: float = THROTTLE_SECONDS,
        tables: Iterable[str] | None = None,
        row_type: type[R],
    ) -> WindowWatch[R]: ...
    def watch_window(
        self,
        sql: str,
        parameters: Sequence[Any] = (),
        *,
        order_by: str | Sequence[str],
        size: int,
        offset: int = 0,
        around: Any = None,
        key: str = "id",
        throttle: float = THROTTLE_SECONDS,
        tables: Iterable[str] | None = None,
        row_type: type[Any] = Row,
    ) -> WindowWatch[Any]:
        """The total and one window of the rows of a long result, now and after every commit that changes them.

        Args:
            sql: a query without an ORDER BY of its own.
            order_by: columns of it, each alone or followed by ASC or DESC, in one string or in a sequence. Together
                they should be unique, or the order of rows with equal values is undefined. With an index on the first
                one, or the first few, nothing needs to be sorted.
            size: the number of rows in the window.
            offset: the position of its first row, counted from 0.
            around: alternatively, the key of a row to show in the middle and to follow.
            key: the column that identifies a row.

        Returns:
            An async iterator of `RowWindow`s, with `move(offset)` and `show_around(key)` to scroll.

        Raises:
            ValueError: the order or the size is invalid.
        """
        query = WindowQuery(
            sql, parameters, order_by=order_by, size=size, key=key, row_type=row_type, offset=offset, around=around
        )
        chosen = None if tables is None else table_set(tables)
        return self._watched.add(WindowWatch(self._watched.reads, query, throttle, chosen))

    async def source_tables(self, sql: str, parameters: Parameters = ()) -> frozenset[str]:
        """The app's tables that a query depends on, as SQLite reports them, without running it. Raises as `get_all`."""
        return await self._watched.source_tables(sql, parameters)

    def on_change(self, tables: Iterable[str], *, throttle: float = THROTTLE_SECONDS) -> TableChanges:
        """Which of these tables changed, after each commit from now on, local or synced.

        Returns:
            An async iterator of sets of names. Commits within `throttle` seconds, or since the last step, are reported
            together. If another process wrote, all the tables are reported: which ones it changed is unknown.
        """
        return self._watched.changes(tables, throttle)

    def on_row_change(self, tables: Iterable[str], *, throttle: float = THROTTLE_SECONDS) -> RowChanges:
        """Which rows of these tables changed, by their `id`, after each commit, local or synced.

        For code that must not read a whole result again because of one row. Adds temporary triggers to these tables,
        in memory, for as long as the database is open.

        Args:
            tables: tables of the schema, or the app's own tables with a column `id`.
            throttle: the shortest time between two values, in seconds; changes in between are reported together.

        Returns:
            An async iterator of mappings from tables to the ids of their changed rows. None instead of the ids means
            any row: for all tables in the first value, which is delivered immediately, and when another process wrote
            or the schema changed; and for a table in which very many rows changed. Read after a step, not before it.

        Raises (its steps):
            sqlite3.OperationalError: a table does not exist, or has no column `id`.
        """
        return self._watched.row_changes(tables, throttle)

    def watch_all_updates(self, *, throttle: float = THROTTLE_SECONDS) -> TableChanges:
        """Like `on_change`, for all tables of the app."""
        return self._watched.changes(None, throttle)
