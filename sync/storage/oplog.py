"""Storing downloaded operations: the oplog and the buckets' checksums.

Owns `ps_oplog`, and everything in `ps_buckets` that downloading changes. Large downloads go through `staging`. Whether
and when the data becomes visible is decided elsewhere (`publish`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sync.protocol.checksums import signed32
from sync.protocol.lines import DataLine, Operation
from sync.sqlite.sql_connection import SqlConnection
from sync.storage import staging
from sync.storage.names import operation_key

_KEYS_PER_STATEMENT = 100

_NOTE_ROWS_OF_BUCKET = (
    "INSERT OR IGNORE INTO ps_updated_rows(row_type, row_id)"
    " SELECT row_type, row_id FROM ps_oplog WHERE bucket = ? ORDER BY row_type, row_id"
)


@dataclass(frozen=True, slots=True)
class ReceivedData:
    """A data line and its length on the wire in bytes."""

    line: DataLine
    size: int


def take_in(connection: SqlConnection, received: Iterable[ReceivedData], *, more_follows: bool = False) -> None:
    """Add the operations of data lines to the oplog, in order.

    With `more_follows`, this is part of a large download: whatever can be is staged, until `staging.settle`.

    Raises:
        ProtocolError: an operation lacks something that its kind requires.
    """
    by_bucket: dict[str, list[ReceivedData]] = {}
    for data in received:
        by_bucket.setdefault(data.line.bucket, []).append(data)
    may_stage = more_follows or staging.is_in_use(connection)
    for name, lines in by_bucket.items():
        operations = [operation for data in lines for operation in data.line.data]
        _take_in_bucket(connection, name, operations, sum(data.size for data in lines), may_stage=may_stage)


def bucket_positions(connection: SqlConnection) -> dict[str, int]:
    """The buckets in the file, each with its last operation."""
    rows = connection.execute("SELECT name, last_op FROM ps_buckets WHERE pending_delete = 0 ORDER BY name")
    return {row["name"]: row["last_op"] for row in rows} | staging.positions(connection)


def delete_buckets(connection: SqlConnection, names: Collection[str]) -> None:
    """Delete buckets; their rows are published again from what other buckets still contain."""
    if not names:
        return
    staging.settle(connection)
    buckets = connection.execute("SELECT id, name FROM ps_buckets")
    deleted = [(row["id"],) for row in buckets if row["name"] in names]
    connection.execute_many(_NOTE_ROWS_OF_BUCKET, deleted)
    if len(deleted) == len(buckets):
        connection.execute("DELETE FROM ps_oplog")  # all at once, which SQLite does without visiting the rows
    else:
        connection.execute_many("DELETE FROM ps_oplog WHERE bucket = ?", deleted)
    connection.execute_many("DELETE FROM ps_buckets WHERE id = ?", deleted)


def take_in_undamaged(connection: SqlConnection, received: Iterable[ReceivedData]) -> list[str]:
    """Add operations to the oplog, but delete the buckets in which a row is not valid JSON; returns their names."""
    take_in(connection, received)
    staging.settle(connection)
    found = connection.execute(
        "SELECT DISTINCT b.name FROM ps_oplog o JOIN ps_buckets b ON b.id = o.bucket WHERE NOT json_valid(o.data)"
        " ORDER BY 1"
    )
    names = [row["name"] for row in found]
    delete_buckets(connection, names)
    return names


@dataclass(slots=True)
class _Intake:
    """The result of a run of operations, before the file is read.

    Attributes:
        puts: the last PUT of each key.
        touched: all keys that were put or removed.
        taken_back: rows whose PUT in this same run was removed.
        removed_first: keys whose first operation in this run is a REMOVE: what it removes, if anything, is in the
            file.
    """

    puts: dict[str, Operation] = field(default_factory=dict[str, Operation])
    touched: set[str] = field(default_factory=set[str])
    taken_back: list[Operation] = field(default_factory=list[Operation])
    removed_first: dict[str, Operation] = field(default_factory=dict[str, Operation])
    add_checksum: int = 0
    op_checksum: int = 0

    def take(self, operation: Operation) -> None:
        if operation.op == "MOVE":
            self.add_checksum += operation.checksum
            return
        key = operation_key(operation)
        superseded = self.puts.pop(key, None)
        if superseded is not None:
            self.add_checksum += superseded.checksum
            self.op_checksum -= superseded.checksum
        if operation.op == "PUT":
            self.puts[key] = operation
            self.op_checksum += operation.checksum
        else:
            self.add_checksum += operation.checksum
            if superseded is not None:
                self.taken_back.append(operation)
            elif key not in self.touched:
                self.removed_first[key] = operation
        self.touched.add(key)


def _take_in_bucket(
    connection: SqlConnection, name: str, operations: Sequence[Operation], size: int, *, may_stage: bool
) -> None:
    bucket: int = connection.value(
        "INSERT INTO ps_buckets(name) VALUES (?) ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id",
        (name,),
    )
    if may_stage:
        # After a CLEAR the bucket is as good as new: what follows can be staged.
        begin = max((at for at, operation in enumerate(operations, 1) if operation.op == "CLEAR"), default=0)
        if begin:
            staging.settle(connection)
            _add(connection, bucket, operations[:begin], size)
            operations, size = operations[begin:], 0
        if operations and staging.stage(connection, bucket, operations, size):
            return
    if operations:
        _add(connection, bucket, operations, size)


def _add(connection: SqlConnection, bucket: int, operations: Sequence[Operation], size: int) -> None:
    row = connection.first("SELECT last_applied_op, last_op FROM ps_buckets WHERE id = ?", (bucket,))
    assert row is not None
    # A bucket that was never published has nothing to remove again, and a new one has nothing to supersede.
    was_applied: bool = row["last_applied_op"] != 0
    is_new: bool = row["last_op"] == 0

    intake = _Intake()
    for operation in operations:
        if operation.op == "CLEAR":
            if not is_new:
                _supersede(connection, bucket, intake, was_applied=was_applied)
            _clear(connection, bucket)
            _note_rows(connection, intake.puts.values())
            was_applied, is_new = False, True
            intake = _Intake(add_checksum=operation.checksum)
        else:
            intake.take(operation)

    if not is_new:
        _supersede(connection, bucket, intake, was_applied=was_applied)
    connection.execute_many(
        "INSERT INTO ps_oplog(bucket, op_id, row_type, row_id, key, data, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            (bucket, put.op_id, put.object_type, put.object_id, key, put.data, signed32(put.checksum))
            for key, put in intake.puts.items()
        ),
    )
    connection.execute(
        "UPDATE ps_buckets SET last_op = ?, add_checksum = (add_checksum + ?) & 0xffffffff,"
        " op_checksum = (op_checksum + ?) & 0xffffffff, count_since_last = count_since_last + ?,"
        " downloaded_size = downloaded_size + ? WHERE id = ?",
        (operations[-1].op_id, intake.add_checksum, intake.op_checksum, len(operations), size, bucket),
    )


def _clear(connection: SqlConnection, bucket: int) -> None:
    connection.execute(_NOTE_ROWS_OF_BUCKET, (bucket,))
    connection.execute("DELETE FROM ps_oplog WHERE bucket = ?", (bucket,))
    connection.execute(
        "UPDATE ps_buckets SET last_applied_op = 0, add_checksum = 0, op_checksum = 0 WHERE id = ?", (bucket,)
    )


def _supersede(connection: SqlConnection, bucket: int, intake: _Intake, *, was_applied: bool) -> None:
    """Delete operations in the file that newer ones with the same key replace; note the rows that were removed."""
    superseded: set[str] = set()
    for keys in _chunks(sorted(intake.touched)):
        placeholders = ", ".join("?" * len(keys))
        for row in connection.execute(
            f"DELETE FROM ps_oplog WHERE bucket = ? AND key IN ({placeholders}) RETURNING key, hash", (bucket, *keys)
        ):
            superseded.add(row["key"])
            intake.add_checksum += row["hash"]
            intake.op_checksum -= row["hash"]
    if was_applied:
        _note_rows(connection, intake.taken_back)
        _note_rows(connection, (op for key, op in intake.removed_first.items() if key in superseded))


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Chunks of one or of a hundred keys, so that there are two statements to prepare instead of a hundred."""
    if len(keys) == 1:
        yield keys
        return
    for start in range(0, len(keys), _KEYS_PER_STATEMENT):
        chunk = keys[start : start + _KEYS_PER_STATEMENT]
        yield [*chunk, *([chunk[-1]] * (_KEYS_PER_STATEMENT - len(chunk)))]


def _note_rows(connection: SqlConnection, operations: Iterable[Operation]) -> None:
    connection.execute_many(
        "INSERT OR IGNORE INTO ps_updated_rows(row_type, row_id) VALUES (?, ?)",
        ((operation.object_type, operation.object_id) for operation in operations),
    )
