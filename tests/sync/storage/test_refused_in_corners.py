"""Rejections and conflicts where tables, checkpoints and readers are not the plain ones."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from sync import (
    Accepted,
    Column,
    PowerSyncDatabase,
    RawTable,
    RawTableSchema,
    Rejected,
    Schema,
    Table,
)
from sync.storage import upload_queue
from tests.kit import inside
from tests.sync.rig import rows
from tests.sync.storage.test_conflicts import Server, told, upload
from tests.sync.storage.test_rejected_writes import Connector

SCHEMA = Schema(
    [
        Table("lists", [Column.text("name")], view_name="my_lists"),
        Table("logs", [Column.text("name")], insert_only=True),
    ],
    raw_tables=[RawTable("raw", schema=RawTableSchema(table_name="raw"))],
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[PowerSyncDatabase]:
    async with PowerSyncDatabase(tmp_path / "test.db", SCHEMA) as database:
        await database.execute("CREATE TABLE raw(id TEXT PRIMARY KEY, name TEXT)")
        await database.create_raw_table_triggers("raw")
        yield database


async def reject_all(database: PowerSyncDatabase) -> None:
    async for transaction in database.crud_transactions():
        await transaction.reject("no")


async def gate_is_open(database: PowerSyncDatabase) -> bool:
    return await inside.read(database, upload_queue.is_gate_open)


async def test_a_retried_insert_only_write_stays_unseen_and_holds_nothing_back(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO logs(id, name) VALUES ('a', 'x')")
    await reject_all(database)
    assert await gate_is_open(database)
    [rejected] = await database.rejected_writes()
    assert await rejected.retry()
    assert await rows(database, "SELECT count(*) FROM logs") == [[0]]
    assert await rows(database, "SELECT count(*) FROM ps_updated_rows") == [[0]]
    await upload(database)
    assert await gate_is_open(database)


async def test_insert_only_writes_do_not_come_back_and_are_no_conflicts(database: PowerSyncDatabase) -> None:
    server = Server(database)
    await database.execute("INSERT INTO logs(id, name) VALUES ('a', 'x')")
    await database.execute("INSERT INTO my_lists(id, name) VALUES ('b', 'mine')")
    await upload(database)
    await server.send("b", {"name": "theirs"})
    await server.complete()
    assert told(await database.conflicts()) == [("lists", "b", "name", "mine", "theirs")]


async def test_retries_show_again_by_the_views_name(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO my_lists(id, name) VALUES ('a', 'x')")
    await reject_all(database)
    await Server(database).complete()
    assert await rows(database, "SELECT count(*) FROM my_lists") == [[0]]
    [rejected] = await database.rejected_writes()
    await rejected.retry()
    assert await rows(database, "SELECT id, name FROM my_lists") == [["a", "x"]]


async def test_raw_tables_reject_and_retry(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO raw(id, name) VALUES ('a', 'x')")
    await reject_all(database)
    await Server(database).complete()
    assert await rows(database, "SELECT count(*) FROM raw") == [[0]]
    [rejected] = await database.rejected_writes()
    await rejected.retry()
    again = await database.next_crud_transaction()
    assert again is not None
    assert [(entry.table, entry.id, entry.data) for entry in again.crud] == [("raw", "a", {"name": "x"})]
    await again.complete()
    await Server(database).complete()
    assert await rows(database, "SELECT count(*) FROM raw") == [[0]]
    # A new row that did not come back may yet come with a stream that is subscribed later.
    assert told(await database.conflicts()) == []


async def test_a_retried_change_of_a_row_that_is_gone_makes_no_row(database: PowerSyncDatabase) -> None:
    server = Server(database)
    await server.send("a", {"name": "A"})
    await server.complete()
    await database.execute("UPDATE my_lists SET name = 'mine' WHERE id = 'a'")
    await reject_all(database)
    await server.send("a", None)
    await server.complete()
    [rejected] = await database.rejected_writes()
    await rejected.retry()
    assert await rows(database, "SELECT count(*) FROM my_lists") == [[0]]
    await upload(database)
    await server.complete()
    assert told(await database.conflicts()) == [("lists", "a", None, {"name": "mine"}, None)]


async def test_a_row_without_data_takes_a_retried_change(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO my_lists(id, name) VALUES ('a', 'A')")
    await upload(database)
    await database.execute("UPDATE my_lists SET name = 'mine' WHERE id = 'a'")
    await reject_all(database)
    # As an official client leaves a row that another table of its own knew nothing of.
    await inside.write(database, lambda statements: statements.execute("UPDATE ps_data__lists SET data = NULL"))
    [rejected] = await database.rejected_writes()
    await rejected.retry()
    assert await rows(database, "SELECT name FROM my_lists") == [["mine"]]


async def test_deleted_and_made_again_in_one_transaction(database: PowerSyncDatabase) -> None:
    server = Server(database)
    await server.send("a", {"name": "A"})
    await server.complete()
    async with database.write_transaction() as tx:
        await tx.execute("DELETE FROM my_lists WHERE id = 'a'")
        await tx.execute("INSERT INTO my_lists(id, name) VALUES ('a', 'again')")
    await reject_all(database)
    await server.complete()
    assert await rows(database, "SELECT name FROM my_lists") == [["A"]]
    [rejected] = await database.rejected_writes()
    assert [entry.op for entry in rejected.crud] == ["DELETE", "PUT"]
    await rejected.retry()
    assert await rows(database, "SELECT name FROM my_lists") == [["again"]]
    await upload(database)
    await server.send("a", {"name": "again"})
    await server.complete()
    assert await database.conflicts() == ()


async def test_what_was_rejected_meanwhile_is_not_uploaded_from_what_was_read_ahead(
    database: PowerSyncDatabase,
) -> None:
    for name in "abcd":
        await database.execute("INSERT INTO my_lists(id, name) VALUES (?, 'x')", [name])
    seen: list[str] = []
    async for transaction in database.crud_transactions():
        seen.append(transaction.crud[0].id)
        if seen == ["a"]:
            await (await database.crud_transaction_batch())[2].reject("no")
        await transaction.complete()
    assert seen == ["a", "b", "d"]
    assert [rejected.crud[0].id for rejected in await database.rejected_writes()] == ["c"]


@pytest.mark.parametrize("limit", [1, 100])
async def test_a_custom_checkpoint_holds_when_the_last_transaction_is_rejected(
    database: PowerSyncDatabase, limit: int
) -> None:
    for name in "ab":
        await database.execute("INSERT INTO my_lists(id, name) VALUES (?, 'x')", [name])
    connector = Connector(
        lambda transactions: [
            Accepted(checkpoint=7) if transaction.crud[0].id == "a" else Rejected("no") for transaction in transactions
        ]
    )
    connector.limits = upload_queue.BatchLimits(transactions=limit)
    await connector.upload_data(database)
    assert await inside.read(database, upload_queue.target) == 7
    state = await inside.read(database, upload_queue.queue_state)
    assert not state.checkpoint_wanted


async def test_a_backend_without_custom_checkpoints_any_more_is_asked_for_one(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO my_lists(id, name) VALUES ('a', 'x')")
    for checkpoint in (7, None):
        await database.execute("INSERT INTO my_lists(id, name) VALUES (?, 'x')", [str(checkpoint)])
        transaction = (await database.crud_transaction_batch())[-1]
        await transaction.complete(checkpoint)
    await database.execute("INSERT INTO my_lists(id, name) VALUES ('b', 'x')")
    await reject_all(database)
    assert (await inside.read(database, upload_queue.queue_state)).checkpoint_wanted


async def test_the_attempts_of_another_transaction_are_remembered(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO my_lists(id, name) VALUES ('a', 'x')")
    await reject_all(database)
    [rejected] = await database.rejected_writes()
    await rejected.retry()
    await database.execute("INSERT INTO my_lists(id, name) VALUES ('b', 'x')")
    first, second = await database.crud_transaction_batch()
    await second.reject("no")
    await first.reject("no")
    assert {each.crud[0].id: each.attempts for each in await database.rejected_writes()} == {"a": 2, "b": 1}


async def test_a_retry_while_its_table_is_gone_keeps_the_write(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO my_lists(id, name) VALUES ('a', 'x')")
    await reject_all(database)
    [rejected] = await database.rejected_writes()
    await database.update_schema(Schema([]))
    assert await rejected.retry()
    with pytest.raises(sqlite3.OperationalError, match="my_lists"):
        await database.get_all("SELECT * FROM my_lists")
    await database.update_schema(SCHEMA)
    again = await database.next_crud_transaction()
    assert again is not None
    assert again.crud[0].data == {"name": "x"}


async def test_extreme_values_survive_a_rejection_and_are_no_conflicts(tmp_path: Path) -> None:
    schema = Schema([Table("lists", [Column.text("name"), Column.integer("whole"), Column.real("real")])])
    values = ["a\0b\u2028é", 2**63 - 1, 1.7976931348623157e308]
    async with PowerSyncDatabase(tmp_path / "values.db", schema) as database:
        await database.execute("INSERT INTO lists(id, name, whole, real) VALUES ('a', ?, ?, ?)", values)
        await database.execute("INSERT INTO lists(id, whole, real) VALUES ('b', ?, 5e-324)", [-(2**63)])
        before = await rows(database, "SELECT data FROM ps_crud ORDER BY id")
        shown = await rows(database, "SELECT id, data FROM ps_data__lists ORDER BY id")
        await reject_all(database)
        server = Server(database)
        await server.complete()
        for rejected in await database.rejected_writes():
            await rejected.retry()
        assert await rows(database, "SELECT data FROM ps_crud ORDER BY id") == before
        again = await rows(database, "SELECT whole, real FROM lists ORDER BY id")
        assert again == [[2**63 - 1, 1.7976931348623157e308], [-(2**63), 5e-324]]
        assert [row[0] for row in await rows(database, "SELECT id, data FROM ps_data__lists ORDER BY id")] == ["a", "b"]
        assert len(shown) == 2
        await upload(database)
        await server.send("a", dict(zip(("name", "whole", "real"), values, strict=True)))
        await server.send("b", {"whole": -(2**63), "real": 5e-324})
        await server.complete()
        assert await database.conflicts() == ()
