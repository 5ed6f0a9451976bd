"""SQL statements on one connection, and which tables they change.

Owns running statements on a connection's own thread, and the bookkeeping by which a commit can report what it changed:
when SQLite prepares a statement, it names every table that the statement touches. Must not know threads or the event
loop: `sync.sqlite.pool` does.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

Row = sqlite3.Row
"""A result row: read it by index or by column name (`row.keys()` lists them); `dict(row)` and `**row` work too.

Like a tuple, it can be unpacked, iterated over and searched (`in`) by its values.
"""

Parameters = Sequence[Any] | Mapping[str, Any]
"""Values for `?` in order, or for `:name` by name."""

STATEMENT_CACHE = 256
"""How many prepared statements a connection keeps."""

SCHEMA_TABLE = "sqlite_master"
"""One of the changed tables of any commit that created, altered or dropped something."""

_KNOWN_STATEMENTS = 4 * STATEMENT_CACHE

_WRITES = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE}


class TableRecorder:
    """An authorizer for SQLite that allows everything and records the tables that a statement touches."""

    def __init__(self) -> None:
        self.prepared = False
        self.read: set[str] = set()
        self.written: set[str] = set()

    def clear(self) -> None:
        self.prepared = False
        self.read.clear()
        self.written.clear()

    def __call__(
        self, action: int, name: str | None, _detail: str | None, database: str | None, _via: str | None
    ) -> int:
        self.prepared = True
        if name is not None and database != "temp":
            if action in _WRITES:
                self.written.add(name)
            elif action == sqlite3.SQLITE_READ:
                self.read.add(name)
        return sqlite3.SQLITE_OK


class SqlConnection:
    """SQL statements on one connection, called on that connection's thread.

    Functions given to `ConnectionPool.write` and `.read` get one of these, inside a transaction.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._recorder = TableRecorder()
        self._written_by: dict[str, frozenset[str]] = {}
        self._cursors: WeakSet[sqlite3.Cursor] = WeakSet()
        self._changed: set[str] = set()
        self._changed_unknown = False
        self.install_authorizer()

    def install_authorizer(self) -> None:
        """Installs the authorizer; all statements are prepared again."""
        self._written_by.clear()
        self._connection.set_authorizer(self._recorder)

    def execute(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Run one statement and return all its rows."""
        before = self._connection.total_changes
        self._recorder.clear()
        try:
            return self._connection.execute(sql, parameters).fetchall()
        finally:
            self._note_changes(sql, before)

    def execute_many(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run one statement once for each row of parameters."""
        before = self._connection.total_changes
        self._recorder.clear()
        try:
            self._connection.executemany(sql, rows)
        finally:
            self._note_changes(sql, before)

    def first(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """Run one statement up to its first row and return that, or None."""
        before = self._connection.total_changes
        self._recorder.clear()
        try:
            cursor = self._connection.execute(sql, parameters)
            try:
                return cursor.fetchone()
            finally:
                cursor.close()
        finally:
            self._note_changes(sql, before)

    def value(self, sql: str, parameters: Parameters = ()) -> Any:
        """Run one statement and return the first column of its first row, or None."""
        row = self.first(sql, parameters)
        return None if row is None else row[0]

    @contextmanager
    def function(self, name: str, parameters: int, function: Callable[..., None]) -> Generator[None]:
        """Let statements call `function` by `name` inside the block. It must not run statements itself."""
        self.set_function(name, parameters, function)
        try:
            yield
        finally:
            self._connection.create_function(name, parameters, None)

    def set_function(self, name: str, parameters: int, function: Callable[..., None]) -> None:
        """Let statements call `function` by `name` from now on. It must not run statements itself."""
        self._connection.create_function(name, parameters, function)

    def cursor(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """Begin a query whose rows are fetched gradually, until `release`."""
        return self.tracked(self._connection.execute(sql, parameters))

    def tracked(self, cursor: sqlite3.Cursor) -> sqlite3.Cursor:
        """Let `release` close a cursor: one left open keeps its snapshot, even after the connection is closed."""
        self._cursors.add(cursor)
        return cursor

    def release(self) -> None:
        """Close open cursors, and roll back an open transaction."""
        for cursor in list(self._cursors):
            cursor.close()
        self._cursors.clear()
        self.rollback()

    def tables_read_by(self, sql: str, parameters: Parameters = ()) -> frozenset[str]:
        """The tables that a query reads, through views, joins, subqueries and CTEs, without running it."""
        # Only a statement that reads the file notices that the schema is not the one this connection has cached.
        self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        self._recorder.clear()
        # The text is unique, so that it is prepared again: a cached statement would not call the authorizer.
        self._connection.execute(f"EXPLAIN {sql}\n-- {uuid.uuid4()}", parameters).fetchall()
        return frozenset(self._recorder.read)

    def schema_version(self) -> int:
        """Grows with every change of the file's tables, views, indexes and triggers, in any process."""
        return self._connection.execute("PRAGMA schema_version").fetchone()[0]

    def _note_changes(self, sql: str, total_changes_before: int) -> None:
        tables = self._written_by.pop(sql, None)
        if self._recorder.prepared:
            # Added, not replaced: while a statement runs, virtual tables such as FTS5 prepare statements of their own.
            tables = frozenset(self._recorder.written) if tables is None else tables | self._recorder.written
        if tables is None:
            self._changed_unknown |= self._connection.total_changes != total_changes_before
            return
        # Moved to the end: what is dropped at the front is long gone from SQLite's own, smaller cache.
        self._written_by[sql] = tables
        if len(self._written_by) > _KNOWN_STATEMENTS:
            del self._written_by[next(iter(self._written_by))]
        if SCHEMA_TABLE in tables or self._connection.total_changes != total_changes_before:
            self._changed |= tables

    def has_changed(self, table: str) -> bool:
        """Whether the open transaction has changed a table, as far as is known."""
        return table in self._changed

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; some errors make SQLite end it."""
        return self._connection.in_transaction

    def begin(self, mode: str) -> None:
        """Begin a transaction: DEFERRED or IMMEDIATE."""
        self._changed.clear()
        self._changed_unknown = False
        self._connection.execute(f"BEGIN {mode}")

    def commit(self) -> frozenset[str] | None:
        """Commit, and return the tables that the transaction changed (None: unknown)."""
        self._connection.execute("COMMIT")
        changed = None if self._changed_unknown else frozenset(self._changed)
        if changed is None or SCHEMA_TABLE in changed:
            self.install_authorizer()  # triggers may have changed, and with them the tables that statements write
        return changed

    def rollback(self) -> None:
        """Roll back if a transaction is open (after some errors, SQLite has already ended it)."""
        while self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.OperationalError as error:
                # The interrupt of a cancelled query may hit its rollback; an open snapshot would let the WAL grow.
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
