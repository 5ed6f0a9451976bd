"""Compaction: what the operation log holds stays in proportion to the rows, whatever happens to them.

Takes out of the table `bucket_ops` what later operations have made superfluous, as the PowerSync Service does: such
an operation becomes a MOVE, which keeps only its checksum, and all that stand before the first PUT become one CLEAR.
Unlike there, a bucket in which too few PUTs stand between too many MOVEs is put in order: its oldest rows are put again
at its end. No checksum of a bucket changes by MOVE and CLEAR, so clients go on from wherever they are.

`target_op` remembers the newest operation that made others superfluous: who downloads up to an earlier one must not
take what he got for complete. Plain SQL on a connection whose transaction the caller holds, in small steps.
"""

from __future__ import annotations

import sqlite3
import time
from typing import NamedTuple

STEP_OPS = 1000
_UINT32 = 0x1_0000_0000
_SPARE_OPS = 8
_SPARE_MOVES = 64
_CLEARED_OPS = 5000
_WORTH_CLEARING = 2
_MAKE_MOVE = (
    "UPDATE bucket_ops SET op = 'MOVE', object_type = NULL, object_id = NULL, subkey = NULL, data = NULL, target_op = ?"
    " WHERE op_id = ?"
)


class Position(NamedTuple):
    """How far the compaction of a bucket is: all up to `after` is compact; `kept` rows are put up to there."""

    bucket: int
    after: int = 0
    kept: int = 0


def compact(connection: sqlite3.Connection, position: Position | None, *, seconds: float) -> Position | None:
    """Compact for about `seconds` from `position` on, or from the first bucket that is worth it.

    Gives where to go on; None if nothing is worth it any more.
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
    """A bucket that is worth compacting: its log is more than twice as long as its rows need it to be."""
    row = connection.execute("SELECT id FROM buckets WHERE count >= compact_at ORDER BY id LIMIT 1").fetchone()
    return None if row is None else Position(row[0])


def _step(connection: sqlite3.Connection, position: Position) -> Position | None:
    """Compact the next few thousand operations of a bucket; None if that was all of it."""
    bucket, after, kept = position
    if _clear(connection, bucket, after, limit=_CLEARED_OPS):
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
        return Position(bucket, _put_again(connection, bucket), kept)
    connection.execute("UPDATE buckets SET compact_at = ? WHERE id = ?", [2 * count + _SPARE_OPS, bucket])
    return None


def forget_past(connection: sqlite3.Connection, bucket: int) -> None:
    """Compact a bucket at once and whole."""
    (last_op,) = connection.execute("SELECT last_op FROM buckets WHERE id = ?", [bucket]).fetchone()
    _move(connection, bucket, 0, last_op)
    _clear(connection, bucket, last_op)


def forget_lookups(connection: sqlite3.Connection, up_to: int) -> None:
    """Drop what was told of lookups: who was connected then knows it, and who comes later asks anew."""
    connection.execute("DELETE FROM bucket_ops WHERE bucket = 0 AND op_id <= ?", [up_to])


def _move(connection: sqlite3.Connection, bucket: int, after: int, up_to: int) -> None:
    """Make MOVEs of the operations after `after` up to `up_to` that later ones on the same row follow."""
    newest = (
        "(SELECT max(n.op_id) FROM bucket_ops n WHERE n.bucket = o.bucket AND n.object_id = o.object_id"
        " AND n.object_type = o.object_type)"
    )
    superfluous = connection.execute(
        f"SELECT op_id, newest FROM (SELECT op_id, {newest} newest FROM bucket_ops o"
        " WHERE bucket = ? AND op_id > ? AND op_id <= ? AND object_id IS NOT NULL) WHERE newest > op_id",
        [bucket, after, up_to],
    ).fetchall()
    connection.executemany(_MAKE_MOVE, [(newest, op_id) for op_id, newest in superfluous])


def _clear(connection: sqlite3.Connection, bucket: int, up_to: int, *, limit: int = -1) -> bool:
    """Make one CLEAR of what stands before the first PUT, as far as `up_to`; False if there is nothing to do."""
    rows = connection.execute(
        "SELECT op_id, checksum, target_op FROM bucket_ops WHERE bucket = :bucket AND op_id <= :up_to AND op_id <"
        " coalesce((SELECT min(op_id) FROM bucket_ops WHERE bucket = :bucket AND op = 'PUT'), :up_to + 1)"
        " ORDER BY op_id LIMIT :limit",
        {"bucket": bucket, "up_to": up_to, "limit": limit},
    ).fetchall()
    if len(rows) < _WORTH_CLEARING:
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


def _put_again(connection: sqlite3.Connection, bucket: int) -> int:
    """Put the oldest rows once more at the end of the bucket, so that all before the next one can be cleared.

    Gives the id of the last operation.
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
