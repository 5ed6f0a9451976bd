"""Publishing a checkpoint: validation, the gate, and making downloaded rows visible, all or nothing.

Owns the transition from oplog to data tables, and `ps_sync_state`. Must not know how operations arrive (`oplog`) nor
how the queue is uploaded (`upload_queue`); of the latter it only asks whether the gate is open.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum

from sync.protocol.checkpoints import TrackedCheckpoint
from sync.protocol.checksums import unsigned32
from sync.statements import Statements
from sync.storage import conflicts
from sync.storage.key_values import put_integer
from sync.storage.names import COMPLETE_SYNC_PRIORITY, DATA_PREFIX, LAST_APPLIED, LAST_SEEN, quoted
from sync.storage.oplog import delete_buckets
from sync.storage.upload_queue import is_gate_open
from sync.storage.views import synced_tables

HIGHEST_PRIORITY = 0
"""Buckets of this priority are published even while local writes wait."""


class Outcome(Enum):
    """What became of a checkpoint."""

    PUBLISHED = "published"
    HELD_BACK = "held back"
    """Local writes wait for the backend: the user's own edits must not flicker back."""
    CHECKSUM_MISMATCH = "checksum mismatch"
    """The buckets at fault were deleted, so that they download afresh."""


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What became of a checkpoint, when (µs since the epoch), and which buckets were at fault if any."""

    outcome: Outcome
    at: int = 0
    mismatched_buckets: tuple[str, ...] = ()


def publish(statements: Statements, checkpoint: TrackedCheckpoint, priority: int | None) -> PublishResult:
    """Validate and publish a checkpoint, or with `priority` its part of that priority and above.

    Must run in one transaction with everything else that the line caused.
    """
    mismatched = _mismatched_buckets(statements, checkpoint, priority)
    if mismatched:
        delete_buckets(statements, mismatched)
        return PublishResult(Outcome.CHECKSUM_MISMATCH, mismatched_buckets=mismatched)

    names = [bucket.bucket for bucket in checkpoint.buckets_within(priority)]
    statements.execute_many(
        "UPDATE ps_buckets SET last_op = ? WHERE name = ?", ((checkpoint.last_op_id, name) for name in names)
    )
    if priority is None and checkpoint.write_checkpoint is not None:
        put_integer(statements, LAST_SEEN, checkpoint.write_checkpoint)
    if priority != HIGHEST_PRIORITY and not is_gate_open(statements):
        return PublishResult(Outcome.HELD_BACK)

    if priority is None:
        _collect_all_changed_rows(statements)
        involved = ""
    else:
        _collect_rows_changed_in(statements, names)
        involved = "AND r.bucket IN (SELECT id FROM temp.involved_buckets)"
    _write_changed_rows(statements, involved)
    now = time.time_ns() // 1000
    _mark_published(statements, checkpoint, priority, names, now)
    return PublishResult(Outcome.PUBLISHED, now)


def _mismatched_buckets(statements: Statements, checkpoint: TrackedCheckpoint, priority: int | None) -> tuple[str, ...]:
    sums = {
        row["name"]: row["checksum"]
        for row in statements.execute("SELECT name, add_checksum + op_checksum AS checksum FROM ps_buckets")
    }
    return tuple(
        bucket.bucket
        for bucket in checkpoint.buckets_within(priority)
        if unsigned32(sums.get(bucket.bucket, 0)) != unsigned32(bucket.checksum)
    )


def _collect_all_changed_rows(statements: Statements) -> None:
    _empty_temporary_tables(statements)
    statements.execute(
        "INSERT OR IGNORE INTO temp.changed_rows(row_type, row_id)"
        " SELECT o.row_type, o.row_id FROM ps_buckets b CROSS JOIN ps_oplog o"
        " ON o.bucket = b.id AND o.op_id > b.last_applied_op"
        " UNION ALL SELECT row_type, row_id FROM ps_updated_rows"
    )


def _collect_rows_changed_in(statements: Statements, bucket_names: list[str]) -> None:
    _empty_temporary_tables(statements)
    statements.execute_many(
        "INSERT INTO temp.involved_buckets(id) SELECT id FROM ps_buckets WHERE name = ?",
        ((name,) for name in bucket_names),
    )
    statements.execute(
        "INSERT OR IGNORE INTO temp.changed_rows(row_type, row_id)"
        " SELECT o.row_type, o.row_id FROM ps_buckets b CROSS JOIN ps_oplog o"
        " ON o.bucket = b.id AND o.op_id > b.last_applied_op WHERE b.id IN (SELECT id FROM temp.involved_buckets)"
    )


def _empty_temporary_tables(statements: Statements) -> None:
    statements.execute(
        "CREATE TEMP TABLE IF NOT EXISTS changed_rows("
        "row_type TEXT NOT NULL, row_id TEXT NOT NULL, PRIMARY KEY (row_type, row_id)) WITHOUT ROWID"
    )
    statements.execute("CREATE TEMP TABLE IF NOT EXISTS involved_buckets(id INTEGER PRIMARY KEY)")
    statements.execute("DELETE FROM temp.changed_rows")
    statements.execute("DELETE FROM temp.involved_buckets")


def _write_changed_rows(statements: Statements, involved: str) -> None:
    """Give every changed row the data of its newest operation over all (or the involved) buckets, or delete it."""
    operations = f"FROM ps_oplog r WHERE r.row_type = c.row_type AND r.row_id = c.row_id {involved}"
    newest = (
        "FROM temp.changed_rows c CROSS JOIN ps_oplog o ON o.row_type = c.row_type AND o.row_id = c.row_id"
        f" AND o.op_id = (SELECT max(r.op_id) {operations}) AND o.data IS NOT NULL WHERE c.row_type = ?"
    )
    gone = (
        "SELECT c.row_id FROM temp.changed_rows c WHERE c.row_type = ?"
        f" AND (SELECT iif(max(r.op_id), r.data, NULL) {operations}) IS NULL"
    )
    known = synced_tables(statements)
    for row in statements.execute("SELECT DISTINCT row_type FROM temp.changed_rows"):
        name: str = row["row_type"]
        if name in known:
            table = quoted(DATA_PREFIX + name)
            statements.execute(f"INSERT OR REPLACE INTO {table}(id, data) SELECT o.row_id, o.data {newest}", (name,))
            statements.execute(f"DELETE FROM {table} WHERE id IN ({gone})", (name,))
        else:
            statements.execute(
                f"INSERT OR REPLACE INTO ps_untyped(type, id, data) SELECT o.row_type, o.row_id, o.data {newest}",
                (name,),
            )
            statements.execute(f"DELETE FROM ps_untyped WHERE type = ? AND id IN ({gone})", (name, name))


def _mark_published(
    statements: Statements, checkpoint: TrackedCheckpoint, priority: int | None, names: list[str], now: int
) -> None:
    if priority is None:
        statements.execute("UPDATE ps_buckets SET last_applied_op = last_op WHERE last_applied_op <> last_op")
        statements.execute("DELETE FROM ps_updated_rows")
        statements.execute_many(
            "UPDATE ps_buckets SET count_since_last = 0, count_at_last = ? WHERE name = ?",
            ((bucket.count, bucket.bucket) for bucket in checkpoint.buckets.values()),
        )
        if checkpoint.write_checkpoint is not None:
            put_integer(statements, LAST_APPLIED, checkpoint.write_checkpoint)
        conflicts.find(statements)
    else:
        statements.execute_many(
            "UPDATE ps_buckets SET last_applied_op = last_op WHERE last_applied_op <> last_op AND name = ?",
            ((name,) for name in names),
        )
    state_row = COMPLETE_SYNC_PRIORITY if priority is None else priority
    statements.execute("DELETE FROM ps_sync_state WHERE priority < ?", (state_row,))
    statements.execute("INSERT OR REPLACE INTO ps_sync_state(priority, last_synced_at) VALUES (?, ?)", (state_row, now))


def last_synced_at(statements: Statements) -> int | None:
    """When the last complete checkpoint was published, in µs since the epoch, or None."""
    return statements.value("SELECT last_synced_at FROM ps_sync_state WHERE priority = ?", (COMPLETE_SYNC_PRIORITY,))
