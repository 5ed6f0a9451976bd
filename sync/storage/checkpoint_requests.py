"""A checkpoint that the app asks for, and what the file tells of its way: uploaded, requested, published.

Owns how such a wish is written into the file, so that whichever process syncs fulfils it, and how any process sees
that it was. The checkpoint ids themselves, and their exchange with the service, are `upload_queue`'s.
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
        queue_length: local changes that wait for the backend's answer.
        target: the checkpoint request that the gate waits for; None if it waits for none, or if none was made yet.
        is_target_unknown: local changes wait for which no checkpoint was requested yet.
        seen: the newest checkpoint request that a complete checkpoint included, or None.
        applied: the newest one that was published, or None.
        is_open: nothing is waited for.
    """

    queue_length: int
    target: int | None
    is_target_unknown: bool
    seen: int | None
    applied: int | None
    is_open: bool


def concerns(changed: frozenset[str] | None) -> bool:
    """Whether a commit that changed these tables (None: unknown) may have brought a wait to its end."""
    return changed is None or not _TABLES.isdisjoint(changed)


def waiting_entries(connection: SqlConnection) -> tuple[int, int]:
    """The numbers of the first change that waits and of the last one; if none does, the first is behind the last."""
    state = upload_queue.queue_state(connection)
    return state.last_ever + 1 if state.head is None else state.head, state.last_ever


def is_uploaded(connection: SqlConnection, up_to: int) -> bool:
    """Whether no change up to this number waits any more."""
    head = upload_queue.queue_state(connection).head
    return head is None or head > up_to


def request(connection: SqlConnection) -> int:
    """Have a checkpoint requested, after the uploads that wait; returns what `is_published` compares with.

    It closes the gate as a local change does, so that nothing is published before the service has answered the
    request. Like a change it draws a number of the queue: a request that is under way at this very moment was made
    too early, and is found out by that (`upload_queue.set_target`).
    """
    connection.execute(
        "INSERT INTO sqlite_sequence(name, seq) SELECT 'ps_crud', 0"
        " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'ps_crud')"
    )
    connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'ps_crud'")
    put_integer(connection, TARGET, TARGET_UNKNOWN)
    return publish.last_synced_at(connection) or 0


def is_published(connection: SqlConnection, requested_at: int) -> bool:
    """Whether the checkpoint of a request is published: the gate was closed until it came, and the time only grows."""
    return (publish.last_synced_at(connection) or 0) > requested_at


def gate(connection: SqlConnection) -> SyncGate:
    """How queue and gate stand."""
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
