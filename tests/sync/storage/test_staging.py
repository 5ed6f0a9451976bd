"""Large downloads by way of the staging area leave what the same operations leave without it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sync import PowerSyncDatabase
from sync.protocol import BucketChecksum, DataLine, Operation, TrackedCheckpoint
from sync.schema.tables import Schema
from sync.sqlite.sql_connection import SqlConnection
from sync.storage import oplog, publish, staging
from sync.storage.file import prepare
from sync.storage.oplog import ReceivedData
from sync.storage.publish import Outcome
from tests.kit import inside
from tests.sync.rig import SCHEMA, rows

PRIORITIES = {"one": 1, "two": 2, "three": 3}
TABLES = ("ps_data__t", "ps_untyped", "ps_updated_rows", "ps_sync_state", "ps_buckets")
INDEXES = {"ps_oplog_row", "ps_oplog_opid", "ps_oplog_key"}


@contextmanager
def new_file() -> Generator[SqlConnection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        raw.row_factory = sqlite3.Row
        connection = SqlConnection(raw)
        prepare(connection, Schema([]))
        connection.execute("CREATE TABLE ps_data__t(id TEXT PRIMARY KEY NOT NULL, data TEXT)")
        connection.execute("CREATE INDEX ps_data__t__data ON ps_data__t(data)")
        yield connection
        raw.set_authorizer(None)


def contents(connection: SqlConnection) -> dict[str, list[Any]]:
    """All that the file says, whatever the order in which it was written."""
    found = {name: sorted(map(repr, map(tuple, connection.execute(f"SELECT * FROM {name}")))) for name in TABLES}
    found["ps_sync_state"] = [row["priority"] for row in connection.execute("SELECT priority FROM ps_sync_state")]
    found["ps_oplog"] = [tuple(row) for row in connection.execute("SELECT * FROM ps_oplog ORDER BY bucket, op_id")]
    found["names"] = sorted(row["name"] for row in connection.execute("SELECT name FROM sqlite_master"))
    return found


@dataclass
class Service:
    """What a service would say: the operations of each bucket, and their sums."""

    last_op: int = 0
    sums: dict[str, int] = field(default_factory=dict)

    def operation(self, bucket: str, kind: str, row: str, data: bool) -> Operation:
        self.last_op += 1
        checksum = self.last_op * 2654435761 % 2**32
        self.sums[bucket] = checksum if kind == "CLEAR" else self.sums.get(bucket, 0) + checksum
        if kind in {"MOVE", "CLEAR"}:
            return Operation(self.last_op, kind, checksum)  # type: ignore[arg-type]
        text = json.dumps({"op": self.last_op}) if kind == "PUT" and data else None
        return Operation(self.last_op, kind, checksum, row[0], row[1], None, text)  # type: ignore[arg-type]

    def checkpoint(self, spoiled: str | None) -> TrackedCheckpoint:
        buckets = {
            name: BucketChecksum(name, (checksum + (name == spoiled)) % 2**32, PRIORITIES[name])
            for name, checksum in self.sums.items()
        }
        return TrackedCheckpoint(self.last_op, None, buckets, ())


BUCKETS = st.sampled_from(sorted(PRIORITIES))
OPERATIONS = st.tuples(
    st.sampled_from(["PUT"] * 6 + ["REMOVE"] * 3 + ["MOVE", "CLEAR"]),
    st.sampled_from(["ta", "tb", "tc", "ua", "ub"]),
    st.sampled_from([True] * 9 + [False]),
)
STEPS = st.one_of(
    st.tuples(st.just("line"), BUCKETS, st.lists(OPERATIONS, min_size=1, max_size=8)),
    st.tuples(st.just("line"), BUCKETS, st.lists(OPERATIONS, min_size=1, max_size=8)),
    st.tuples(st.just("publish"), st.sampled_from([1, 2, None, None]), st.none()),
    st.tuples(st.just("spoiled"), BUCKETS, st.none()),
    st.tuples(st.just("removed"), BUCKETS, st.none()),
    st.tuples(st.just("settled"), st.none(), st.none()),
    st.tuples(st.just("again"), st.none(), st.none()),
)


@pytest.mark.parametrize("rebuild_factor", [0, 1000])
def test_a_large_download_leaves_what_small_ones_leave(rebuild_factor: int) -> None:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(STEPS, max_size=14))
    def same(steps: list[tuple[str, Any, Any]]) -> None:
        with pytest.MonkeyPatch.context() as patch, new_file() as large, new_file() as small:
            patch.setattr(staging, "REBUILD_FACTOR", rebuild_factor)
            service = Service()
            for step, what, specification in [*steps, ("publish", None, None)]:
                if step == "line":
                    operations = tuple(service.operation(what, *one) for one in specification)
                    received = [ReceivedData(DataLine(what, operations), 10)]
                    oplog.take_in(large, received, more_follows=True)
                    oplog.take_in(small, received)
                elif step in {"publish", "spoiled"}:
                    priority = what if step == "publish" else None
                    checkpoint = service.checkpoint(spoiled=what if step == "spoiled" else None)
                    patch.setattr(publish, "FILL_FROM_OPERATIONS", 0)
                    outcome = publish.publish(large, checkpoint, priority)
                    patch.setattr(publish, "FILL_FROM_OPERATIONS", 10**9)
                    assert publish.publish(small, checkpoint, priority).outcome is outcome.outcome
                    for name in outcome.mismatched_buckets:
                        service.sums.pop(name)
                elif step == "removed":
                    service.sums.pop(what, None)
                    for connection in (large, small):
                        oplog.delete_buckets(connection, [what])
                elif step == "settled":
                    staging.settle(large)
                if step in {"line", "again"}:
                    assert oplog.bucket_positions(large) == oplog.bucket_positions(small)
                else:
                    assert contents(large) == contents(small)

    same()


def puts(first: int, count: int, table: str = "lists", generation: int = 0) -> tuple[Operation, ...]:
    return tuple(
        Operation(n, "PUT", n, table, f"row-{n - generation}", None, json.dumps({"name": f"name {n}"}))
        for n in range(first, first + count)
    )


def receive(*operations: Operation, bucket: str = "one") -> list[ReceivedData]:
    return [ReceivedData(DataLine(bucket, operations), 100)]


def checkpoint_of(*operations: Operation, bucket: str = "one") -> TrackedCheckpoint:
    checksum = sum(operation.checksum for operation in operations)
    return TrackedCheckpoint(operations[-1].op_id, None, {bucket: BucketChecksum(bucket, checksum)}, ())


async def test_until_it_is_complete_other_clients_see_nothing_of_it(database: PowerSyncDatabase) -> None:
    """They look at `ps_oplog` and `ps_buckets`: they find their indexes, no operations, and the old positions."""
    operations = puts(1, 100)
    await inside.write(database, lambda connection: oplog.take_in(connection, receive(*operations), more_follows=True))
    assert await rows(database, "SELECT count(*) FROM ps_oplog") == [[0]]
    assert await rows(database, "SELECT name, last_op, add_checksum, op_checksum FROM ps_buckets") == [["one", 0, 0, 0]]
    indexes = await rows(database, "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'ps_oplog'")
    assert {name for (name,) in indexes} == INDEXES
    assert await inside.write(database, oplog.bucket_positions) == {"one": 100}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ps_buckets SET last_op = 7",
        "UPDATE ps_buckets SET last_op = 7, last_applied_op = 7",
        "UPDATE ps_buckets SET name = 'other'",
        "DELETE FROM ps_buckets",
        "INSERT INTO ps_oplog SELECT id, 7, 'lists', 'x', 'lists/x/null', '{}', 1 FROM ps_buckets",
    ],
)
async def test_what_another_client_changed_meanwhile_is_downloaded_again(
    database: PowerSyncDatabase, change: str
) -> None:
    await inside.write(
        database, lambda connection: oplog.take_in(connection, receive(*puts(1, 100)), more_follows=True)
    )
    await database.execute(change)
    expected = dict(await rows(database, "SELECT name, last_op FROM ps_buckets"))
    assert await inside.write(database, oplog.bucket_positions) == expected
    assert await rows(database, "SELECT name FROM sqlite_master WHERE name LIKE 'ps_staged%'") == []


async def test_what_another_client_cleared_during_the_download_is_not_moved(database: PowerSyncDatabase) -> None:
    """Operations of a bucket that is gone would stay for ever, and pass for those of the next one with its number."""
    operations = puts(1, 100)
    await inside.write(database, lambda connection: oplog.take_in(connection, receive(*operations), more_follows=True))
    await database.execute("UPDATE ps_buckets SET name = 'of the next user'")
    result = await inside.write(database, lambda s: publish.publish(s, checkpoint_of(*operations), None))
    assert result.outcome is Outcome.CHECKSUM_MISMATCH
    assert await rows(database, "SELECT count(*) FROM ps_oplog") == [[0]]
    assert await rows(database, "SELECT count(*) FROM lists") == [[0]]


async def test_a_partial_checkpoint_leaves_rows_that_did_not_change(
    database: PowerSyncDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most operations of the bucket are new, but a row of it that is not was published from another bucket."""
    monkeypatch.setattr(publish, "FILL_FROM_OPERATIONS", 1)
    high, low, more = puts(1, 1), (replace(puts(2, 1)[0], object_id="row-1"),), puts(3, 10)

    def target(*operations: Operation) -> TrackedCheckpoint:
        buckets = {
            "high": BucketChecksum("high", sum(operation.checksum for operation in operations), 1),
            "low": BucketChecksum("low", low[0].checksum, 3),
        }
        return TrackedCheckpoint(operations[-1].op_id, None, buckets, ())

    def transaction(connection: SqlConnection) -> None:
        oplog.take_in(connection, [*receive(*high, bucket="high"), *receive(*low, bucket="low")])
        assert publish.publish(connection, target(*high), None).outcome is Outcome.PUBLISHED
        oplog.take_in(connection, receive(*more, bucket="high"))
        assert publish.publish(connection, target(*high, *more), 1).outcome is Outcome.PUBLISHED

    await inside.write(database, transaction)
    assert await rows(database, "SELECT name FROM lists WHERE id = 'row-1'") == [["name 2"]]
    assert await rows(database, "SELECT count(*) FROM lists") == [[11]]


async def test_a_broken_view_of_the_app_does_not_stop_a_first_sync(database: PowerSyncDatabase) -> None:
    """To rename a table SQLite reads all views; one may name a table that is gone."""
    await database.execute("CREATE VIEW broken AS SELECT * FROM gone")
    operations = puts(1, 100)

    def transaction(connection: SqlConnection) -> Outcome:
        oplog.take_in(connection, receive(*operations), more_follows=True)
        return publish.publish(connection, checkpoint_of(*operations), None).outcome

    assert await inside.write(database, transaction) is Outcome.PUBLISHED
    assert await rows(database, "SELECT count(*) FROM lists") == [[100]]


async def test_a_download_that_fails_to_settle_stays_staged(tmp_path: Path) -> None:
    """A transaction that is rolled back in the middle of the move leaves the file as it was before it."""
    path = tmp_path / "test.db"
    operations = puts(1, 100)
    async with PowerSyncDatabase(path, SCHEMA) as database:
        await inside.write(
            database, lambda connection: oplog.take_in(connection, receive(*operations), more_follows=True)
        )

        def settle_and_fail(connection: SqlConnection) -> None:
            staging.settle(connection)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await inside.write(database, settle_and_fail)
    async with PowerSyncDatabase(path, SCHEMA) as database:
        assert await inside.write(database, oplog.bucket_positions) == {"one": 100}
        result = await inside.write(
            database, lambda connection: publish.publish(connection, checkpoint_of(*operations), None)
        )
        assert result.outcome is Outcome.PUBLISHED
        assert await rows(database, "SELECT count(*) FROM lists") == [[100]]
