"""The upload queue, and the checkpoint requests that tell when its effects have come back.

Owns `ps_crud`, `ps_tx` and the checkpoint ids in `ps_kv` that make the gate: downloaded data is published only when the
queue is empty and the service has sent a checkpoint that includes everything uploaded so far. Must not do HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from sync.statements import Statements
from sync.storage.key_values import get_integer, put_integer
from sync.storage.names import CLIENT_ID, LAST_REQUESTED, LAST_SEEN, TARGET, TARGET_UNKNOWN

Op = Literal["PUT", "PATCH", "DELETE"]


class CrudEntry(msgspec.Struct, frozen=True):
    """One local change, as it waits in the upload queue.

    Attributes:
        client_id: its number, growing along the queue.
        transaction_id: shared by all entries of one SQLite transaction, or None.
        op: PUT carries the non-null columns, PATCH only those that changed (null for cleared ones), DELETE none.
        table: the synced table's name.
        id: of the row.
        data: column values, or None for DELETE.
        previous_values: what the row held before, where the table tracks it.
        metadata: what the app gave along, where the table tracks it.
    """

    client_id: int
    transaction_id: int | None
    op: Op
    table: str
    id: str
    data: dict[str, Any] | None
    previous_values: dict[str, Any] | None = None
    metadata: str | None = None


class _StoredEntry(msgspec.Struct):
    op: Op
    id: str
    type: str
    data: dict[str, Any] | None = None
    old: dict[str, Any] | None = None
    metadata: str | None = None


_decoder = msgspec.json.Decoder(_StoredEntry)


@dataclass(frozen=True, slots=True)
class QueueState:
    """What the upload loop needs to know about the queue.

    Attributes:
        count: entries that wait.
        head: the first entry's number, or None.
        last_ever: the number of the last entry that was ever made.
        checkpoint_wanted: the queue is empty, and no checkpoint was requested yet for what was uploaded.
        gate_open: downloaded data may be published.
    """

    count: int
    head: int | None
    last_ever: int
    checkpoint_wanted: bool
    gate_open: bool


def has_new_entries(changed: frozenset[str]) -> bool:
    """Whether a commit that changed these tables added to the queue: an entry always draws a transaction id."""
    return "ps_tx" in changed


def end_transaction_id(statements: Statements) -> None:
    """Let the next write draw a new transaction id. Another SQLite client leaves its own behind."""
    statements.execute("UPDATE ps_tx SET current_tx = NULL WHERE current_tx IS NOT NULL")


def client_id(statements: Statements) -> str:
    """This file's id towards the service."""
    return str(statements.value("SELECT value FROM ps_kv WHERE key = ?", (CLIENT_ID,)))


def queue_state(statements: Statements) -> QueueState:
    """How the queue and the gate stand."""
    row = statements.first("SELECT count(*) AS count, min(id) AS head FROM ps_crud")
    assert row is not None
    return QueueState(
        count=row["count"],
        head=row["head"],
        last_ever=_last_ever(statements),
        checkpoint_wanted=row["count"] == 0 and get_integer(statements, TARGET) == TARGET_UNKNOWN,
        gate_open=is_gate_open(statements),
    )


def next_transaction(statements: Statements, after: int) -> tuple[CrudEntry, ...]:
    """All entries of the first transaction behind the entry `after`; empty if there is none."""
    first = statements.first("SELECT id, tx_id FROM ps_crud WHERE id > ? ORDER BY id LIMIT 1", (after,))
    if first is None:
        return ()
    if first["tx_id"] is None:
        end = first["id"] + 1
    else:
        # SQLite has one writer at a time: the entries of a transaction stand together.
        end = statements.value(
            "SELECT id FROM ps_crud WHERE id > ? AND tx_id IS NOT ? ORDER BY id LIMIT 1", (first["id"], first["tx_id"])
        )
    rows = statements.execute(
        "SELECT id, tx_id, data FROM ps_crud WHERE id > ? AND id < ifnull(?, 9223372036854775807) ORDER BY id",
        (after, end),
    )
    return tuple(_entry(row["id"], row["tx_id"], row["data"]) for row in rows)


def complete(statements: Statements, up_to: int, checkpoint: int | None) -> None:
    """Remove all entries up to the number `up_to`: the backend has answered for them.

    `checkpoint` is a custom write checkpoint that the backend gave; it becomes the gate's target if the queue is
    empty then.
    """
    statements.execute("DELETE FROM ps_crud WHERE id <= ?", (up_to,))
    if checkpoint is not None and statements.value("SELECT count(*) FROM ps_crud") == 0:
        put_integer(statements, TARGET, checkpoint)


def next_checkpoint_request_id(statements: Statements, at_least: int = 0) -> int:
    """Draw the id for a checkpoint request, greater than all drawn before and than `at_least`.

    It is kept before it is sent, so that an id whose answer was lost is never used again: the service may have
    reached it before the writes that a second use would stand for.
    """
    request_id = max(get_integer(statements, LAST_REQUESTED) or 0, at_least) + 1
    put_integer(statements, LAST_REQUESTED, request_id)
    return request_id


def set_target(statements: Statements, checkpoint_request_id: int, last_ever: int) -> bool:
    """Make a requested checkpoint the gate's target, unless a write came since `last_ever` was read.

    Returns whether it was set.
    """
    if statements.value("SELECT count(*) FROM ps_crud") or _last_ever(statements) != last_ever:
        return False
    if checkpoint_request_id > (get_integer(statements, LAST_REQUESTED) or 0):
        put_integer(statements, LAST_REQUESTED, checkpoint_request_id)
    put_integer(statements, TARGET, checkpoint_request_id)
    return True


def target(statements: Statements) -> int | None:
    """The checkpoint request that the gate waits for, or None."""
    return get_integer(statements, TARGET)


def ask_again(statements: Statements, instead_of: int) -> None:
    """Have a checkpoint requested anew if the gate still waits for `instead_of`, which the service does not know."""
    statements.execute(
        "UPDATE ps_kv SET value = ? WHERE key = ? AND CAST(value AS INTEGER) = ?", (TARGET_UNKNOWN, TARGET, instead_of)
    )


def is_gate_open(statements: Statements) -> bool:
    """Whether downloaded data may be published: nothing waits, and all that was uploaded has come back."""
    if statements.value("SELECT 1 FROM ps_crud LIMIT 1"):
        return False
    target = get_integer(statements, TARGET)
    return target is None or target <= (get_integer(statements, LAST_SEEN) or 0)


def _entry(number: int, transaction_id: int | None, data: str) -> CrudEntry:
    stored = _decoder.decode(data)
    return CrudEntry(
        number, transaction_id, stored.op, stored.type, stored.id, stored.data, stored.old, stored.metadata
    )


def _last_ever(statements: Statements) -> int:
    return statements.value("SELECT seq FROM sqlite_sequence WHERE name = 'ps_crud'") or 0
