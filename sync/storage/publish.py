"""Publishing a checkpoint: validation, the gate, and making downloaded rows visible, all or nothing.

Owns the transition from oplog to data tables, and `ps_sync_state`. Must not know how operations arrive (`oplog`) nor
how the queue is uploaded (`upload_queue`); it only asks the latter whether the gate is open.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from sync.protocol.checkpoints import TrackedCheckpoint
from sync.protocol.checksums import unsigned32
from sync.schema.raw_tables import RawTable
from sync.sqlite.sql_connection import Row, SqlConnection
from sync.sqlite.sql_text import quoted
from sync.storage import conflicts, raw_tables, staging
from sync.storage.key_values import put_integer
from sync.storage.names import COMPLETE_SYNC_PRIORITY, DATA_PREFIX, LAST_APPLIED, LAST_SEEN
from sync.storage.oplog import delete_buckets
from sync.storage.upload_queue import is_gate_open
from sync.storage.views import synced_tables

HIGHEST_PRIORITY = 0
"""Buckets of this priority are published even while local writes are waiting."""

FILL_FROM_OPERATIONS = 1000
"""With at least this many new operations, if they are most of the oplog, whole tables are filled, not single rows."""

_SHARE_TO_SORT = 8
"""A table that has at least one in this many of all operations is filled by a scan and a sort."""


class Outcome(Enum):
    """The outcome of publishing a checkpoint."""

    PUBLISHED = "published"
    HELD_BACK = "held back"
    """Local writes are waiting for the backend: the user's own changes must not flicker back."""
    CHECKSUM_MISMATCH = "checksum mismatch"
    """The buckets at fault were deleted, so that they are downloaded again."""


@dataclass(frozen=True, slots=True)
class PublishResult:
    """The outcome for a checkpoint, when (µs since the epoch), and which buckets were at fault, if any."""

    outcome: Outcome
    at: int = 0
    mismatched_buckets: tuple[str, ...] = ()


def publish(
    connection: SqlConnection,
    checkpoint: TrackedCheckpoint,
    priority: int | None,
    raw: Iterable[RawTable] = (),
) -> PublishResult:
    """Validate and publish a checkpoint, or with `priority` its part of that priority and higher ones.

    Must run in one transaction with everything else that the line caused.

    Raises:
        RawTableError: the rows of one of the raw tables `raw` cannot be written.
    """
    staging.settle(connection)
    mismatched = _mismatched_buckets(connection, checkpoint, priority)
    if mismatched:
        delete_buckets(connection, mismatched)
        return PublishResult(Outcome.CHECKSUM_MISMATCH, mismatched_buckets=mismatched)

    names = [bucket.bucket for bucket in checkpoint.buckets_within(priority)]
    connection.execute_many(
        "UPDATE ps_buckets SET last_op = ? WHERE name = ?", ((checkpoint.last_op_id, name) for name in names)
    )
    if priority is None and checkpoint.write_checkpoint is not None:
        put_integer(connection, LAST_SEEN, checkpoint.write_checkpoint)
    if priority != HIGHEST_PRIORITY and not is_gate_open(connection):
        return PublishResult(Outcome.HELD_BACK)

    involved = _note_involved_buckets(connection, None if priority is None else names)
    with raw_tables.sync_operation(connection):
        _publish_rows(connection, involved, {table.name: table for table in raw})
    # The time never goes back, even when the clock does: a later time means a newer checkpoint.
    now = max(time.time_ns() // 1000, (last_synced_at(connection) or 0) + 1)
    _mark_published(connection, checkpoint, priority, names, now)
    return PublishResult(Outcome.PUBLISHED, now)


def _publish_rows(connection: SqlConnection, involved: _Involved, raw: Mapping[str, RawTable]) -> None:
    if _is_mostly_new(connection, involved):
        _fill_tables(connection, involved, raw)
        _note_rows_newer_elsewhere(connection, involved, "SELECT DISTINCT row_type, row_id FROM ps_oplog WHERE TRUE{}")
        _collect_rows_left_to_do(connection, involved, raw)
    else:
        _collect_changed_rows(connection, involved)
        _note_rows_newer_elsewhere(connection, involved, "SELECT row_type, row_id FROM temp.changed_rows")
    _write_changed_rows(connection, involved, raw)


def _mismatched_buckets(
    connection: SqlConnection, checkpoint: TrackedCheckpoint, priority: int | None
) -> tuple[str, ...]:
    sums = {
        row["name"]: row["checksum"]
        for row in connection.execute("SELECT name, add_checksum + op_checksum AS checksum FROM ps_buckets")
    }
    return tuple(
        bucket.bucket
        for bucket in checkpoint.buckets_within(priority)
        if unsigned32(sums.get(bucket.bucket, 0)) != unsigned32(bucket.checksum)
    )


@dataclass(frozen=True, slots=True)
class _Involved:
    """The buckets whose operations are published.

    Attributes:
        all: whether every bucket is; then rows waiting in `ps_updated_rows` are published too.
        only: an SQL condition on a bucket's id (`{}`), to append to others.
    """

    all: bool
    only: str

    def __call__(self, bucket: str) -> str:
        return self.only.format(bucket)


def _note_involved_buckets(connection: SqlConnection, names: list[str] | None) -> _Involved:
    if names is None:
        return _Involved(all=True, only="")
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS involved_buckets(id INTEGER PRIMARY KEY)")
    connection.execute("DELETE FROM temp.involved_buckets")
    connection.execute_many(
        "INSERT INTO temp.involved_buckets(id) SELECT id FROM ps_buckets WHERE name = ?", ((name,) for name in names)
    )
    return _Involved(all=False, only=" AND {} IN (SELECT id FROM temp.involved_buckets)")


def _is_mostly_new(connection: SqlConnection, involved: _Involved) -> bool:
    """Whether publishing all operations of the involved buckets is faster than finding the new ones, and correct.

    For all buckets it is always correct: the tables must match the oplog afterwards. For only some buckets, it is
    correct only if none was applied: else an unchanged row may have been published from a bucket not involved.
    """
    new = connection.value(
        "SELECT count(*) FROM ps_buckets b CROSS JOIN ps_oplog o ON o.bucket = b.id AND o.op_id > b.last_applied_op"
        f" WHERE TRUE{involved('b.id')}"
    )
    # The highest rowid is at least the number of rows, and is found in no time.
    if new < FILL_FROM_OPERATIONS or new * 2 < connection.value("SELECT ifnull(max(rowid), 0) FROM ps_oplog"):
        return False
    applied = f"SELECT 1 FROM ps_buckets WHERE last_applied_op <> 0{involved('id')}"
    return involved.all or connection.first(applied) is None


def _fill_tables(connection: SqlConnection, involved: _Involved, raw: Mapping[str, RawTable]) -> None:
    """Set every row, except in raw tables, to the data of its newest operation in all (or the involved) buckets.

    In the order of the ids, so that indexes grow at their end; of several operations on a row, the last one wins.
    """
    known = synced_tables(connection)
    counts = connection.execute("SELECT row_type, count(*) AS count FROM ps_oplog GROUP BY row_type")
    total = sum(row["count"] for row in counts)
    for row in counts:
        name: str = row["row_type"]
        if name in raw:
            continue
        # Large tables: reading and sorting all operations beats fetching the table's own one by one.
        access = "NOT INDEXED" if row["count"] * _SHARE_TO_SORT >= total else "INDEXED BY ps_oplog_row"
        newest = f"FROM ps_oplog {access} WHERE row_type = ?{involved('bucket')} ORDER BY row_id, op_id"
        if name in known:
            table = DATA_PREFIX + name
            with _without_indexes(connection, table):
                connection.execute(
                    f"INSERT OR REPLACE INTO {quoted(table)}(id, data) SELECT row_id, data {newest}", (name,)
                )
        else:
            connection.execute(
                f"INSERT OR REPLACE INTO ps_untyped(type, id, data) SELECT row_type, row_id, data {newest}", (name,)
            )


@contextmanager
def _without_indexes(connection: SqlConnection, table: str) -> Generator[None]:
    """Build the indexes of the app's schema after the block, in sorted order, if the table is empty now."""
    indexes: list[Row] = []
    if connection.first(f"SELECT 1 FROM {quoted(table)} LIMIT 1") is None:
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql LIKE 'CREATE INDEX%'",
            (table,),
        )
    for index in indexes:
        connection.execute(f"DROP INDEX {quoted(index['name'])}")
    yield
    for index in indexes:
        connection.execute(index["sql"])


def _collect_rows_left_to_do(connection: SqlConnection, involved: _Involved, raw: Mapping[str, RawTable]) -> None:
    """Collect the rows left after filling the tables: those of raw tables, without an operation, or without data."""
    _empty_changed_rows(connection)
    connection.execute_many(
        "INSERT OR IGNORE INTO temp.changed_rows(row_type, row_id)"
        f" SELECT row_type, row_id FROM ps_oplog WHERE row_type = ?{involved('bucket')}",
        ((name,) for name in raw),
    )
    connection.execute(
        "INSERT OR IGNORE INTO temp.changed_rows(row_type, row_id)"
        f" SELECT row_type, row_id FROM ps_oplog NOT INDEXED WHERE data IS NULL{involved('bucket')}"
    )
    if involved.all:
        connection.execute(
            "INSERT OR IGNORE INTO temp.changed_rows(row_type, row_id) SELECT row_type, row_id FROM ps_updated_rows u"
            " WHERE NOT EXISTS (SELECT 1 FROM ps_oplog o WHERE o.row_type = u.row_type AND o.row_id = u.row_id)"
        )


def _collect_changed_rows(connection: SqlConnection, involved: _Involved) -> None:
    _empty_changed_rows(connection)
    connection.execute(
        "INSERT OR IGNORE INTO temp.changed_rows(row_type, row_id)"
        " SELECT o.row_type, o.row_id FROM ps_buckets b CROSS JOIN ps_oplog o"
        f" ON o.bucket = b.id AND o.op_id > b.last_applied_op WHERE TRUE{involved('b.id')}"
    )
    if involved.all:
        connection.execute(
            "INSERT OR IGNORE INTO temp.changed_rows(row_type, row_id) SELECT row_type, row_id FROM ps_updated_rows"
        )


def _note_rows_newer_elsewhere(connection: SqlConnection, involved: _Involved, published: str) -> None:
    """Make the next complete checkpoint publish again each row that is newer in a bucket not involved here.

    What such a bucket has not published yet is published anyway; what it has published before would be skipped.

    Args:
        connection: inside the transaction that this is part of.
        involved: the buckets being published.
        published: a query for the rows that they publish; `{}` stands for the condition on their id.
    """
    if involved.all:
        return
    elsewhere = "NOT IN (SELECT id FROM temp.involved_buckets)"
    if connection.first(f"SELECT 1 FROM ps_buckets WHERE last_applied_op <> 0 AND id {elsewhere}"):
        connection.execute(
            "INSERT OR IGNORE INTO ps_updated_rows(row_type, row_id) SELECT c.row_type, c.row_id"
            f" FROM ({published.format(involved('bucket'))}) c"
            " WHERE EXISTS (SELECT 1 FROM ps_oplog o JOIN ps_buckets b ON b.id = o.bucket"
            " WHERE o.row_type = c.row_type AND o.row_id = c.row_id AND o.op_id <= b.last_applied_op"
            f" AND b.id {elsewhere} AND o.op_id > (SELECT max(r.op_id) FROM ps_oplog r"
            f" WHERE r.row_type = c.row_type AND r.row_id = c.row_id{involved('r.bucket')}))"
        )


def _empty_changed_rows(connection: SqlConnection) -> None:
    connection.execute(
        "CREATE TEMP TABLE IF NOT EXISTS changed_rows("
        "row_type TEXT NOT NULL, row_id TEXT NOT NULL, PRIMARY KEY (row_type, row_id)) WITHOUT ROWID"
    )
    connection.execute("DELETE FROM temp.changed_rows")


def _write_changed_rows(connection: SqlConnection, involved: _Involved, raw: Mapping[str, RawTable]) -> None:
    """Set every changed row to the data of its newest operation in all (or the involved) buckets, or delete it."""
    operations = f"FROM ps_oplog r WHERE r.row_type = c.row_type AND r.row_id = c.row_id{involved('r.bucket')}"
    newest = (
        "FROM temp.changed_rows c CROSS JOIN ps_oplog o ON o.row_type = c.row_type AND o.row_id = c.row_id"
        f" AND o.op_id = (SELECT max(r.op_id) {operations}) AND o.data IS NOT NULL WHERE c.row_type = ?"
    )
    gone = (
        "SELECT c.row_id FROM temp.changed_rows c WHERE c.row_type = ?"
        f" AND (SELECT iif(max(r.op_id), r.data, NULL) {operations}) IS NULL"
    )
    known = synced_tables(connection)
    for row in connection.execute("SELECT DISTINCT row_type FROM temp.changed_rows"):
        name: str = row["row_type"]
        if name in raw and _write_raw_table(connection, raw[name], newest, gone):
            continue
        if name in known:
            table = quoted(DATA_PREFIX + name)
            connection.execute(f"INSERT OR REPLACE INTO {table}(id, data) SELECT o.row_id, o.data {newest}", (name,))
            connection.execute(f"DELETE FROM {table} WHERE id IN ({gone})", (name,))
        else:
            connection.execute(
                f"INSERT OR REPLACE INTO ps_untyped(type, id, data) SELECT o.row_type, o.row_id, o.data {newest}",
                (name,),
            )
            connection.execute(f"DELETE FROM ps_untyped WHERE type = ? AND id IN ({gone})", (name, name))


def _write_raw_table(connection: SqlConnection, table: RawTable, newest: str, gone: str) -> bool:
    # Collected first, in one statement each: reading in steps must not repeat the search with every step.
    for name, select in (("gone", gone), ("put", f"SELECT o.row_id, o.data {newest}")):
        connection.execute(
            f"CREATE TEMP TABLE IF NOT EXISTS raw_{name}(row_id TEXT PRIMARY KEY{', data TEXT' * (name == 'put')})"
        )
        connection.execute(f"DELETE FROM temp.raw_{name}")
        connection.execute(f"INSERT OR REPLACE INTO temp.raw_{name} {select}", (table.name,))
    removed = raw_tables.pages(connection, "SELECT row_id FROM temp.raw_gone WHERE TRUE", (), by="row_id")
    put = raw_tables.pages(connection, "SELECT row_id, data FROM temp.raw_put WHERE TRUE", (), by="row_id")
    return raw_tables.publish(
        connection,
        table,
        gone=(row["row_id"] for row in removed),
        puts=((row["row_id"], row["data"]) for row in put),
    )


def _mark_published(
    connection: SqlConnection, checkpoint: TrackedCheckpoint, priority: int | None, names: list[str], now: int
) -> None:
    if priority is None:
        connection.execute("UPDATE ps_buckets SET last_applied_op = last_op WHERE last_applied_op <> last_op")
        connection.execute("DELETE FROM ps_updated_rows")
        connection.execute_many(
            "UPDATE ps_buckets SET count_since_last = 0, count_at_last = ? WHERE name = ?",
            ((bucket.count, bucket.bucket) for bucket in checkpoint.buckets.values()),
        )
        if checkpoint.write_checkpoint is not None:
            put_integer(connection, LAST_APPLIED, checkpoint.write_checkpoint)
        conflicts.find(connection)
    else:
        connection.execute_many(
            "UPDATE ps_buckets SET last_applied_op = last_op WHERE last_applied_op <> last_op AND name = ?",
            ((name,) for name in names),
        )
    state_row = COMPLETE_SYNC_PRIORITY if priority is None else priority
    connection.execute("DELETE FROM ps_sync_state WHERE priority < ?", (state_row,))
    connection.execute("INSERT OR REPLACE INTO ps_sync_state(priority, last_synced_at) VALUES (?, ?)", (state_row, now))


def last_synced_at(connection: SqlConnection) -> int | None:
    """When the last complete checkpoint was published, in µs since the epoch, or None."""
    return connection.value("SELECT last_synced_at FROM ps_sync_state WHERE priority = ?", (COMPLETE_SYNC_PRIORITY,))


def synced_priorities(connection: SqlConnection) -> tuple[tuple[int | None, int], ...]:
    """When each priority (None: complete) was published, in µs since the epoch, the highest priority first."""
    rows = connection.execute("SELECT priority, last_synced_at FROM ps_sync_state ORDER BY priority")
    return tuple(
        (None if row["priority"] == COMPLETE_SYNC_PRIORITY else row["priority"], row["last_synced_at"]) for row in rows
    )
