"""The upload queue, and the checkpoint requests that show when its effects have come back.

Owns `ps_crud`, `ps_tx`, the times of entries, and the checkpoint ids in `ps_kv` that form the gate: downloaded data is
published only when the queue is empty and the service has sent a checkpoint that includes everything uploaded so far.
Must not do HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from sync.sqlite.sql_connection import Row, SqlConnection
from sync.storage import conflicts
from sync.storage.crud_entry import CrudEntry, decode_entry
from sync.storage.key_values import get_integer, optional_time, put_integer
from sync.storage.names import (
    CLIENT_ID,
    CUSTOM_CHECKPOINT,
    LAST_APPLIED,
    LAST_REQUESTED,
    LAST_SEEN,
    TARGET,
    TARGET_UNKNOWN,
)

QUEUED_ROWS = (
    "SELECT data ->> '$.id' AS id, count(*) AS entries FROM ps_crud"
    " WHERE ?1 IS NULL OR data ->> '$.type' = ?1 GROUP BY 1"
)
"""The rows of a table, or of all tables, that have entries in the queue, and how many."""

_TIMES = "CREATE TABLE IF NOT EXISTS ps_crud_times(id INTEGER PRIMARY KEY, made_at INTEGER NOT NULL) STRICT"
_SECONDS_BETWEEN_TIMES = 1.0


@dataclass(frozen=True, slots=True)
class QueueState:
    """What the upload loop needs to know about the queue.

    Attributes:
        count: the number of waiting entries.
        head: the first entry's number, or None.
        last_ever: the number of the last entry ever made.
        checkpoint_wanted: the queue is empty, and no checkpoint was requested yet for what was uploaded.
        gate_open: whether downloaded data may be published.
    """

    count: int
    head: int | None
    last_ever: int
    checkpoint_wanted: bool
    gate_open: bool


def has_new_entries(changed: frozenset[str]) -> bool:
    """Whether a commit that changed these tables added to the queue: an entry always draws a transaction id."""
    return "ps_tx" in changed


def create_tables(connection: SqlConnection) -> None:
    """Create the table that other clients of the file format do not have. Must run when the file is opened."""
    connection.execute(_TIMES)


def clear(connection: SqlConnection) -> None:
    """Delete the times of entries."""
    connection.execute("DELETE FROM ps_crud_times")


def end_transaction_id(connection: SqlConnection) -> None:
    """Make the next write draw a new transaction id. Another SQLite client leaves its own behind."""
    connection.execute("UPDATE ps_tx SET current_tx = NULL WHERE current_tx IS NOT NULL")


class EntryTimes:
    """Records when entries of the queue are made, to within a second: one record per second is enough for that."""

    def __init__(self) -> None:
        self._next_note = 0.0

    def note(self, connection: SqlConnection) -> None:
        """Record the time of the transaction that is about to be committed, if it queued something."""
        now = time.time()
        if now < self._next_note <= now + _SECONDS_BETWEEN_TIMES or not connection.has_changed("ps_crud"):
            return
        self._next_note = now + _SECONDS_BETWEEN_TIMES
        connection.execute(
            "INSERT OR IGNORE INTO ps_crud_times(id, made_at) SELECT ifnull((SELECT c.id + 1 FROM ps_crud c"
            " WHERE c.tx_id IS NOT t.current_tx ORDER BY c.id DESC LIMIT 1), (SELECT min(id) FROM ps_crud)), ?"
            " FROM ps_tx t WHERE t.id = 1 AND t.current_tx IS NOT NULL",
            (int(now * 1_000_000),),
        )


def oldest_at(connection: SqlConnection) -> datetime | None:
    """About when the first entry of the queue was made (UTC), or None if the queue is empty or it was not recorded."""
    microseconds = connection.value(
        "SELECT made_at FROM ps_crud_times WHERE id <= (SELECT min(id) FROM ps_crud) ORDER BY id DESC LIMIT 1"
    )
    return optional_time(microseconds)


def client_id(connection: SqlConnection) -> str:
    """The id that identifies this file to the service."""
    return str(connection.value("SELECT value FROM ps_kv WHERE key = ?", (CLIENT_ID,)))


def queue_state(connection: SqlConnection) -> QueueState:
    """The state of the queue and the gate."""
    row = connection.first("SELECT count(*) AS count, min(id) AS head FROM ps_crud")
    assert row is not None
    return QueueState(
        count=row["count"],
        head=row["head"],
        last_ever=_last_ever(connection),
        checkpoint_wanted=row["count"] == 0 and get_integer(connection, TARGET) == TARGET_UNKNOWN,
        gate_open=is_gate_open(connection),
    )


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much to take from the queue at once. The first transaction is always included whole, however large it is.

    Attributes:
        transactions: the maximum number of transactions.
        operations: the maximum number of entries in total.
        bytes: the maximum size of the entries in total, in bytes of their stored JSON.
    """

    transactions: int = 100
    operations: int = 1000
    bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class UploadQueueStats:
    """The size of the upload queue.

    Attributes:
        entries: the number of waiting local changes.
        transactions: the number of transactions that they belong to.
        bytes: the size of the entries, in bytes of their stored JSON.
        oldest_at: when (UTC) the first of them was made, to within a second; None if the queue is empty or another
            program made it.
    """

    entries: int
    transactions: int
    bytes: int
    oldest_at: datetime | None


def next_transactions(connection: SqlConnection, after: int, limits: BatchLimits) -> list[tuple[CrudEntry, ...]]:
    """The transactions after the entry `after`, never split, within limits; empty if there are none."""
    # SQLite has one writer at a time: the entries of a transaction are contiguous.
    groups: list[list[Row]] = []
    operations = size = 0
    with closing(connection.cursor("SELECT id, tx_id, data FROM ps_crud WHERE id > ? ORDER BY id", (after,))) as rows:
        for row in rows:
            if not groups or row["tx_id"] is None or groups[-1][0]["tx_id"] != row["tx_id"]:
                if len(groups) == limits.transactions:
                    break
                groups.append([])
            groups[-1].append(row)
            operations += 1
            size += len(row["data"])
            if len(groups) > 1 and (operations > limits.operations or size > limits.bytes):
                groups.pop()
                break
    return [tuple(decode_entry(row["id"], row["tx_id"], row["data"]) for row in group) for group in groups]


def next_entries(connection: SqlConnection, limit: int) -> tuple[CrudEntry, ...]:
    """The first entries of the queue, regardless of transactions."""
    rows = connection.execute("SELECT id, tx_id, data FROM ps_crud ORDER BY id LIMIT ?", (limit,))
    return tuple(decode_entry(row["id"], row["tx_id"], row["data"]) for row in rows)


def stats(connection: SqlConnection) -> UploadQueueStats:
    """How much is waiting, and since when."""
    row = connection.first(
        "SELECT count(*) AS entries, count(DISTINCT tx_id) + count(*) FILTER (WHERE tx_id IS NULL) AS transactions,"
        " ifnull(sum(length(CAST(data AS BLOB))), 0) AS bytes FROM ps_crud"
    )
    assert row is not None
    return UploadQueueStats(row["entries"], row["transactions"], row["bytes"], oldest_at(connection))


def complete(connection: SqlConnection, up_to: int, checkpoint: int | None, insert_only: Collection[str] = ()) -> None:
    """Remove all entries up to the number `up_to`: the backend has answered for them.

    Args:
        connection: inside the transaction that this is part of.
        up_to: the number of an entry.
        checkpoint: a custom write checkpoint from the backend; the gate's target once the queue is empty.
        insert_only: tables whose writes do not come back.
    """
    conflicts.remember_uploaded(connection, up_to, insert_only)
    connection.execute("DELETE FROM ps_crud WHERE id <= ?", (up_to,))
    connection.execute("DELETE FROM ps_retried_crud WHERE id <= ?", (up_to,))
    connection.execute(
        "DELETE FROM ps_crud_times WHERE id < (SELECT max(id) FROM ps_crud_times WHERE id <= ?)", (up_to + 1,)
    )
    if checkpoint is None:
        connection.execute("DELETE FROM ps_kv WHERE key = ?", (CUSTOM_CHECKPOINT,))
    else:
        put_integer(connection, CUSTOM_CHECKPOINT, checkpoint)
        end_without_request(connection)


def end_without_request(connection: SqlConnection) -> None:
    """Make the gate wait for the last custom checkpoint, if the queue is empty and the backend uses them.

    The service has no others then. It includes everything uploaded, even if what came after it was rejected.
    """
    checkpoint = get_integer(connection, CUSTOM_CHECKPOINT)
    if checkpoint is not None and connection.value("SELECT 1 FROM ps_crud LIMIT 1") is None:
        connection.execute(
            "UPDATE ps_kv SET value = ? WHERE key = ? AND CAST(value AS INTEGER) = ?",
            (checkpoint, TARGET, TARGET_UNKNOWN),
        )


def enqueue(connection: SqlConnection, data: Sequence[str], insert_only: Collection[str] = ()) -> int:
    """Add entries as one transaction, as the triggers would. Returns the number of the first.

    Entries of `insert_only` tables do not hold back downloaded data.
    """
    transaction_id = connection.value(
        "UPDATE ps_tx SET current_tx = next_tx, next_tx = next_tx + 1 WHERE id = 1 RETURNING current_tx"
    )
    first = _last_ever(connection) + 1
    connection.execute_many("INSERT INTO ps_crud(tx_id, data) VALUES (?, ?)", ((transaction_id, text) for text in data))
    entries = [decode_entry(0, transaction_id, text) for text in data]
    rows = [(entry.table, entry.id) for entry in entries if entry.table not in insert_only]
    if not rows:
        return first
    connection.execute_many("INSERT OR IGNORE INTO ps_updated_rows(row_type, row_id) VALUES (?, ?)", rows)
    connection.execute("DELETE FROM ps_kv WHERE key IN (?, ?)", (LAST_SEEN, LAST_APPLIED))
    put_integer(connection, TARGET, TARGET_UNKNOWN)
    return first


def next_checkpoint_request_id(connection: SqlConnection, at_least: int = 0) -> int:
    """Generate the id for a checkpoint request, greater than all earlier ones and than `at_least`.

    It is stored before it is sent, so that an id whose response was lost is never used again: the service may have
    reached it before the writes that a second use would represent.
    """
    request_id = max(get_integer(connection, LAST_REQUESTED) or 0, at_least) + 1
    put_integer(connection, LAST_REQUESTED, request_id)
    return request_id


def set_target(connection: SqlConnection, checkpoint_request_id: int, last_ever: int) -> bool:
    """Make a requested checkpoint the gate's target, unless something was written since `last_ever` was read.

    Returns whether it was set.
    """
    if connection.value("SELECT count(*) FROM ps_crud") or _last_ever(connection) != last_ever:
        return False
    if checkpoint_request_id > (get_integer(connection, LAST_REQUESTED) or 0):
        put_integer(connection, LAST_REQUESTED, checkpoint_request_id)
    put_integer(connection, TARGET, checkpoint_request_id)
    return True


def target(connection: SqlConnection) -> int | None:
    """The checkpoint request that the gate is waiting for, or None."""
    return get_integer(connection, TARGET)


def request_again(connection: SqlConnection, instead_of: int) -> None:
    """Make a checkpoint be requested again if the gate is still waiting for `instead_of`, unknown to the service."""
    connection.execute(
        "UPDATE ps_kv SET value = ? WHERE key = ? AND CAST(value AS INTEGER) = ?", (TARGET_UNKNOWN, TARGET, instead_of)
    )


def is_gate_open(connection: SqlConnection) -> bool:
    """Whether downloaded data may be published: nothing is waiting, and everything uploaded has come back."""
    if connection.value("SELECT 1 FROM ps_crud LIMIT 1"):
        return False
    target = get_integer(connection, TARGET)
    return target is None or target <= (get_integer(connection, LAST_SEEN) or 0)


def _last_ever(connection: SqlConnection) -> int:
    return connection.value("SELECT seq FROM sqlite_sequence WHERE name = 'ps_crud'") or 0
