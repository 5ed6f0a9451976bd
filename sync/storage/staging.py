"""The staging area: stores large downloads without indexes, until they move into the oplog all at once.

Owns `ps_staged_oplog` and `ps_staged_buckets`, which exist only while something is staged, and the move of their rows
into `ps_oplog` and `ps_buckets`. `oplog` decides which data goes here; publishing first triggers the move.

Three indexes that grow with every operation, all over the file, account for most of the time of a first sync. So
operations of a bucket that has none yet, and was never applied, are appended to a table like the oplog that has no
index. `settle` then replaces the oplog with this table, builds the indexes in sorted order, and resolves duplicates,
all in one transaction.

Meanwhile `ps_oplog` with its indexes, and the positions in `ps_buckets`, stay as if nothing had been received. So after
every commit, and thus after every crash, the file is a complete file of the format: another client, older or different,
does not see the staged operations and downloads those buckets itself. This engine continues where it stopped, unless
another client has changed one of the buckets: then everything staged is discarded.

A removal is staged as a row without type and data under the removed key. A CLEAR is never staged: it is processed after
a `settle`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sync.protocol.checksums import signed32
from sync.protocol.lines import Operation
from sync.sqlite.sql_connection import SqlConnection
from sync.storage.names import operation_key

REBUILD_FACTOR = 4
"""Indexes are rebuilt if the oplog has at most this many times the staged rows; otherwise they grow row by row."""

_CREATE = (
    """CREATE TABLE ps_staged_oplog(
        bucket INTEGER NOT NULL,
        op_id INTEGER NOT NULL,
        row_type TEXT,
        row_id TEXT,
        key TEXT,
        data TEXT,
        hash INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE ps_staged_buckets(
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        begun_at_op INTEGER NOT NULL,
        last_op INTEGER NOT NULL,
        add_checksum INTEGER NOT NULL,
        op_checksum INTEGER NOT NULL,
        count_since_last INTEGER NOT NULL,
        downloaded_size INTEGER NOT NULL
    ) STRICT""",
)


def is_in_use(connection: SqlConnection) -> bool:
    """Whether anything is staged."""
    return connection.first("SELECT 1 FROM sqlite_master WHERE name = 'ps_staged_buckets'") is not None


def positions(connection: SqlConnection) -> dict[str, int]:
    """The staged buckets, each with its last operation.

    If another client has changed one of them, everything staged is discarded, and the result is empty.
    """
    if not _is_valid(connection):
        return {}
    return {row["name"]: row["last_op"] for row in connection.execute("SELECT name, last_op FROM ps_staged_buckets")}


def _is_valid(connection: SqlConnection) -> bool:
    """Whether anything is staged; discards it first if another client has changed one of the buckets."""
    if not is_in_use(connection):
        return False
    changed = connection.first(
        "SELECT 1 FROM ps_staged_buckets s LEFT JOIN ps_buckets b ON b.id = s.id"
        " AND b.name = s.name AND b.last_op = s.begun_at_op AND b.last_applied_op = 0 AND b.pending_delete = 0"
        " WHERE b.id IS NULL OR EXISTS (SELECT 1 FROM ps_oplog o WHERE o.bucket = s.id)"
    )
    if changed:
        discard(connection)
    return not changed


def counts(connection: SqlConnection) -> dict[str, int]:
    """The staged buckets, each with its operations since the last checkpoint."""
    if not is_in_use(connection):
        return {}
    rows = connection.execute("SELECT name, count_since_last FROM ps_staged_buckets")
    return {row["name"]: row["count_since_last"] for row in rows}


def reset_counts(connection: SqlConnection) -> None:
    """Count the operations of staged buckets from zero."""
    if is_in_use(connection):
        connection.execute("UPDATE ps_staged_buckets SET count_since_last = 0")


def discard(connection: SqlConnection) -> None:
    """Discard everything staged, as if it had not been downloaded."""
    connection.execute("DROP TABLE IF EXISTS ps_staged_oplog")
    connection.execute("DROP TABLE IF EXISTS ps_staged_buckets")


def stage(connection: SqlConnection, bucket: int, operations: Sequence[Operation], size: int) -> bool:
    """Append operations (and their length on the wire in bytes) of a bucket, which must not include a CLEAR.

    Returns False, and does nothing, if the bucket was applied or has operations in the oplog.

    Raises:
        ProtocolError: an operation lacks something that its kind requires.
    """
    if not is_in_use(connection):
        for sql in _CREATE:
            connection.execute(sql)
    connection.execute(
        "INSERT OR IGNORE INTO ps_staged_buckets SELECT id, name, last_op, last_op, add_checksum, op_checksum,"
        " count_since_last, downloaded_size FROM ps_buckets"
        " WHERE id = ?1 AND last_applied_op = 0 AND NOT EXISTS (SELECT 1 FROM ps_oplog WHERE bucket = ?1)",
        (bucket,),
    )
    op_checksum = sum(operation.checksum for operation in operations if operation.op == "PUT")
    add_checksum = sum(operation.checksum for operation in operations) - op_checksum
    is_staged = connection.first(
        "UPDATE ps_staged_buckets SET last_op = ?, add_checksum = (add_checksum + ?) & 0xffffffff,"
        " op_checksum = (op_checksum + ?) & 0xffffffff, count_since_last = count_since_last + ?,"
        " downloaded_size = downloaded_size + ? WHERE id = ? RETURNING id",
        (operations[-1].op_id, add_checksum, op_checksum, len(operations), size, bucket),
    )
    if is_staged is None:
        return False
    connection.execute_many(
        "INSERT INTO ps_staged_oplog(bucket, op_id, row_type, row_id, key, data, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
        _rows(bucket, operations),
    )
    return True


def settle(connection: SqlConnection) -> None:
    """Move everything staged into the oplog, with the same result as if operations had been stored one by one.

    If another client has changed one of the buckets, everything staged is discarded instead: operations of a bucket
    that is gone would never leave the oplog. The checkpoint's checksums reveal what is missing.
    """
    if not _is_valid(connection):
        return
    # The highest rowid serves as the number of rows: they are appended.
    staged = connection.value("SELECT ifnull(max(rowid), 0) FROM ps_staged_oplog")
    present = connection.value("SELECT ifnull(max(rowid), 0) FROM ps_oplog")
    if present <= REBUILD_FACTOR * staged:
        _replace_oplog(connection)
    else:
        connection.execute("INSERT INTO ps_oplog SELECT * FROM ps_staged_oplog")
        connection.execute("DROP TABLE ps_staged_oplog")
        _remove_superseded(connection)
    connection.execute("DELETE FROM ps_oplog WHERE row_type IS NULL AND bucket IN (SELECT id FROM ps_staged_buckets)")
    connection.execute(
        "UPDATE ps_buckets SET last_op = s.last_op, add_checksum = s.add_checksum, op_checksum = s.op_checksum,"
        " count_since_last = s.count_since_last, downloaded_size = s.downloaded_size"
        " FROM ps_staged_buckets s WHERE s.id = ps_buckets.id"
    )
    connection.execute("DROP TABLE ps_staged_buckets")


def _rows(
    bucket: int, operations: Sequence[Operation]
) -> Iterator[tuple[int, int, str | None, str | None, str, str | None, int]]:
    for operation in operations:
        if operation.op == "PUT":
            yield (
                bucket,
                operation.op_id,
                operation.object_type,
                operation.object_id,
                operation_key(operation),
                operation.data,
                signed32(operation.checksum),
            )
        elif operation.op == "REMOVE":
            yield (bucket, operation.op_id, None, None, operation_key(operation), None, 0)


def _replace_oplog(connection: SqlConnection) -> None:
    """Replace the oplog with the staged table, including the oplog's own operations, and index it."""
    indexes = [
        row["sql"]
        for row in connection.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'ps_oplog'"
            " ORDER BY name <> 'ps_oplog_key'"
        )
    ]
    connection.execute("INSERT INTO ps_staged_oplog SELECT * FROM ps_oplog")
    connection.execute("DROP TABLE ps_oplog")
    # Otherwise SQLite reads the whole schema again, and fails if any view or trigger of the app is broken.
    connection.execute("PRAGMA legacy_alter_table = ON")
    try:
        connection.execute("ALTER TABLE ps_staged_oplog RENAME TO ps_oplog")
    finally:
        connection.execute("PRAGMA legacy_alter_table = OFF")
    # Superseded operations are deleted while the only index is the one used to find them.
    connection.execute(indexes[0])
    _remove_superseded(connection)
    for sql in indexes[1:]:
        connection.execute(sql)


def _remove_superseded(connection: SqlConnection) -> None:
    """Delete staged operations that later ones with the same key replace, in the order of their rowids."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS superseded(id INTEGER PRIMARY KEY)")
    connection.execute("DELETE FROM temp.superseded")
    connection.execute(
        "INSERT INTO temp.superseded SELECT o.rowid FROM (SELECT bucket, key, max(rowid) AS newest FROM ps_oplog"
        " WHERE bucket IN (SELECT id FROM ps_staged_buckets) GROUP BY bucket, key HAVING count(*) > 1) k"
        " CROSS JOIN ps_oplog o ON o.bucket = k.bucket AND o.key = k.key AND o.rowid < k.newest"
    )
    sums = connection.execute(
        "SELECT bucket, sum(hash) AS hash FROM temp.superseded s CROSS JOIN ps_oplog o ON o.rowid = s.id"
        " GROUP BY bucket"
    )
    connection.execute_many(
        "UPDATE ps_staged_buckets SET add_checksum = (add_checksum + ?1) & 0xffffffff,"
        " op_checksum = (op_checksum - ?1) & 0xffffffff WHERE id = ?2",
        ((row["hash"], row["bucket"]) for row in sums),
    )
    connection.execute("DELETE FROM ps_oplog WHERE rowid IN (SELECT id FROM temp.superseded)")
    connection.execute("DELETE FROM temp.superseded")
