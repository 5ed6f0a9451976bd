"""The operation log: every change of every bucket, in order, with running checksums.

Owns the tables `buckets` and `bucket_ops`; nothing else reads or writes them. All functions are
plain SQL on a connection whose transaction the caller holds, so the log and the row that it
records change together or not at all. Which bucket a row belongs to is not decided here.
"""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

SCHEMA = (
    """
    CREATE TABLE buckets (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        checksum INTEGER NOT NULL DEFAULT 0,
        count INTEGER NOT NULL DEFAULT 0,
        last_op INTEGER NOT NULL DEFAULT 0
    ) STRICT
    """,
    """
    CREATE TABLE bucket_ops (
        op_id INTEGER PRIMARY KEY AUTOINCREMENT,
        bucket INTEGER NOT NULL REFERENCES buckets (id),
        op TEXT NOT NULL,
        object_type TEXT NOT NULL,
        object_id TEXT NOT NULL,
        subkey TEXT NOT NULL,
        checksum INTEGER NOT NULL,
        data TEXT
    ) STRICT
    """,
    "CREATE INDEX bucket_ops_by_bucket ON bucket_ops (bucket, op_id)",
)

PAGE_OPS = 1000
_PAGE_BYTES = 1024 * 1024
_UINT32 = 0x1_0000_0000
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


@dataclass(frozen=True)
class Page:
    """One `data` line, ready to send, where the next one starts, and whether there is one."""

    line: bytes
    next_after: int
    has_more: bool


class OperationLog:
    """Appends to and reads from the log of one backend."""

    def __init__(self, backend_id: uuid.UUID) -> None:
        self._namespace = backend_id

    def put(self, connection: sqlite3.Connection, bucket: str, table: str, row: Mapping[str, Any]) -> None:
        """Record that `row` (its `id` first) is now in `bucket` as given."""
        data = msgspec.json.encode(row).decode()
        self._append(connection, bucket, "PUT", table, str(row["id"]), data)

    def remove(self, connection: sqlite3.Connection, bucket: str, table: str, row_id: str) -> None:
        """Record that the row is no longer in `bucket`."""
        self._append(connection, bucket, "REMOVE", table, row_id, None)

    def _append(
        self, connection: sqlite3.Connection, bucket: str, op: str, table: str, row_id: str, data: str | None
    ) -> None:
        source = uuid.uuid5(self._namespace, table)
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
        connection.execute(
            "UPDATE buckets SET checksum = (checksum + ?) % ?, count = count + 1, last_op = ? WHERE id = ?",
            [checksum, _UINT32, op_id, bucket_key],
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
            [msgspec.json.encode(wanted).decode()],
        )
        found = {name: BucketState(checksum, count, last_op) for name, checksum, count, last_op in rows}
        return {name: found.get(name, BucketState()) for name in wanted}

    def page(
        self, connection: sqlite3.Connection, bucket: str, *, after: int, up_to: int, raw_data: bool
    ) -> Page | None:
        """The next `data` line of `bucket` with ops `after` < id ≤ `up_to`, or None if there is none.

        A line holds at most 1,000 ops and, beyond its first op, at most about 1 MiB of data.
        `raw_data` sends a row as JSON text, else as a nested object.
        """
        rows = connection.execute(
            "SELECT op_id, op, object_type, object_id, checksum, subkey, data FROM bucket_ops"
            " WHERE bucket = (SELECT id FROM buckets WHERE name = ?) AND op_id > ? AND op_id <= ?"
            " ORDER BY op_id LIMIT ?",
            [bucket, after, up_to, PAGE_OPS + 1],
        )
        ops: list[dict[str, Any]] = []
        size = 0
        next_after = after
        has_more = False
        for op_id, op, object_type, object_id, checksum, subkey, data in rows:
            if len(ops) == PAGE_OPS or size > _PAGE_BYTES:
                has_more = True
                break
            ops.append(
                {
                    "op_id": str(op_id),
                    "op": op,
                    "object_type": object_type,
                    "object_id": object_id,
                    "checksum": checksum,
                    "subkey": subkey,
                    "data": data if raw_data or data is None else msgspec.Raw(data.encode()),
                }
            )
            size += len(data or "")
            next_after = op_id
        rows.close()
        if not ops:
            return None
        content = {
            "bucket": bucket,
            "after": str(after),
            "has_more": has_more,
            "data": ops,
            "next_after": str(next_after),
        }
        return Page(msgspec.json.encode({"data": content}) + b"\n", next_after, has_more)
