"""The operation log: every change of every bucket, in order, with running checksums.

Owns the tables `buckets` and `bucket_ops`; besides it only `compaction`, which takes out of them what no client needs
any more, knows them. All functions are plain SQL on a connection whose transaction the caller holds, so the log and the
row that it records change together or not at all. Which buckets a row belongs to is not decided here, but by the rules
of the sync config.
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
    # Bucket 0 has no name: its operations tell of lookups that would find something else now.
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
    """Totals of one bucket: unsigned checksum, number of ops, id of the newest op (0: none)."""

    checksum: int = 0
    count: int = 0
    last_op: int = 0

    @property
    def signed_checksum(self) -> int:
        """The checksum as a checkpoint carries it: signed 32-bit."""
        return self.checksum - _UINT32 if self.checksum >= _UINT32 // 2 else self.checksum


_EMPTY = BucketState()


class Operation(msgspec.Struct, omit_defaults=True):
    """One operation as a `data` line has it. MOVE and CLEAR have an id and a checksum only."""

    op_id: str
    op: str
    object_type: str | msgspec.UnsetType = msgspec.UNSET
    object_id: str | msgspec.UnsetType = msgspec.UNSET
    checksum: int = -1
    subkey: str | msgspec.UnsetType = msgspec.UNSET
    data: str | msgspec.Raw | msgspec.UnsetType | None = msgspec.UNSET


@dataclass(frozen=True)
class Page:
    """What one `data` line says of a bucket.

    `target_op` is 0, or the newest of the operations that made some of these superfluous: what they did is in the
    bucket only from there on.
    """

    bucket: str
    after: int
    operations: list[Operation]
    next_after: int
    has_more: bool
    target_op: int
    encoded: dict[Any, bytes] = field(default_factory=dict[Any, bytes])
    """The line as those who send it have it, by what encodes it."""


@dataclass(frozen=True)
class Tail:
    """What has come into the log: the new states of the buckets it is in, and what lookups find or find no more.

    `operations` is by bucket, or None if they were too many.
    """

    last_op_id: int
    states: dict[str, BucketState]
    operations: dict[str, list[Operation]] | None
    lookups: list[LookupEntry]


class OperationLog:
    """Appends to and reads from the log of one backend, by the rules of one sync config."""

    def __init__(self, backend_id: uuid.UUID, rules: SyncRules) -> None:
        self._namespace = backend_id
        self._sources: dict[str, uuid.UUID] = {}
        self.adopt(rules, 0)

    def adopt(self, rules: SyncRules, generation: int) -> None:
        """Go by `rules`, which are the `generation`-th of this backend, from now on."""
        self.rules = rules
        self.generation = generation
        self.prefix = f"{self._namespace.hex[:16]}.{generation}"
        """What the names of all buckets start with: of no other backend, and of no other sync config."""

    def record(
        self,
        connection: sqlite3.Connection,
        table: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        """Record that a row of `table` was `before` and is `after`, all its columns with `id` first; None is no row.

        Only to be called when it has changed, in the transaction that changes it. A row that leaves a bucket is removed
        there; one that is new to the bucket or has changed in it is put there.
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
                    self._forget_past(connection, entry)

    def name_of(self, bucket: str) -> str:
        """The whole name of a bucket of the rules."""
        return f"{self.prefix}#{bucket}"

    def _forget_past(self, connection: sqlite3.Connection, entry: LookupEntry) -> None:
        """Drop the past of all buckets behind a row that is new.

        There may have been a row like it that was somebody else's, and what was in its buckets is not for whoever
        gets to them now.
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
        # A row less is one operation more that nobody needs, and one that was needed.
        sooner = 2 if op == "REMOVE" else 0
        connection.execute(
            "UPDATE buckets SET checksum = (checksum + ?) % ?, count = count + 1, last_op = ?,"
            " compact_at = compact_at - ? WHERE id = ?",
            [checksum, _UINT32, op_id, sooner, bucket_key],
        )

    def last_op_id(self, connection: sqlite3.Connection) -> int:
        """The id of the newest op of all buckets, 0 before the first."""
        (last,) = connection.execute(_LAST_OP_ID).fetchone()
        return int(last)

    def states(self, connection: sqlite3.Connection, names: Iterable[str]) -> dict[str, BucketState]:
        """The totals of the named buckets; one that never held an op has all zeros."""
        wanted = list(names)
        rows = connection.execute(
            "SELECT name, checksum, count, last_op FROM buckets WHERE name IN (SELECT value FROM json_each(?))",
            [encode(wanted)],
        )
        found = {name: BucketState(checksum, count, last_op) for name, checksum, count, last_op in rows}
        return {name: found.get(name, _EMPTY) for name in wanted}

    def page(self, connection: sqlite3.Connection, bucket: str, *, after: int, up_to: int) -> Page | None:
        """What the next `data` line of `bucket` says: ops `after` < id ≤ `up_to`; None if there are none.

        It has at most 1,000 ops and, beyond its first op, at most about 1 MiB of data.
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
        """What has come into the log `after` an op id: of all buckets, and of the lookups.

        The operations are left out if they are more than `limit`.
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
        """The values that a lookup finds, each once; one more than a connection may have buckets at most."""
        lookup = call.lookup
        if None in call.parameters:
            return []
        conditions = [f"{lookup.column} IS NOT NULL"]
        conditions += [f"{column} = ?" for column, _ in (*lookup.conditions, *lookup.constants)]
        values: list[Value] = [*call.parameters, *(value for _, value in lookup.constants)]
        if call.among is not None:
            # Bound one by one: SQLite's functions for JSON end a text at a NUL.
            conditions.append(f"{lookup.column} IN ({', '.join('?' * len(call.among))})")
            values += call.among
        found = connection.execute(
            f"SELECT DISTINCT {lookup.column} FROM {lookup.table} WHERE {' AND '.join(conditions)} ORDER BY 1 LIMIT ?",
            [*values, MAX_BUCKETS + 1],
        )
        return [row[0] for row in found]


def upgrade(connection: sqlite3.Connection) -> None:
    """Replace the tables of the first version, empty; op ids go on counting."""
    last_op_id = connection.execute(_LAST_OP_ID).fetchone()
    connection.execute("DROP TABLE bucket_ops")
    connection.execute("DROP TABLE buckets")
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('bucket_ops', ?)", last_op_id)


def rebuild(connection: sqlite3.Connection, log: OperationLog, tables: Mapping[str, Sequence[str]]) -> None:
    """Start the log anew with what the rows of `tables` (with their columns) put into it; op ids go on counting.

    Also makes the indexes that the lookups of the log's rules need.
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
