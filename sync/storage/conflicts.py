"""Conflicts: values that this client uploaded and that a published checkpoint replaced.

Owns `ps_uploaded` (what was uploaded since the last complete checkpoint that includes it) and `ps_conflicts` (the
conflicts found, until the app dismisses them). Decides nothing: the published value wins, the app may show both.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import Any

import msgspec

from sync.sqlite.sql_connection import SqlConnection
from sync.storage.crud_entry import decode_entry
from sync.storage.key_values import from_microseconds, now_microseconds, put_integer
from sync.storage.names import KEEPS_RECORDS

CONFLICTS = "ps_conflicts"

KEPT = 1000
"""How many conflicts are kept; the oldest are deleted first."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS ps_uploaded(id INTEGER PRIMARY KEY, data TEXT NOT NULL) STRICT",
    """CREATE TABLE IF NOT EXISTS ps_conflicts(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        row_type TEXT NOT NULL,
        row_id TEXT NOT NULL,
        column_name TEXT,
        mine TEXT NOT NULL,
        theirs TEXT NOT NULL,
        found_at INTEGER NOT NULL
    ) STRICT""",
)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A value of this client that the service replaced.

    Attributes:
        id: its number, increasing with time.
        table: the synced table's name.
        row_id: the row's id.
        column: the column's name; None if the whole row was deleted on one side and not on the other.
        mine: what this client uploaded; if `column` is None, the row's values, or None for a deletion.
        theirs: the service's value, likewise.
        found_at: when it was published here (UTC).
    """

    id: int
    table: str
    row_id: str
    column: str | None
    mine: Any
    theirs: Any
    found_at: datetime


def create_tables(connection: SqlConnection) -> None:
    """Create what is missing. Must run when the file is opened."""
    for sql in _TABLES:
        connection.execute(sql)


def has_any(connection: SqlConnection) -> bool:
    """Whether there is anything to clear."""
    return connection.first("SELECT 1 FROM ps_uploaded UNION ALL SELECT 1 FROM ps_conflicts LIMIT 1") is not None


def clear(connection: SqlConnection) -> None:
    """Delete the record of uploads, and all conflicts."""
    connection.execute("DELETE FROM ps_uploaded")
    connection.execute("DELETE FROM ps_conflicts")


def remember_uploaded(connection: SqlConnection, up_to: int, insert_only: Collection[str] = ()) -> None:
    """Keep the entries of the queue up to the number `up_to`, which are about to leave it.

    Except those of the `insert_only` tables: they do not come back, so there is nothing to compare them with.
    """
    coming_back = f" AND json_extract(data, '$.type') NOT IN ({', '.join('?' * len(insert_only))})"
    connection.execute(
        "INSERT OR REPLACE INTO ps_uploaded(id, data) SELECT id, data FROM ps_crud WHERE id <= ?"
        + (coming_back if insert_only else ""),
        (up_to, *insert_only),
    )
    put_integer(connection, KEEPS_RECORDS, 1)


def find(connection: SqlConnection) -> None:
    """Compare what was uploaded with what was just published, in a complete checkpoint that includes all of it.

    Row by row, so that memory does not grow with the uploads: SQLite sorts them, in a file if necessary.
    """
    if connection.value("SELECT 1 FROM ps_uploaded LIMIT 1") is None:
        return
    found_at = now_microseconds()
    found = (
        (table, row_id, column, json.dumps(ours), json.dumps(theirs), found_at)
        for table, row_id, mine, is_new in _uploaded_rows(connection)
        # A new row that was not published is not necessarily deleted: its stream may be subscribed later.
        if (published := _published(connection, table, row_id)) is not None or not is_new
        for column, ours, theirs in _differences(mine, published)
    )
    while batch := list(islice(found, KEPT)):
        connection.execute_many(
            "INSERT INTO ps_conflicts(row_type, row_id, column_name, mine, theirs, found_at) VALUES (?, ?, ?, ?, ?, ?)",
            batch,
        )
        connection.execute("DELETE FROM ps_conflicts WHERE id <= (SELECT max(id) FROM ps_conflicts) - ?", (KEPT,))
    connection.execute("DELETE FROM ps_uploaded")


def _uploaded_rows(connection: SqlConnection) -> Iterator[tuple[str, str, dict[str, Any] | None, bool]]:
    """Each uploaded row: table, id, its values after all its entries (None if deleted), whether it is new."""
    uploaded = connection.cursor(
        "SELECT id, data FROM ps_uploaded"
        " ORDER BY json_extract(data, '$.type'), json_extract(data, '$.id'), ps_uploaded.id"
    )
    with closing(uploaded):
        entries = (decode_entry(row["id"], None, row["data"]) for row in uploaded)
        for (table, row_id), changes in groupby(entries, lambda entry: (entry.table, entry.id)):
            mine: dict[str, Any] | None = None
            is_new = False
            for entry in changes:
                match entry.op:
                    case "PUT":
                        mine, is_new = dict(entry.data or {}), True
                    case "PATCH":
                        mine = {**(mine or {}), **(entry.data or {})}
                    case "DELETE":
                        mine = None
            yield table, row_id, mine, is_new


def conflicts(connection: SqlConnection) -> tuple[Conflict, ...]:
    """All conflicts that were not dismissed, oldest first."""
    return tuple(
        Conflict(
            row["id"],
            row["row_type"],
            row["row_id"],
            row["column_name"],
            json.loads(row["mine"]),
            json.loads(row["theirs"]),
            from_microseconds(row["found_at"]),
        )
        for row in connection.execute("SELECT * FROM ps_conflicts ORDER BY id")
    )


def dismiss(connection: SqlConnection, up_to: int) -> None:
    """Delete the conflicts up to the number `up_to`."""
    connection.execute("DELETE FROM ps_conflicts WHERE id <= ?", (up_to,))


def _published(connection: SqlConnection, table: str, row_id: str) -> dict[str, Any] | None:
    data = connection.value(
        "SELECT data FROM ps_oplog WHERE row_type = ? AND row_id = ? ORDER BY op_id DESC LIMIT 1",
        (table, row_id),
    )
    return None if data is None else msgspec.json.decode(data, type=dict[str, Any])


def _differences(
    mine: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None
) -> Iterator[tuple[str | None, Any, Any]]:
    if mine is None or theirs is None:
        if mine is not None or theirs is not None:
            yield None, mine, theirs
        return
    for column, value in mine.items():
        if not _same(value, theirs.get(column)):
            yield column, value, theirs.get(column)


def _same(mine: Any, theirs: Any) -> bool:
    """Whether two values mean the same. Backends format times and booleans in their own ways."""
    if mine == theirs:
        return True
    if isinstance(mine, str) and isinstance(theirs, str):
        first, second = _time(mine), _time(theirs)
        return first is not None and first == second
    return False


def _time(text: str) -> float | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (time.replace(tzinfo=UTC) if time.tzinfo is None else time).timestamp()
