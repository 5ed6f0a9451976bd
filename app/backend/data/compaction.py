"""Compaction: keeps the size of the operation log proportional to the number of rows, however often they change.

Removes operations that later ones have superseded from the table `bucket_ops`, in the same way as the PowerSync
Service: a superseded operation becomes a MOVE, which keeps only its checksum, and all operations before the first PUT
become one CLEAR. In addition, if a bucket has too many MOVEs between its PUTs, its oldest rows are written again at its
end. MOVE and CLEAR do not change the checksum of a bucket, so clients can continue from any position.

`target_op` is the newest operation that superseded others: a client that has downloaded only up to an earlier operation
must not consider its data complete. Plain SQL, in small steps, on a connection whose transaction belongs to the caller.
"""

from __future__ import annotations

import sqlite3
import time
from typing import NamedTuple

STEP_OPS = 1000
_UINT32 = 0x1_0000_0000
_SPARE_OPS = 8
_SPARE_MOVES = 64
_MAX_CLEARED_OPS = 5000
_MIN_CLEARED_OPS = 2
_MAKE_MOVE = (
    "UPDATE bucket_ops SET op = 'MOVE', object_type = NULL, object_id = NULL, subkey = NULL, data = NULL, target_op = ?"
    " WHERE op_id = ?"
)


class Position(NamedTuple):
    """The progress in a bucket: everything up to op id `after` is compacted and contains `kept` PUTs."""

    bucket: int
    after: int = 0
    kept: int = 0


def compact(connection: sqlite3.Connection, position: Position | None, *, seconds: float) -> Position | None:
    """Compact for about `seconds`, starting at `position` or at the first bucket that needs it.

    Returns the position to continue from, or None if no bucket needs compacting.
    """
    end = time.monotonic() + seconds
    while True:
        position = position or _next_bucket(connection)
        if position is None:
            return None
        position = _step(connection, position)
        if time.monotonic() > end:
            return position or _next_bucket(connection)


def _next_bucket(connection: sqlite3.Connection) -> Position | None:
    """The first bucket that needs compacting: its log is more than twice as long as its rows require."""
    row = connection.execute("SELECT id FROM buckets WHERE count >= compact_at ORDER BY id LIMIT 1").fetchone()
    return None if row is None else Position(row[0])


def _step(connection: sqlite3.Connection, position: Position) -> Position | None:
    """Compact the next few thousand operations of a bucket; returns None when the bucket is finished."""
    bucket, after, kept = position
    if _clear(connection, bucket, after, limit=_MAX_CLEARED_OPS):
        return position
    rows = connection.execute(
        "SELECT op_id FROM bucket_ops WHERE bucket = ? AND op_id > ? ORDER BY op_id LIMIT ?", [bucket, after, STEP_OPS]
    ).fetchall()
    if rows:
        up_to: int = rows[-1][0]
        _move(connection, bucket, after, up_to)
        (puts,) = connection.execute(
            "SELECT count(*) FROM bucket_ops WHERE bucket = ? AND op_id > ? AND op_id <= ? AND op = 'PUT'",
            [bucket, after, up_to],
        ).fetchone()
        return Position(bucket, up_to, kept + puts)
    (count,) = connection.execute("SELECT count FROM buckets WHERE id = ?", [bucket]).fetchone()
    if kept and count > 2 * kept + _SPARE_MOVES:
        return Position(bucket, _rewrite_oldest(connection, bucket), kept)
    connection.execute("UPDATE buckets SET compact_at = ? WHERE id = ?", [2 * count + _SPARE_OPS, bucket])
    return None


def forget_past(connection: sqlite3.Connection, bucket: int) -> None:
    """Compact a whole bucket in one step."""
    (last_op,) = connection.execute("SELECT last_op FROM buckets WHERE id = ?", [bucket]).fetchone()
    _move(connection, bucket, 0, last_op)
    _clear(connection, bucket, last_op)


def forget_lookups(connection: sqlite3.Connection, up_to: int) -> None:
    """Delete the recorded lookup changes up to an op id.

    Streams that were open have already processed them, and new streams evaluate their lookups themselves.
    """
    connection.execute("DELETE FROM bucket_ops WHERE bucket = 0 AND op_id <= ?", [up_to])


def _move(connection: sqlite3.Connection, bucket: int, after: int, up_to: int) -> None:
    """Turn the operations with `after` < id ≤ `up_to` that a later one on the same row supersedes into MOVEs."""
    newest = (
        "(SELECT max(n.op_id) FROM bucket_ops n WHERE n.bucket = o.bucket AND n.object_id = o.object_id"
        " AND n.object_type = o.object_type)"
    )
    superseded = connection.execute(
        f"SELECT op_id, newest FROM (SELECT op_id, {newest} newest FROM bucket_ops o"
        " WHERE bucket = ? AND op_id > ? AND op_id <= ? AND object_id IS NOT NULL) WHERE newest > op_id",
        [bucket, after, up_to],
    ).fetchall()
    connection.executemany(_MAKE_MOVE, [(newest, op_id) for op_id, newest in superseded])


def _clear(connection: sqlite3.Connection, bucket: int, up_to: int, *, limit: int = -1) -> bool:
    """Merge the operations before the first PUT, up to `up_to`, into one CLEAR; False if there is nothing to do."""
    rows = connection.execute(
        "SELECT op_id, checksum, target_op FROM bucket_ops WHERE bucket = :bucket AND op_id <= :up_to AND op_id <"
        " coalesce((SELECT min(op_id) FROM bucket_ops WHERE bucket = :bucket AND op = 'PUT'), :up_to + 1)"
        " ORDER BY op_id LIMIT :limit",
        {"bucket": bucket, "up_to": up_to, "limit": limit},
    ).fetchall()
    if len(rows) < _MIN_CLEARED_OPS:
        return False
    last = rows[-1][0]
    checksum = sum(row[1] for row in rows) % _UINT32
    target = max((row[2] for row in rows if row[2] is not None), default=None)
    connection.execute("DELETE FROM bucket_ops WHERE bucket = ? AND op_id < ?", [bucket, last])
    connection.execute(
        "UPDATE bucket_ops SET op = 'CLEAR', object_type = NULL, object_id = NULL, subkey = NULL, data = NULL,"
        " checksum = ?, target_op = ? WHERE op_id = ?",
        [checksum, target, last],
    )
    connection.execute("UPDATE buckets SET count = count - ? WHERE id = ?", [len(rows) - 1, bucket])
    return True


def _rewrite_oldest(connection: sqlite3.Connection, bucket: int) -> int:
    """Write the oldest rows again at the end of the bucket, so that everything before the next one can be cleared.

    Returns the id of the last operation.
    """
    rows = connection.execute(
        "SELECT op_id, object_type, object_id, subkey, checksum, data FROM bucket_ops WHERE bucket = ? AND op = 'PUT'"
        " ORDER BY op_id LIMIT ?",
        [bucket, STEP_OPS],
    ).fetchall()
    op_id = 0
    for old, *row in rows:
        op_id = (
            connection.execute(
                "INSERT INTO bucket_ops (bucket, op, object_type, object_id, subkey, checksum, data)"
                " VALUES (?, 'PUT', ?, ?, ?, ?, ?)",
                [bucket, *row],
            ).lastrowid
            or 0
        )
        connection.execute(_MAKE_MOVE, [op_id, old])
    connection.execute(
        "UPDATE buckets SET checksum = (checksum + ?) % ?, count = count + ?, last_op = ? WHERE id = ?",
        [sum(row[4] for row in rows), _UINT32, len(rows), op_id, bucket],
    )
    return op_id
