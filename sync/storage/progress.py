"""How much of a checkpoint the file already contains before its data arrives.

Owns reading the buckets' operation counts, and resetting them when they cannot be right. The arithmetic belongs to
`sync.status.progress`; `oplog` and `publish` update the counts.
"""

from __future__ import annotations

from sync.protocol.checkpoints import TrackedCheckpoint
from sync.sqlite.sql_connection import SqlConnection
from sync.status.progress import BucketCounts, TargetProgress
from sync.storage import staging, subscriptions
from sync.storage.subscriptions import RequestedSubscriptions


def begin_target(
    connection: SqlConnection, target: TrackedCheckpoint, requested: RequestedSubscriptions
) -> TargetProgress:
    """Count what is already there of a checkpoint, from a broken connection or an earlier checkpoint.

    A bucket that the service compacted may have fewer operations than were received: then there is nothing to
    compare with, and the counts of all buckets start at zero, as in PowerSync's own clients.
    """
    progress = read_target(connection, target, requested)
    if progress is None:
        connection.execute("UPDATE ps_buckets SET count_since_last = 0, count_at_last = 0")
        staging.reset_counts(connection)
        progress = read_target(connection, target, requested)
        assert progress is not None
    return progress


def read_target(
    connection: SqlConnection, target: TrackedCheckpoint, requested: RequestedSubscriptions
) -> TargetProgress | None:
    """Like `begin_target`, without writing; None if the counts would have to start at zero."""
    staged = staging.counts(connection)
    counts = {
        row["name"]: BucketCounts(row["count_at_last"], staged.get(str(row["name"]), int(row["count_since_last"])))
        for row in connection.execute("SELECT name, count_at_last, count_since_last FROM ps_buckets")
        if row["name"] in target.buckets
    }
    if any(count.at_last + count.since_last > target.buckets[name].count for name, count in counts.items()):
        return None
    return TargetProgress(target.buckets.values(), counts, subscriptions.in_target(connection, target, requested))
