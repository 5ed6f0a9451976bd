"""What only this device has, taken over from one database file into another.

Owns what that is: the upload queue, rejected writes, conflicts, the rows of local-only tables, and whose they are.
Everything else comes again from the service. Numbers stay as they were, so that later ones never repeat an earlier one.
The new file keeps its own client id: what the service counts for the old one, such as checkpoint requests, belongs to
data that the new file does not have. Must not know how the files come and go.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from sync.schema.tables import Schema
from sync.sqlite.damaged_file import ReadableRows
from sync.sqlite.sql_connection import SqlConnection
from sync.sqlite.sql_text import quoted
from sync.storage import rejected_writes
from sync.storage.conflicts import CONFLICTS
from sync.storage.crud_entry import CrudEntry, decode_entry
from sync.storage.current_schema import CurrentSchema
from sync.storage.key_values import now_microseconds, put_integer
from sync.storage.names import (
    KEEPS_RECORDS,
    LOCAL_DATA_PREFIX,
    TARGET,
    TARGET_UNKNOWN,
    USER_ID,
    data_table,
)
from sync.storage.rejected_writes import REJECTED_TRANSACTIONS
from sync.storage.views import synced_tables

_QUEUE: Final = "ps_crud"
_REJECTED_ENTRIES: Final = "ps_rejected_crud"

_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    _QUEUE: ("id", "data", "tx_id"),
    "ps_crud_times": ("id", "made_at"),
    "ps_retried_crud": ("id", "attempts"),
    REJECTED_TRANSACTIONS: ("id", "reason", "code", "operation_index", "rejected_at", "attempts"),
    _REJECTED_ENTRIES: ("id", "rejected", "data", "tx_id", "server_data"),
    CONFLICTS: ("id", "row_type", "row_id", "column_name", "mine", "theirs", "found_at"),
}
_RECORDS: Final = (REJECTED_TRANSACTIONS, _REJECTED_ENTRIES, CONFLICTS)
"""Tables that are void once another client has cleared the file (see `KEEPS_RECORDS`)."""

_SIDE_TABLES: Final = {"ps_crud_times", "ps_retried_crud"}
"""When an entry was made, and how often it was tried: nothing is lost with them that the user wrote."""

_WORDS: Final = {
    _QUEUE: "upload queue",
    REJECTED_TRANSACTIONS: "rejected writes",
    _REJECTED_ENTRIES: "rejected writes",
    CONFLICTS: "conflicts",
}
_INDEXES: Final = {_REJECTED_ENTRIES: "ps_rejected_crud_rejected"}
_COUNTED: Final = (_QUEUE, REJECTED_TRANSACTIONS, CONFLICTS)
"""Tables whose numbers come from `sqlite_sequence`."""

_OF_THE_VALUE: Final = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}
"""Errors that say that a row cannot be stored as it is, for it was read from a damaged page."""

_REASON_UNREAD: Final = "The backend's reason could not be read from the damaged file."


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was taken over. See `Rescued`."""

    queue_length: int
    rejected_writes: int
    conflicts: int
    local_rows: Mapping[str, int]
    unread: Mapping[str, int]
    left: tuple[str, ...]


class Salvaging:
    """Takes over what only this device has.

    Args:
        old: the file that is given up, or None if nothing can be read of it; used by nobody else.
        new: the new file, of the engine's format and the app's schema, in a transaction.
        schema: the app's.
    """

    def __init__(self, old: sqlite3.Connection | None, new: SqlConnection, schema: Schema) -> None:
        self._old = old
        self._new = new
        self._schema = schema
        self._unread: dict[str, int] = {}
        self._tables = self._names_in_old_file()

    def run(self) -> Salvage:
        """Copy it all, and close the gate until the queue is uploaded.

        Raises:
            sqlite3.Error: the new file cannot be written.
        """
        records_are_void = self._copy_keys()
        for table, columns in _COLUMNS.items():
            if not (records_are_void and table in _RECORDS):
                self._copy(table, columns)
        self._complete_rejected_writes()
        local = {table.name: data_table(table) for table in self._schema.tables if table.local_only}
        for table in local.values():
            self._copy(table, ("id", "data"), index=f"sqlite_autoindex_{table}_1")
        self._continue_numbers()
        self._show_queue()
        counts = {name: self._count(name) for name in (*_COUNTED, *local.values())}
        return Salvage(
            queue_length=counts[_QUEUE],
            rejected_writes=counts[REJECTED_TRANSACTIONS],
            conflicts=counts[CONFLICTS],
            local_rows={name: counts[table] for name, table in local.items()},
            unread=self._unread,
            left=tuple(sorted(self._left(set(local.values())))),
        )

    def _names_in_old_file(self) -> dict[str, str]:
        """The tables of the old file that can be read, with their SQL."""
        if self._old is None:
            return {}
        try:
            rows = self._old.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql IS NOT NULL")
            return {row[0]: row[1] for row in rows}
        except sqlite3.DatabaseError:
            return {}

    def _copy_keys(self) -> bool:
        """Take over whose file it is; returns whether another client has cleared what only this engine keeps."""
        if self._old is None or "ps_kv" not in self._tables:
            return False
        try:
            found = {
                row[0]: row[1]
                for row in self._old.execute(
                    "SELECT key, value FROM ps_kv WHERE key IN (?, ?)", (USER_ID, KEEPS_RECORDS)
                )
            }
        except sqlite3.DatabaseError:
            return False
        if USER_ID in found:
            self._new.execute("INSERT INTO ps_kv(key, value) VALUES (?, ?)", (USER_ID, found[USER_ID]))
        return KEEPS_RECORDS not in found

    def _copy(self, table: str, columns: tuple[str, ...], index: str | None = None) -> None:
        if self._old is None or table not in self._tables:
            return
        present = {row[1] for row in self._old.execute(f"PRAGMA table_info({quoted(table)})")}
        columns = tuple(column for column in columns if column in present)
        rows = ReadableRows(
            self._old,
            table,
            columns,
            index=index or _INDEXES.get(table),
            first=self._first_number(self._old) if table == _QUEUE else 1,
            last=self._last_number(self._old, table),
        )
        names, marks = ", ".join(map(quoted, columns)), ", ".join("?" * len(columns))
        insert = f"INSERT INTO {quoted(table)}({names}) VALUES ({marks})"
        spoiled = 0
        for row in rows:
            if not _is_sound(table, dict(zip(columns, row, strict=True))):
                spoiled += 1
                continue
            try:
                self._new.execute(insert, row)
            except sqlite3.Error as error:
                if error.sqlite_errorcode & 0xFF not in _OF_THE_VALUE:
                    raise
                spoiled += 1
        self._note_unread(table, rows.unread + spoiled)

    def _note_unread(self, table: str, count: int) -> None:
        name = _WORDS.get(table) or table.removeprefix(LOCAL_DATA_PREFIX)
        if count and table not in _SIDE_TABLES:
            self._unread[name] = self._unread.get(name, 0) + count

    def _first_number(self, connection: sqlite3.Connection) -> int:
        """No entry of the queue has a smaller number: those before it were uploaded."""
        try:
            row = connection.execute(
                "SELECT max((SELECT ifnull(min(id), 1) FROM ps_crud_times),"
                " (SELECT ifnull(max(id), 0) + 1 FROM ps_uploaded))"
            ).fetchone()
        except sqlite3.DatabaseError:
            return 1
        return row[0]

    def _last_number(self, connection: sqlite3.Connection, table: str) -> int | None:
        try:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        except sqlite3.DatabaseError:
            return None
        return row[0] if row is not None and isinstance(row[0], int) else None

    def _complete_rejected_writes(self) -> None:
        """A rejected write has a reason and entries; where the reason was lost, the entries are kept all the same."""
        self._new.execute(
            "INSERT INTO ps_rejected_transactions(id, reason, rejected_at, attempts)"
            " SELECT DISTINCT rejected, ?, ?, 1 FROM ps_rejected_crud"
            " WHERE rejected NOT IN (SELECT id FROM ps_rejected_transactions)",
            (_REASON_UNREAD, now_microseconds()),
        )
        self._new.execute(
            "DELETE FROM ps_rejected_transactions WHERE id NOT IN (SELECT rejected FROM ps_rejected_crud)"
        )
        if self._count(REJECTED_TRANSACTIONS) or self._count(CONFLICTS):
            put_integer(self._new, KEEPS_RECORDS, 1)

    def _continue_numbers(self) -> None:
        """Let new entries, transactions and records have numbers that the old file never gave."""
        for table in _COUNTED:
            last = 0 if self._old is None else self._last_number(self._old, table) or 0
            greatest = self._new.value(f"SELECT max(id) FROM {table}") or 0
            if table == _QUEUE:
                greatest = max(greatest, self._new.value("SELECT max(id) FROM ps_rejected_crud") or 0)
            self._new.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            self._new.execute("INSERT INTO sqlite_sequence(name, seq) VALUES (?, ?)", (table, max(last, greatest)))
        next_transaction = self._next_transaction()
        self._new.execute("UPDATE ps_tx SET next_tx = ? WHERE id = 1", (next_transaction,))

    def _next_transaction(self) -> int:
        known = [
            self._new.value("SELECT next_tx FROM ps_tx WHERE id = 1"),
            (self._new.value("SELECT max(tx_id) FROM ps_crud") or 0) + 1,
            (self._new.value("SELECT max(tx_id) FROM ps_rejected_crud") or 0) + 1,
        ]
        if self._old is not None and "ps_tx" in self._tables:
            try:
                row = self._old.execute("SELECT next_tx FROM ps_tx WHERE id = 1").fetchone()
            except sqlite3.DatabaseError:
                row = None
            if row is not None and isinstance(row[0], int):
                known.append(row[0])
        return max(known)

    def _show_queue(self) -> None:
        """Apply what waits to the rows, and hold back what others have until it is uploaded."""
        insert_only = CurrentSchema(self._schema).insert_only_tables
        shown = synced_tables(self._new).difference(insert_only)
        closes_gate = False
        for entry in entries(self._new):
            rejected_writes.show(self._new, [entry], shown)
            if entry.table not in insert_only:
                closes_gate = True
                self._new.execute(
                    "INSERT OR IGNORE INTO ps_updated_rows(row_type, row_id) VALUES (?, ?)", (entry.table, entry.id)
                )
        if closes_gate:
            put_integer(self._new, TARGET, TARGET_UNKNOWN)

    def _left(self, taken: Collection[str]) -> Iterator[str]:
        """The app's names of tables that stay behind: of its own making, or local-only and not in the schema."""
        for name in self._tables:
            if name.startswith(LOCAL_DATA_PREFIX):
                if name not in taken:
                    yield name.removeprefix(LOCAL_DATA_PREFIX)
            elif not name.startswith(("ps_", "sqlite_")):
                yield name

    def _count(self, table: str) -> int:
        return self._new.value(f"SELECT count(*) FROM {quoted(table)}")


def entries(connection: SqlConnection) -> Iterator[CrudEntry]:
    """The upload queue, one by one. The connection may be used meanwhile, but not for changing the queue."""
    with closing(connection.cursor("SELECT id, tx_id, data FROM ps_crud ORDER BY id")) as rows:
        for row in rows:
            yield decode_entry(row["id"], row["tx_id"], row["data"])


def _is_sound(table: str, row: Mapping[str, Any]) -> bool:
    """Whether a row is what the engine writes: SQLite does not notice all that was overwritten."""
    try:
        if table in {_QUEUE, _REJECTED_ENTRIES}:
            decode_entry(0, None, row["data"])
            json.loads(row.get("server_data") or "null")
            return all(isinstance(row[name] or 0, int) for name in ("id", "tx_id", "rejected") if name in row)
        if table == CONFLICTS:
            json.loads(row["mine"])
            json.loads(row["theirs"])
        if table.startswith(LOCAL_DATA_PREFIX):
            return isinstance(row["id"], str) and isinstance(json.loads(row["data"] or "{}"), dict)
    except (msgspec.DecodeError, TypeError, ValueError):
        return False
    return True
