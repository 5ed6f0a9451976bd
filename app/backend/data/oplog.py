"""The operation log: every change to every bucket, in order, with running checksums.

Owns the tables `buckets` and `bucket_ops`. Only `compaction`, which removes what no client needs any more, may use them
too. All functions run plain SQL on a connection whose transaction belongs to the caller, so the log and the recorded
row change atomically. The rules of the sync config decide which buckets a row belongs to.
"""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from app.backend.data import compaction
from app.backend.rules.streams import MAX_BUCKETS, LookupCall, LookupEntry, SyncRules, Value, encode

SCHEMA = (
    """
    CREATE TABLE buckets (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        checksum INTEGER NOT NULL DEFAULT 0,
        count INTEGER NOT NULL DEFAULT 0,
        last_op INTEGER NOT NULL DEFAULT 0,
        compact_at INTEGER NOT NULL DEFAULT 8
    ) STRICT
    """,
    "CREATE INDEX buckets_to_compact ON buckets (id) WHERE count >= compact_at",
    # Bucket 0 has no name: its operations record changed lookup results.
    """
    CREATE TABLE bucket_ops (
        op_id INTEGER PRIMARY KEY AUTOINCREMENT,
        bucket INTEGER NOT NULL,
        op TEXT NOT NULL,
        object_type TEXT,
        object_id TEXT,
        subkey TEXT,
        checksum INTEGER NOT NULL,
        data TEXT,
        target_op INTEGER
    ) STRICT
    """,
    "CREATE INDEX bucket_ops_by_bucket ON bucket_ops (bucket, op_id)",
    "CREATE INDEX bucket_ops_by_row ON bucket_ops (bucket, object_id, object_type, op_id) WHERE object_id IS NOT NULL",
)

PAGE_OPS = 1000
_PAGE_BYTES = 1024 * 1024
_UINT32 = 0x1_0000_0000
_LOOKUPS = 0
_COLUMNS = "op_id, op, object_type, object_id, checksum, subkey, data"
_LAST_OP_ID = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'bucket_ops'), 0)"


@dataclass(frozen=True)
class BucketState:
    """Totals of one bucket: unsigned checksum, number of ops, and id of the newest op (0 if there are none)."""

    checksum: int = 0
    count: int = 0
    last_op: int = 0

    @property
    def signed_checksum(self) -> int:
        """The checksum as sent in a checkpoint: signed 32-bit."""
        return self.checksum - _UINT32 if self.checksum >= _UINT32 // 2 else self.checksum


_EMPTY = BucketState()


class Operation(msgspec.Struct, omit_defaults=True):
    """One operation as sent in a `data` line. MOVE and CLEAR only have an id and a checksum."""

    op_id: str
    op: str
    object_type: str | msgspec.UnsetType = msgspec.UNSET
    object_id: str | msgspec.UnsetType = msgspec.UNSET
    checksum: int = -1
    subkey: str | msgspec.UnsetType = msgspec.UNSET
    data: str | msgspec.Raw | msgspec.UnsetType | None = msgspec.UNSET


@dataclass(frozen=True)
class Page:
    """The content of one `data` line for a bucket.

    `target_op` is the newest operation that superseded some of these, or 0 if there is none: the bucket is complete
    only once the client has downloaded up to that operation.
    """

    bucket: str
    after: int
    operations: list[Operation]
    next_after: int
    has_more: bool
    target_op: int
    encoded: dict[Any, bytes] = field(default_factory=dict[Any, bytes])
    """The encoded line, by encoder."""


@dataclass(frozen=True)
class Tail:
    """New entries of the log: the new states of their buckets, and the lookup results that were added or removed.

    `operations` are grouped by bucket, or None if there are too many.
    """

    last_op_id: int
    states: dict[str, BucketState]
    operations: dict[str, list[Operation]] | None
    lookups: list[LookupEntry]


class OperationLog:
    """Appends to and reads from the log of one backend, using the rules of one sync config."""

    def __init__(self, backend_id: uuid.UUID, rules: SyncRules) -> None:
        self._namespace = backend_id
        self._sources: dict[str, uuid.UUID] = {}
        self.adopt(rules, 0)

    def adopt(self, rules: SyncRules, generation: int) -> None:
        """Use `rules` from now on; `generation` counts the sync configs that this backend has used."""
        self.rules = rules
        self.generation = generation
        self.prefix = f"{self._namespace.hex[:16]}.{generation}"
        """The prefix of all bucket names, unique to this backend and sync config."""

    def record(
        self,
        connection: sqlite3.Connection,
        table: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        """Record that a row of `table` has changed from `before` to `after`; None means that there is no row.

        Both have all columns, with `id` first. Call this only if the row has changed, in the transaction that changes
        it. A row that leaves a bucket gets a REMOVE there; a row that is new to a bucket or changed in it gets a PUT.
        """
        entered = self.rules.buckets_of(table, after) if after else ()
        left = self.rules.buckets_of(table, before) if before else ()
        if after is not None and entered:
            row_id, data = str(after["id"]), encode(after)
            for bucket in entered:
                self._append(connection, self.name_of(bucket), "PUT", table, row_id, data)
        for bucket in left:
            if before is not None and bucket not in entered:
                self._append(connection, self.name_of(bucket), "REMOVE", table, str(before["id"]), None)
        if any(lookup.table == table for lookup in self.rules.lookups):
            found = self.rules.lookup_entries_of(table, after) if after else frozenset[LookupEntry]()
            lost = self.rules.lookup_entries_of(table, before) if before else frozenset[LookupEntry]()
            for entry in sorted(found ^ lost):
                _append_lookup(connection, entry)
            if before is None:
                for entry in found:
                    self._compact_buckets_behind(connection, entry)

    def name_of(self, bucket: str) -> str:
        """The full name of a bucket of the rules, with the prefix."""
        return f"{self.prefix}#{bucket}"

    def _compact_buckets_behind(self, connection: sqlite3.Connection, entry: LookupEntry) -> None:
        """Drop the history of all buckets that a new row gives access to.

        An earlier row like it may have belonged to somebody else, and the users who get access now must not see what
        was in these buckets before.
        """
        for querier, position in self.rules.buckets_behind(entry):
            start = self.name_of(querier.source.name)
            if len(querier.operands) == 1:
                query, values = "= ?", [f"{start}[{entry.value}]"]
            else:
                query, values = ">= ? AND name < ?", [f"{start}[", f"{start}\\"]
            for key, name in connection.execute(f"SELECT id, name FROM buckets WHERE name {query}", values).fetchall():
                if encode(msgspec.json.decode(name[len(start) :])[position]) == entry.value:
                    compaction.forget_past(connection, key)

    def _append(
        self, connection: sqlite3.Connection, bucket: str, op: str, table: str, row_id: str, data: str | None
    ) -> None:
        source = self._sources.get(table) or self._sources.setdefault(table, uuid.uuid5(self._namespace, table))
        subkey = f"{source}/{uuid.uuid5(source, row_id)}"
        content = msgspec.json.encode((op, table, row_id, subkey, data))
        checksum = int.from_bytes(hashlib.sha256(content).digest()[:4], "big")
        connection.execute("INSERT INTO buckets (name) VALUES (?) ON CONFLICT DO NOTHING", [bucket])
        (bucket_key,) = connection.execute("SELECT id FROM buckets WHERE name = ?", [bucket]).fetchone()
        op_id = connection.execute(
            "INSERT INTO bucket_ops (bucket, op, object_type, object_id, subkey, checksum, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [bucket_key, op, table, row_id, subkey, checksum, data],
        ).lastrowid
        # Compaction can then drop two more operations: the REMOVE and the row's PUT.
        sooner = 2 if op == "REMOVE" else 0
        connection.execute(
            "UPDATE buckets SET checksum = (checksum + ?) % ?, count = count + 1, last_op = ?,"
            " compact_at = compact_at - ? WHERE id = ?",
            [checksum, _UINT32, op_id, sooner, bucket_key],
        )

    def last_op_id(self, connection: sqlite3.Connection) -> int:
        """The id of the newest op of all buckets, or 0 if there are none."""
        (last,) = connection.execute(_LAST_OP_ID).fetchone()
        return int(last)

    def states(self, connection: sqlite3.Connection, names: Iterable[str]) -> dict[str, BucketState]:
        """The totals of the named buckets, all zeros for a bucket without ops."""
        wanted = list(names)
        rows = connection.execute(
            "SELECT name, checksum, count, last_op FROM buckets WHERE name IN (SELECT value FROM json_each(?))",
            [encode(wanted)],
        )
        found = {name: BucketState(checksum, count, last_op) for name, checksum, count, last_op in rows}
        return {name: found.get(name, _EMPTY) for name in wanted}

    def page(self, connection: sqlite3.Connection, bucket: str, *, after: int, up_to: int) -> Page | None:
        """The content of the next `data` line for `bucket`: ops with `after` < id ≤ `up_to`; None if there are none.

        Contains at most 1,000 ops and, not counting the first one, at most about 1 MiB of data.
        """
        rows = connection.execute(
            f"SELECT {_COLUMNS}, target_op FROM bucket_ops"
            " WHERE bucket = (SELECT id FROM buckets WHERE name = ?) AND op_id > ? AND op_id <= ?"
            " ORDER BY op_id LIMIT ?",
            [bucket, after, up_to, PAGE_OPS + 1],
        )
        operations: list[Operation] = []
        size = next_after = target_op = 0
        has_more = False
        for row in rows:
            if len(operations) == PAGE_OPS or size > _PAGE_BYTES:
                has_more = True
                break
            operations.append(_operation(*row[:-1]))
            next_after = row[0]
            size += len(row[6] or "")
            target_op = max(target_op, row[7] or 0)
        rows.close()
        return Page(bucket, after, operations, next_after, has_more, target_op) if operations else None

    def tail(self, connection: sqlite3.Connection, *, after: int, limit: int) -> Tail:
        """The entries of all buckets and lookups that were added to the log since the op id `after`.

        The operations are omitted if there are more than `limit`.
        """
        last = self.last_op_id(connection)
        names = dict(
            connection.execute(
                "SELECT DISTINCT b.id, b.name FROM bucket_ops o JOIN buckets b ON b.id = o.bucket WHERE o.op_id > ?",
                [after],
            ).fetchall()
        )
        rows = connection.execute(
            "SELECT object_type, object_id, data FROM bucket_ops WHERE bucket = ? AND op_id > ?", [_LOOKUPS, after]
        )
        lookups = [LookupEntry(int(number), parameters, value) for number, parameters, value in rows]
        operations: dict[str, list[Operation]] | None = {}
        (number,) = connection.execute("SELECT count(*) FROM bucket_ops WHERE op_id > ?", [after]).fetchone()
        if number > limit:
            operations = None
        else:
            rows = connection.execute(
                f"SELECT bucket, {_COLUMNS} FROM bucket_ops WHERE op_id > ? AND bucket <> ? ORDER BY op_id",
                [after, _LOOKUPS],
            )
            for row in rows:
                operations.setdefault(names[row[0]], []).append(_operation(*row[1:]))
        return Tail(last, self.states(connection, names.values()), operations, lookups)

    def look_up(self, connection: sqlite3.Connection, call: LookupCall) -> list[Value]:
        """The distinct values that a lookup finds, at most one more than the limit of buckets per connection."""
        lookup = call.lookup
        if None in call.parameters:
            return []
        conditions = [f"{lookup.column} IS NOT NULL"]
        conditions += [f"{column} = ?" for column, _ in (*lookup.conditions, *lookup.constants)]
        values: list[Value] = [*call.parameters, *(value for _, value in lookup.constants)]
        if call.among is not None:
            # Bound one by one, because SQLite's JSON functions truncate strings at a NUL.
            conditions.append(f"{lookup.column} IN ({', '.join('?' * len(call.among))})")
            values += call.among
        found = connection.execute(
            f"SELECT DISTINCT {lookup.column} FROM {lookup.table} WHERE {' AND '.join(conditions)} ORDER BY 1 LIMIT ?",
            [*values, MAX_BUCKETS + 1],
        )
        return [row[0] for row in found]


def upgrade(connection: sqlite3.Connection) -> None:
    """Replace the tables of the first schema version with empty ones; op ids continue."""
    last_op_id = connection.execute(_LAST_OP_ID).fetchone()
    connection.execute("DROP TABLE bucket_ops")
    connection.execute("DROP TABLE buckets")
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('bucket_ops', ?)", last_op_id)


def rebuild(connection: sqlite3.Connection, log: OperationLog, tables: Mapping[str, Sequence[str]]) -> None:
    """Rebuild the log from the rows of `tables`, which maps each table to its columns; op ids continue.

    Also creates the indexes that the lookups of the log's rules need.
    """
    connection.execute("DELETE FROM bucket_ops")
    connection.execute("DELETE FROM buckets")
    for table, columns in tables.items():
        for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY rowid"):
            log.record(connection, table, None, dict(zip(columns, row, strict=True)))
    connection.execute("DELETE FROM bucket_ops WHERE bucket = ?", [_LOOKUPS])
    for lookup in log.rules.lookups:
        if columns := [column for column, _ in (*lookup.conditions, *lookup.constants)]:
            name = f"lookup_{lookup.table}_{'_'.join(columns)}"
            connection.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {lookup.table} ({', '.join(columns)})")


def _append_lookup(connection: sqlite3.Connection, entry: LookupEntry) -> None:
    connection.execute(
        "INSERT INTO bucket_ops (bucket, op, object_type, object_id, checksum, data) VALUES (?, 'LOOKUP', ?, ?, 0, ?)",
        [_LOOKUPS, str(entry.lookup), entry.parameters, entry.value],
    )


def _operation(
    op_id: int, op: str, table: str | None, row_id: str | None, checksum: int, subkey: str | None, data: str | None
) -> Operation:
    if table is None or row_id is None or subkey is None:
        return Operation(str(op_id), op, checksum=checksum)
    return Operation(str(op_id), op, table, row_id, checksum, subkey, data)
