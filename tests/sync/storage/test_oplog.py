"""Taking in operations, against a model that takes them one by one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync import PowerSyncDatabase, ProtocolError, Schema
from sync.protocol import DataLine, Operation
from sync.sqlite.sql_connection import SqlConnection
from sync.storage import oplog
from sync.storage.migrations import create_tables
from sync.storage.oplog import ReceivedData
from tests.kit import inside

BUCKET = "b"


@dataclass
class Model:
    """One bucket, one operation at a time, by the rules as they are written down."""

    last_applied: int = 0
    last_op: int = 0
    puts: dict[str, tuple[int, int]] = field(default_factory=dict)
    updated: set[str] = field(default_factory=set)
    add: int = 0
    op: int = 0

    def take(self, operation: Operation) -> None:
        self.last_op = operation.op_id
        row = operation.object_id or ""
        if operation.op == "MOVE":
            self.add += operation.checksum
        elif operation.op == "CLEAR":
            self.updated |= set(self.puts)
            self.puts.clear()
            self.last_applied, self.add, self.op = 0, operation.checksum, 0
        else:
            superseded = self.puts.pop(row, None)
            if superseded is not None:
                self.add += superseded[1]
                self.op -= superseded[1]
            if operation.op == "PUT":
                self.puts[row] = (operation.op_id, operation.checksum)
                self.op += operation.checksum
            else:
                self.add += operation.checksum
                if superseded is not None and self.last_applied:
                    self.updated.add(row)

    def state(self) -> dict[str, Any]:
        return {
            "bucket": (self.last_op, self.last_applied, self.add % 2**32, self.op % 2**32),
            "puts": {row: op_id for row, (op_id, _) in self.puts.items()},
            "updated": self.updated,
        }


def state_of(connection: SqlConnection) -> dict[str, Any]:
    bucket = connection.first("SELECT last_op, last_applied_op, add_checksum, op_checksum FROM ps_buckets")
    assert bucket is not None
    return {
        "bucket": tuple(bucket),
        "puts": {row["row_id"]: row["op_id"] for row in connection.execute("SELECT row_id, op_id FROM ps_oplog")},
        "updated": {row["row_id"] for row in connection.execute("SELECT row_id FROM ps_updated_rows")},
    }


def operation(op_id: int, kind: str, row: str, checksum: int) -> Operation:
    if kind in {"MOVE", "CLEAR"}:
        return Operation(op_id, kind, checksum)  # type: ignore[arg-type]
    return Operation(op_id, kind, checksum, "t", row, None, "{}" if kind == "PUT" else None)  # type: ignore[arg-type]


KINDS = st.sampled_from(["PUT", "PUT", "PUT", "REMOVE", "REMOVE", "MOVE", "CLEAR"])
RUNS = st.lists(
    st.tuples(
        st.lists(st.tuples(KINDS, st.sampled_from("abc"), st.integers(0, 2**32 - 1)), min_size=1, max_size=8),
        st.booleans(),
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(RUNS)
def test_many_operations_at_once_leave_what_one_by_one_leaves(
    runs: list[tuple[list[tuple[str, str, int]], bool]],
) -> None:
    """Each run is one transaction; after some of them the bucket counts as published."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        raw.row_factory = sqlite3.Row
        connection = SqlConnection(raw)
        create_tables(connection)
        model, op_id = Model(), 0
        for specification, is_published in runs:
            operations: list[Operation] = []
            for kind, row, checksum in specification:
                op_id += 1
                operations.append(operation(op_id, kind, row, checksum))
            half = len(operations) // 2
            lines = [DataLine(BUCKET, tuple(part)) for part in (operations[:half], operations[half:])]
            oplog.take_in(connection, [ReceivedData(line, 1) for line in lines])
            for taken in operations:
                model.take(taken)
            assert state_of(connection) == model.state()
            if is_published:
                connection.execute("UPDATE ps_buckets SET last_applied_op = last_op")
                connection.execute("DELETE FROM ps_updated_rows")
                model.last_applied = model.last_op
                model.updated.clear()
        raw.set_authorizer(None)


async def test_more_keys_than_fit_one_statement_are_superseded(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "c.db", Schema([])) as database:
        for generation in range(2):
            puts = tuple(operation(generation * 250 + n + 1, "PUT", f"row{n}", n) for n in range(250))
            await inside.write(
                database,
                lambda connection, puts=puts: oplog.take_in(connection, [ReceivedData(DataLine(BUCKET, puts), 1)]),
            )
        found = await database.get("SELECT count(*), min(op_id) FROM ps_oplog")
        assert tuple(found) == (250, 251)


async def test_an_operation_without_a_row_is_a_protocol_error(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "c.db", Schema([])) as database:
        line = DataLine(BUCKET, (Operation(1, "PUT", 1),))
        with pytest.raises(ProtocolError):
            await inside.write(database, lambda connection: oplog.take_in(connection, [ReceivedData(line, 1)]))
        assert await database.get_all("SELECT * FROM ps_buckets") == []
