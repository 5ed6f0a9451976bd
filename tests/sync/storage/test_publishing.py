"""The gate and partial checkpoints, and data whose checkpoint never comes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sync import PowerSyncDatabase
from sync.protocol import BucketChecksum, DataLine, Operation, TrackedCheckpoint
from sync.sqlite.sql_connection import SqlConnection
from sync.storage import oplog, upload_queue
from sync.storage.oplog import ReceivedData
from sync.storage.publish import Outcome, publish
from tests.kit import inside
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, ServiceConnector, rows, until_rows, within


def take_in(connection: SqlConnection, bucket: str, *operations: Operation) -> None:
    oplog.take_in(connection, [ReceivedData(DataLine(bucket, operations), 1)])


def put(op_id: int, row: str, name: str, checksum: int) -> Operation:
    return Operation(op_id, "PUT", checksum, "lists", row, "s", json.dumps({"name": name}))


def checkpoint(last_op: int, **checksums: tuple[int, int]) -> TrackedCheckpoint:
    buckets = {name: BucketChecksum(name, checksum, priority) for name, (checksum, priority) in checksums.items()}
    return TrackedCheckpoint(last_op, None, buckets, ())


@pytest.mark.parametrize(
    ("priority", "outcome"), [(0, Outcome.PUBLISHED), (1, Outcome.HELD_BACK), (None, Outcome.HELD_BACK)]
)
async def test_only_the_highest_priority_passes_while_local_writes_wait(
    database: PowerSyncDatabase, priority: int | None, outcome: Outcome
) -> None:
    await database.execute("INSERT INTO lists(id, name) VALUES ('mine', 'waiting')")

    def receive(connection: SqlConnection) -> Outcome:
        take_in(connection, "high", put(1, "a", "synced", 5))
        return publish(connection, checkpoint(1, high=(5, 0)), priority).outcome

    assert await inside.write(database, receive) is outcome
    visible = [["a"], ["mine"]] if outcome is Outcome.PUBLISHED else [["mine"]]
    assert await rows(database, "SELECT id FROM lists ORDER BY id") == visible


async def test_a_partial_checkpoint_validates_and_publishes_its_own_buckets_only(database: PowerSyncDatabase) -> None:
    def receive(connection: SqlConnection) -> Outcome:
        take_in(connection, "high", put(1, "a", "high", 5))
        take_in(connection, "low", put(2, "a", "low", 7), put(3, "b", "low", 8))
        return publish(connection, checkpoint(3, high=(5, 1), low=(999, 3)), 1).outcome

    assert await inside.write(database, receive) is Outcome.PUBLISHED
    assert await rows(database, "SELECT id, name FROM lists") == [["a", "high"]]


async def test_the_row_of_two_buckets_takes_the_newest_and_falls_back_to_the_other(
    database: PowerSyncDatabase,
) -> None:
    def receive(connection: SqlConnection) -> None:
        take_in(connection, "one", put(1, "a", "older", 5))
        take_in(connection, "two", put(2, "a", "newer", 7))
        assert publish(connection, checkpoint(2, one=(5, 3), two=(7, 3)), None).outcome is Outcome.PUBLISHED

    def remove(connection: SqlConnection) -> None:
        take_in(connection, "two", Operation(3, "REMOVE", 1, "lists", "a", "s"))
        assert publish(connection, checkpoint(3, one=(5, 3), two=(8, 3)), None).outcome is Outcome.PUBLISHED

    await inside.write(database, receive)
    assert await rows(database, "SELECT name FROM lists") == [["newer"]]
    await inside.write(database, remove)
    assert await rows(database, "SELECT name FROM lists") == [["older"]]


async def test_a_row_that_a_partial_checkpoint_showed_older_than_it_is_is_put_right_by_the_complete_one(
    database: PowerSyncDatabase,
) -> None:
    """The bucket of higher priority comes later, with an operation from before."""

    def receive(connection: SqlConnection) -> None:
        take_in(connection, "low", put(2, "a", "newer", 7))
        assert publish(connection, checkpoint(2, low=(7, 3)), None).outcome is Outcome.PUBLISHED

    def receive_high(connection: SqlConnection) -> None:
        take_in(connection, "high", put(1, "a", "older", 5))
        assert publish(connection, checkpoint(2, high=(5, 1), low=(7, 3)), 1).outcome is Outcome.PUBLISHED

    def complete(connection: SqlConnection) -> None:
        assert publish(connection, checkpoint(2, high=(5, 1), low=(7, 3)), None).outcome is Outcome.PUBLISHED

    await inside.write(database, receive)
    await inside.write(database, receive_high)
    assert await rows(database, "SELECT name FROM lists") == [["older"]]
    await inside.write(database, complete)
    assert await rows(database, "SELECT name FROM lists") == [["newer"]]


async def test_rows_of_unknown_tables_are_kept_until_a_schema_names_them(database: PowerSyncDatabase) -> None:
    def receive(connection: SqlConnection) -> None:
        take_in(connection, "one", Operation(1, "PUT", 5, "photos", "p", None, '{"size": 3}'))
        publish(connection, checkpoint(1, one=(5, 3)), None)

    def remove(connection: SqlConnection) -> None:
        take_in(connection, "one", Operation(2, "REMOVE", 1, "photos", "p"))
        publish(connection, checkpoint(2, one=(6, 3)), None)

    await inside.write(database, receive)
    assert await rows(database, "SELECT type, id, data FROM ps_untyped") == [["photos", "p", '{"size": 3}']]
    await inside.write(database, remove)
    assert await rows(database, "SELECT * FROM ps_untyped") == []


async def test_a_target_is_not_set_after_a_write_came(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    before = await inside.read(database, upload_queue.queue_state)
    await database.execute("INSERT INTO lists(id, name) VALUES ('b', 'x')")
    await database.execute("DELETE FROM ps_crud")  # as if it had been uploaded meanwhile, by whomever
    assert not await inside.write(database, lambda connection: upload_queue.set_target(connection, 5, before.last_ever))
    assert await rows(database, "SELECT value FROM ps_kv WHERE key = 'target_checkpoint_request_id'") == [
        [9223372036854775807]
    ]


def lines(*parts: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(part)}\n" for part in parts)


def wire_put(op_id: int, row: str, checksum: int) -> dict[str, Any]:
    operation = {"op_id": str(op_id), "op": "PUT", "object_type": "lists", "object_id": row, "checksum": checksum}
    return {"data": {"bucket": "b", "data": [{**operation, "subkey": "s", "data": json.dumps({"name": row})}]}}


def wire_target(kind: str, last_op: int, checksum: int, **more: Any) -> dict[str, Any]:
    buckets = [{"bucket": "b", "checksum": checksum, "count": last_op, "priority": 3}]
    key = "buckets" if kind == "checkpoint" else "updated_buckets"
    return {kind: {"last_op_id": str(last_op), key: buckets, **more}}


async def test_data_that_came_before_a_drop_is_not_downloaded_again(database: PowerSyncDatabase) -> None:
    streams: asyncio.Queue[Exchange] = asyncio.Queue()

    async def service(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await streams.put(exchange)
        if len(server.requests) == 1:
            await exchange.send(lines(wire_target("checkpoint", 2, 12), wire_put(1, "a", 5)))
            await until_downloading.wait()
            exchange.drop()
        await exchange.closed_by_client()

    until_downloading = asyncio.Event()
    async with scripted_service(service) as server:
        await database.connect(ServiceConnector(server.url), QUICK)
        await within(10, streams.get())
        async with asyncio.timeout(10):
            async for status in database.watch_status():
                if status.downloading:
                    break
        until_downloading.set()
        again = await within(10, streams.get())
        assert again.json["buckets"] == [{"name": "b", "after": "1"}]
        await again.send(lines(wire_target("checkpoint", 2, 12), wire_put(2, "b", 7)))
        await again.send(lines({"checkpoint_complete": {"last_op_id": "2"}}))
        await until_rows(database, "SELECT id FROM lists ORDER BY id", [["a"], ["b"]])


async def test_a_checkpoint_held_back_is_void_once_the_next_has_begun(database: PowerSyncDatabase) -> None:
    """Its sums no longer fit the oplog: publishing it would throw good buckets away."""
    streams: asyncio.Queue[Exchange] = asyncio.Queue()
    may_upload = asyncio.Event()

    async def service(exchange: Exchange) -> None:
        if exchange.path != "/sync/stream":
            await exchange.answer(200, {"data": {"checkpoint_request_id": exchange.json["checkpoint_request_id"]}})
            return
        await exchange.begin_stream()
        await streams.put(exchange)
        await exchange.closed_by_client()

    async def upload(database: PowerSyncDatabase) -> None:
        await may_upload.wait()
        async for transaction in database.crud_transactions():
            await transaction.complete()

    await database.execute("INSERT INTO lists(id, name) VALUES ('mine', 'x')")
    async with scripted_service(service) as server:
        await database.connect(ServiceConnector(server.url, upload), QUICK)
        stream = await within(10, streams.get())
        await stream.send(lines(wire_target("checkpoint", 1, 5, write_checkpoint="1"), wire_put(1, "a", 5)))
        await stream.send(lines({"checkpoint_complete": {"last_op_id": "1"}}))
        await until_rows(database, "SELECT count(*) FROM ps_oplog", [[1]])
        await stream.send(lines(wire_target("checkpoint_diff", 2, 12), wire_put(2, "b", 7)))
        await stream.send(lines(wire_target("checkpoint_diff", 3, 20, write_checkpoint="1")))
        await until_rows(database, "SELECT count(*) FROM ps_oplog", [[2]])
        may_upload.set()
        await until_rows(database, "SELECT value FROM ps_kv WHERE key = 'target_checkpoint_request_id'", [[1]])
        await stream.send(lines(wire_put(3, "c", 8), {"checkpoint_complete": {"last_op_id": "3"}}))
        await until_rows(database, "SELECT id FROM lists ORDER BY id", [["a"], ["b"], ["c"]])
        assert streams.empty()
