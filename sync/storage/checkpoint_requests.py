"""Checkpoint requests of the app, and their state in the file: uploaded, requested, published.

Owns how a request is recorded in the file, so that whichever process syncs fulfils it, and how any process sees that
it was fulfilled. The checkpoint ids themselves, and their exchange with the service, belong to `upload_queue`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sync.sqlite.sql_connection import SqlConnection
from sync.storage import publish, upload_queue
from sync.storage.key_values import get_integer, put_integer
from sync.storage.names import LAST_APPLIED, LAST_SEEN, TARGET, TARGET_UNKNOWN

_TABLES = frozenset({"ps_crud", "ps_kv", "ps_sync_state"})


@dataclass(frozen=True, slots=True)
class SyncGate:
    """Why downloaded data may, or may not, become visible.

    Attributes:
        queue_length: local changes waiting for the backend's answer.
        target: the checkpoint request that the gate is waiting for; None if there is none, or if it was not made yet.
        is_target_unknown: whether the gate is waiting for a checkpoint that was not requested yet.
        seen: the newest checkpoint request that a complete checkpoint included, or None.
        applied: the newest one that was published, or None.
        is_open: whether the gate is waiting for nothing.
    """

    queue_length: int
    target: int | None
    is_target_unknown: bool
    seen: int | None
    applied: int | None
    is_open: bool


def concerns(changed: frozenset[str] | None) -> bool:
    """Whether a commit that changed these tables (None: unknown) may have ended a wait."""
    return changed is None or not _TABLES.isdisjoint(changed)


def waiting_entries(connection: SqlConnection) -> tuple[int, int]:
    """The numbers of the first and the last waiting change; if none is waiting, the first is greater than the last."""
    state = upload_queue.queue_state(connection)
    return state.last_ever + 1 if state.head is None else state.head, state.last_ever


def is_uploaded(connection: SqlConnection, up_to: int) -> bool:
    """Whether no change up to this number is waiting anymore."""
    head = upload_queue.queue_state(connection).head
    return head is None or head > up_to


def request(connection: SqlConnection) -> int:
    """Record that a checkpoint is to be requested after the waiting uploads; returns the argument for `is_published`.

    Closes the gate as a local change does, so that nothing is published before the service has answered the request.
    Like a change, it takes a number of the queue: this is how a request already in flight is recognized as made too
    early (`upload_queue.set_target`).
    """
    connection.execute(
        "INSERT INTO sqlite_sequence(name, seq) SELECT 'ps_crud', 0"
        " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'ps_crud')"
    )
    connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'ps_crud'")
    put_integer(connection, TARGET, TARGET_UNKNOWN)
    return publish.last_synced_at(connection) or 0


def is_published(connection: SqlConnection, requested_at: int) -> bool:
    """Whether a request's checkpoint is published: the gate was closed until it arrived, and the time only grows."""
    return (publish.last_synced_at(connection) or 0) > requested_at


def gate(connection: SqlConnection) -> SyncGate:
    """The state of the queue and the gate."""
    state = upload_queue.queue_state(connection)
    target = upload_queue.target(connection)
    return SyncGate(
        state.count,
        None if target == TARGET_UNKNOWN else target,
        target == TARGET_UNKNOWN,
        get_integer(connection, LAST_SEEN),
        get_integer(connection, LAST_APPLIED),
        state.gate_open,
    )
