"""Local transactions that the backend refused for good, kept until the user decides what becomes of them.

Owns `ps_rejected_transactions` and `ps_rejected_crud`, and the way between them and the upload queue: a transaction is
always in exactly one of both places. Other clients of the file format do not know these tables and leave them alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from sync.sqlite.sql_connection import Row, SqlConnection
from sync.sqlite.sql_text import quoted
from sync.storage import upload_queue
from sync.storage.crud_entry import CrudEntry, decode_entry, encode_entry
from sync.storage.key_values import from_microseconds, now_microseconds, put_integer
from sync.storage.names import DATA_PREFIX, KEEPS_RECORDS
from sync.storage.views import synced_tables

REJECTED_TRANSACTIONS = "ps_rejected_transactions"

_TABLES = (
    """CREATE TABLE IF NOT EXISTS ps_rejected_transactions(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        reason TEXT NOT NULL,
        code TEXT,
        operation_index INTEGER,
        rejected_at INTEGER NOT NULL,
        attempts INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE IF NOT EXISTS ps_rejected_crud(
        id INTEGER PRIMARY KEY,
        rejected INTEGER NOT NULL,
        data TEXT NOT NULL,
        tx_id INTEGER,
        server_data TEXT
    ) STRICT""",
    "CREATE INDEX IF NOT EXISTS ps_rejected_crud_rejected ON ps_rejected_crud (rejected)",
    # How often a transaction that waits in the queue was rejected before; the number is that of its first entry.
    "CREATE TABLE IF NOT EXISTS ps_retried_crud(id INTEGER PRIMARY KEY, attempts INTEGER NOT NULL) STRICT",
)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a transaction was refused.

    Attributes:
        reason: the backend's own sentence.
        code: the backend's own code, or None.
        operation_index: which entry of the transaction was at fault, if the backend told.
    """

    reason: str
    code: str | None = None
    operation_index: int | None = None


@dataclass(frozen=True, slots=True)
class StoredRejection:
    """A rejected transaction, as it is kept.

    Attributes:
        id: its number.
        crud: what was tried, in order.
        server_rows: for each entry the synced row as it was when the transaction was rejected, or None.
        rejection: why.
        rejected_at: when (UTC).
        attempts: how often it was rejected in all.
    """

    id: int
    crud: tuple[CrudEntry, ...]
    server_rows: tuple[dict[str, Any] | None, ...]
    rejection: Rejection
    rejected_at: datetime
    attempts: int


def create_tables(connection: SqlConnection) -> None:
    """Create what is missing. Must run when the file is opened."""
    for sql in _TABLES:
        connection.execute(sql)


def holds_any(connection: SqlConnection) -> bool:
    """Whether there is anything to clear."""
    return (
        connection.first("SELECT 1 FROM ps_rejected_transactions UNION ALL SELECT 1 FROM ps_retried_crud LIMIT 1")
        is not None
    )


def clear(connection: SqlConnection) -> None:
    """Forget all rejected transactions."""
    connection.execute("DELETE FROM ps_rejected_transactions")
    connection.execute("DELETE FROM ps_rejected_crud")
    connection.execute("DELETE FROM ps_retried_crud")


def reject(connection: SqlConnection, first: int, last: int, rejection: Rejection) -> int | None:
    """Move the entries `first` to `last` (numbers, one transaction) out of the queue.

    Returns the number of the rejected transaction, or None if the entries no longer wait.
    """
    if connection.value("SELECT 1 FROM ps_crud WHERE id BETWEEN ? AND ? LIMIT 1", (first, last)) is None:
        return None
    attempts = connection.value("SELECT attempts FROM ps_retried_crud WHERE id = ?", (first,)) or 0
    rejected: int = connection.value(
        "INSERT INTO ps_rejected_transactions(reason, code, operation_index, rejected_at, attempts)"
        " VALUES (?, ?, ?, ?, ?) RETURNING id",
        (rejection.reason, rejection.code, rejection.operation_index, now_microseconds(), attempts + 1),
    )
    connection.execute(
        "INSERT INTO ps_rejected_crud(id, rejected, data, tx_id, server_data) SELECT c.id, ?, c.data, c.tx_id,"
        " (SELECT o.data FROM ps_oplog o WHERE o.row_type = json_extract(c.data, '$.type')"
        " AND o.row_id = json_extract(c.data, '$.id') ORDER BY o.op_id DESC LIMIT 1)"
        " FROM ps_crud c WHERE c.id BETWEEN ? AND ?",
        (rejected, first, last),
    )
    put_integer(connection, KEEPS_RECORDS, 1)
    connection.execute("DELETE FROM ps_crud WHERE id BETWEEN ? AND ?", (first, last))
    connection.execute("DELETE FROM ps_retried_crud WHERE id BETWEEN ? AND ?", (first, last))
    upload_queue.end_without_request(connection)
    return rejected


def reason_among(connection: SqlConnection, first: int, last: int) -> str | None:
    """Why the first of the entries `first` to `last` that were rejected was; None if none of them was."""
    return connection.value(
        "SELECT t.reason FROM ps_rejected_crud c JOIN ps_rejected_transactions t ON t.id = c.rejected"
        " WHERE c.id BETWEEN ? AND ? ORDER BY c.id LIMIT 1",
        (first, last),
    )


def rejected_writes(connection: SqlConnection) -> tuple[StoredRejection, ...]:
    """All rejected transactions, oldest first."""
    entries: dict[int, list[Row]] = {}
    for row in connection.execute("SELECT * FROM ps_rejected_crud ORDER BY id"):
        entries.setdefault(row["rejected"], []).append(row)
    return tuple(
        _stored(row, entries.get(row["id"], []))
        for row in connection.execute("SELECT * FROM ps_rejected_transactions ORDER BY id")
    )


def retry(
    connection: SqlConnection, rejected: int, edited: Sequence[CrudEntry] | None, insert_only: Collection[str] = ()
) -> bool:
    """Put a rejected transaction back, at the end of the queue, and show its effect again.

    Args:
        statements: of the transaction that this is part of.
        rejected: its number.
        edited: what to upload instead of what was tried.
        insert_only: tables whose writes are not stored and do not come back.

    Returns:
        Whether it was there.
    """
    attempts = connection.value("SELECT attempts FROM ps_rejected_transactions WHERE id = ?", (rejected,))
    if attempts is None:
        return False
    if edited is None:
        rows = connection.execute("SELECT data FROM ps_rejected_crud WHERE rejected = ? ORDER BY id", (rejected,))
        data = [str(row["data"]) for row in rows]
    else:
        data = [encode_entry(entry) for entry in edited]
    discard(connection, rejected)
    first = upload_queue.enqueue(connection, data, insert_only)
    connection.execute("INSERT INTO ps_retried_crud(id, attempts) VALUES (?, ?)", (first, attempts))
    shown = synced_tables(connection).difference(insert_only)
    show(connection, [decode_entry(0, None, text) for text in data], shown)
    return True


def put_back(connection: SqlConnection, entries: Sequence[CrudEntry], insert_only: Collection[str] = ()) -> None:
    """Put the entries of another file's queue at the end of this one's, as one transaction, and show their effect."""
    upload_queue.enqueue(connection, [encode_entry(entry) for entry in entries], insert_only)
    show(connection, entries, synced_tables(connection).difference(insert_only))


def discard(connection: SqlConnection, rejected: int) -> bool:
    """Forget a rejected transaction for ever. Returns whether it was there."""
    connection.execute("DELETE FROM ps_rejected_crud WHERE rejected = ?", (rejected,))
    gone = connection.execute("DELETE FROM ps_rejected_transactions WHERE id = ? RETURNING id", (rejected,))
    return bool(gone)


def show(connection: SqlConnection, entries: Iterable[CrudEntry], shown_tables: Collection[str]) -> None:
    """Apply entries to the local rows of these synced tables, without queueing them once more."""
    for entry in entries:
        if entry.table not in shown_tables:
            continue
        table = quoted(DATA_PREFIX + entry.table)
        data = msgspec.json.encode(entry.data or {}).decode()
        match entry.op:
            case "PUT":
                connection.execute(f"INSERT OR REPLACE INTO {table}(id, data) VALUES (?, ?)", (entry.id, data))
            case "PATCH":
                connection.execute(
                    f"UPDATE {table} SET data = json_patch(ifnull(data, '{{}}'), ?) WHERE id = ?", (data, entry.id)
                )
            case "DELETE":
                connection.execute(f"DELETE FROM {table} WHERE id = ?", (entry.id,))


def _stored(row: Row, entries: Sequence[Row]) -> StoredRejection:
    return StoredRejection(
        row["id"],
        tuple(decode_entry(entry["id"], entry["tx_id"], entry["data"]) for entry in entries),
        tuple(None if entry["server_data"] is None else msgspec.json.decode(entry["server_data"]) for entry in entries),
        Rejection(row["reason"], row["code"], row["operation_index"]),
        from_microseconds(row["rejected_at"]),
        row["attempts"],
    )
