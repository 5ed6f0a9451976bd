"""Values that this client uploaded and that came back as others are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sync import PowerSyncDatabase, Schema, Table
from sync.protocol.checkpoints import TrackedCheckpoint
from sync.protocol.lines import BucketChecksum, DataLine, Operation
from sync.storage import oplog, publish, upload_queue
from sync.storage.oplog import ReceivedData
from tests.kit import inside
from tests.sync.rig import within


class Server:
    """The service's side: one bucket."""

    def __init__(self, database: PowerSyncDatabase) -> None:
        self._database = database
        self._last_op = 0
        self._checksum = 0

    async def send(self, row_id: str, data: dict[str, Any] | None) -> None:
        self._last_op += 1
        self._checksum += 1
        operation = Operation(
            self._last_op,
            "REMOVE" if data is None else "PUT",
            1,
            "lists",
            row_id,
            "k",
            None if data is None else json.dumps(data),
        )
        line = ReceivedData(DataLine("b", (operation,)), 1)
        await inside.write(self._database, lambda statements: oplog.take_in(statements, [line]))

    async def complete(self) -> publish.Outcome:
        """A complete checkpoint that includes all uploads."""

        def take(statements) -> publish.Outcome:
            request = upload_queue.next_checkpoint_request_id(statements)
            state = upload_queue.queue_state(statements)
            upload_queue.set_target(statements, request, state.last_ever)
            buckets = {"b": BucketChecksum("b", self._checksum)} if self._last_op else {}
            target = TrackedCheckpoint(self._last_op, request, buckets, ())
            return publish.publish(statements, target, None, self._database.schema.raw_tables).outcome

        return await inside.write(self._database, take)


@pytest.fixture
def server(database: PowerSyncDatabase) -> Server:
    return Server(database)


async def upload(database: PowerSyncDatabase) -> None:
    async for transaction in database.crud_transactions():
        await transaction.complete()


def told(found) -> list[tuple[str, str, str | None, Any, Any]]:
    return [(each.table, each.row_id, each.column, each.mine, each.theirs) for each in found]


async def test_a_value_that_came_back_as_another(database: PowerSyncDatabase, server: Server) -> None:
    await database.execute("INSERT INTO lists(id, name, owner_id) VALUES ('a', 'mine', 'me')")
    await upload(database)
    await server.send("a", {"name": "theirs", "owner_id": "me"})
    assert await server.complete() is publish.Outcome.PUBLISHED
    assert told(await database.conflicts()) == [("lists", "a", "name", "mine", "theirs")]
    # It is told once: later checkpoints are news, not conflicts.
    await server.send("a", {"name": "newer", "owner_id": "me"})
    await server.complete()
    assert len(await database.conflicts()) == 1


async def test_what_came_back_as_it_was_is_no_conflict(database: PowerSyncDatabase, server: Server) -> None:
    await database.execute("INSERT INTO lists(id, name, created_at) VALUES ('a', 'mine', '2026-01-01T10:00:00+00:00')")
    await database.execute("UPDATE lists SET name = 'second', owner_id = NULL WHERE id = 'a'")
    await upload(database)
    # PostgreSQL writes the same time in a form of its own, and a column that is missing is null.
    await server.send("a", {"name": "second", "created_at": "2026-01-01 10:00:00Z", "more": 1})
    await server.complete()
    assert await database.conflicts() == ()


async def test_what_is_only_inserted_is_not_expected_back(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "log.db", Schema([Table("log", [], insert_only=True)])) as database:
        await database.execute("INSERT INTO log(id) VALUES ('a')")
        await upload(database)
        assert await Server(database).complete() is publish.Outcome.PUBLISHED
        assert await database.conflicts() == ()


async def test_nothing_is_told_while_writes_wait(database: PowerSyncDatabase, server: Server) -> None:
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'mine')")
    await upload(database)
    await database.execute("UPDATE lists SET name = 'more' WHERE id = 'a'")
    await server.send("a", {"name": "theirs"})
    assert await server.complete() is publish.Outcome.HELD_BACK
    assert await database.conflicts() == ()
    await upload(database)
    await server.complete()
    assert told(await database.conflicts()) == [("lists", "a", "name", "more", "theirs")]


async def test_deleted_here_and_changed_there_and_the_other_way_round(
    database: PowerSyncDatabase, server: Server
) -> None:
    await server.send("a", {"name": "A"})
    await server.send("b", {"name": "B"})
    await server.complete()
    await database.execute("DELETE FROM lists WHERE id = 'a'")
    await database.execute("UPDATE lists SET name = 'BB' WHERE id = 'b'")
    await upload(database)
    await server.send("a", {"name": "still here"})
    await server.send("b", None)
    await server.complete()
    assert told(await database.conflicts()) == [
        ("lists", "a", None, None, {"name": "still here"}),
        ("lists", "b", None, {"name": "BB"}, None),
    ]


async def test_a_new_row_whose_stream_is_not_subscribed_yet_is_no_conflict(
    database: PowerSyncDatabase, server: Server
) -> None:
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'mine')")
    await upload(database)
    await server.complete()
    assert await database.conflicts() == ()


async def test_a_rejected_write_is_no_conflict(database: PowerSyncDatabase, server: Server) -> None:
    await server.send("a", {"name": "A"})
    await server.complete()
    await database.execute("UPDATE lists SET name = 'mine' WHERE id = 'a'")
    transaction = await database.next_crud_transaction()
    assert transaction is not None
    await transaction.reject("no")
    await server.complete()
    assert await database.conflicts() == ()


async def test_conflicts_are_watched_and_dismissed(database: PowerSyncDatabase, server: Server) -> None:
    watch = database.watch_conflicts()
    assert await within(10, anext(watch)) == ()
    for row in "ab":
        await database.execute("INSERT INTO lists(id, name) VALUES (?, 'mine')", [row])
        await server.send(row, {"name": "theirs"})
    await upload(database)
    await server.complete()
    found = await within(10, anext(watch))
    assert [each.row_id for each in found] == ["a", "b"]
    await database.dismiss_conflicts(found[0])
    assert [each.row_id for each in await within(10, anext(watch))] == ["b"]
