"""SQL statements on one connection, and which tables they change.

Owns the running of statements on a connection's own thread, and the bookkeeping by which a commit can tell what it
changed: SQLite itself names, when it prepares a statement, every table that it touches. Must not know threads
or the event loop: `sync.connection` does.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

Row = sqlite3.Row
"""A result row: read it by index or by column name."""

Parameters = Sequence[Any]

STATEMENT_CACHE = 256
"""How many prepared statements a connection keeps."""

SCHEMA_TABLE = "sqlite_master"
"""Stands among the changed tables if a commit changed the schema: which tables a query reads may differ then."""

_WRITES = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE}


class _TableRecorder:
    """SQLite's authorizer, used as a witness: at prepare time it is told every table that a statement touches."""

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


class Statements:
    """SQL statements on one connection, called on that connection's thread.

    Functions given to `ConnectionPool.write` and `.read` get one of these, inside a transaction.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._recorder = _TableRecorder()
        self._written_by: dict[str, frozenset[str]] = {}
        self.changed: set[str] = set()
        self.changed_unknown = False
        connection.set_authorizer(self._recorder)

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
        """Run one statement and return its first row, or None."""
        rows = self.execute(sql, parameters)
        return rows[0] if rows else None

    def value(self, sql: str, parameters: Parameters = ()) -> Any:
        """Run one statement and return the first column of its first row, or None."""
        row = self.first(sql, parameters)
        return None if row is None else row[0]

    def tables_read_by(self, sql: str, parameters: Parameters) -> frozenset[str]:
        """The tables that a query reads, through views, joins and subqueries, without running it."""
        # EXPLAIN does not run the query, and so does not notice that another connection changed the schema: this does.
        self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        self._recorder.clear()
        # The text is unique, so that it is prepared anew: a cached statement would not ask the authorizer again.
        self._connection.execute(f"EXPLAIN {sql}\n-- {uuid.uuid4()}", parameters).fetchall()
        return frozenset(self._recorder.read)

    def _note_changes(self, sql: str, total_changes_before: int) -> None:
        if self._recorder.prepared:
            # Added, not replaced: while a statement runs, virtual tables such as FTS5 prepare statements of their own.
            self._written_by[sql] = self._written_by.get(sql, frozenset()) | self._recorder.written
        tables = self._written_by.get(sql)
        if tables is None:
            self.changed_unknown |= self._connection.total_changes != total_changes_before
        elif SCHEMA_TABLE in tables or self._connection.total_changes != total_changes_before:
            self.changed |= tables
        if tables is not None and SCHEMA_TABLE in tables:
            # Every statement is prepared anew by SQLite, and tells anew what it touches.
            self._written_by.clear()
        if len(self._written_by) > 4 * STATEMENT_CACHE:
            self._written_by.clear()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; some errors make SQLite end it by itself."""
        return self._connection.in_transaction

    def begin(self, mode: str) -> None:
        self.changed.clear()
        self.changed_unknown = False
        self.rollback()  # of a transaction whose own rollback was interrupted
        self._connection.execute(f"BEGIN {mode}")

    def commit(self) -> frozenset[str] | None:
        """Commit, and return the tables that the transaction changed (None: unknown)."""
        self._connection.execute("COMMIT")
        return None if self.changed_unknown else frozenset(self.changed)

    def rollback(self) -> None:
        """Roll back if a transaction is open (SQLite has ended it by itself after some errors)."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
