"""The rows that commits changed, as they are told to who follows them."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping

import pytest

from sync import Column, PowerSyncDatabase, Schema, Table
from tests.sync.rig import QUICK, ServiceConnector, rows, within
from tests.sync.stepwise import COMPLETE, LAST_OP, bucket, checkpoint, data, diff, stepwise

ANY = None


async def told(stream: AsyncIterator[Mapping[str, frozenset[str] | None]]) -> dict[str, set[str] | None]:
    return {table: None if ids is None else set(ids) for table, ids in (await within(10, anext(stream))).items()}


async def test_rows_are_told_by_their_ids(either: PowerSyncDatabase) -> None:
    changes = either.on_row_change(["lists", "todos"], throttle=0)
    assert await told(changes) == {"lists": ANY, "todos": ANY}
    await either.execute("INSERT INTO lists(id, name) VALUES ('a', 'x'), ('b', 'x')")
    assert await told(changes) == {"lists": {"a", "b"}}
    async with either.write_transaction() as transaction:
        await transaction.execute("UPDATE lists SET name = 'y' WHERE id = 'a'")
        await transaction.execute("INSERT INTO todos(id) VALUES ('t')")
        await transaction.execute("DELETE FROM todos")
    assert await told(changes) == {"lists": {"a"}, "todos": {"t"}}
    await either.execute("DELETE FROM lists")
    assert await told(changes) == {"lists": {"a", "b"}}


async def test_commits_since_the_last_step_are_told_together(database: PowerSyncDatabase) -> None:
    one, other = (database.on_row_change("lists", throttle=0) for _ in range(2))
    assert await told(one) == await told(other) == {"lists": ANY}
    for name in "ab":
        await database.execute("INSERT INTO lists(id) VALUES (?)", [name])
    assert await told(one) == {"lists": {"a", "b"}}
    await database.execute("INSERT INTO lists(id) VALUES ('c')")
    assert await told(one) == {"lists": {"c"}}
    assert await told(other) == {"lists": {"a", "b", "c"}}


async def test_what_is_read_after_a_step_holds_what_it_told(database: PowerSyncDatabase) -> None:
    """A commit is told only once it is one; rows of a transaction that is open are not told early."""
    changes = database.on_row_change("lists", throttle=0)
    await told(changes)
    waiting = asyncio.ensure_future(anext(changes))
    async with database.write_transaction() as transaction:
        await transaction.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        await transaction.get_all("SELECT 1")
        assert not waiting.done()
    assert await within(10, waiting) == {"lists": {"a"}}
    assert await rows(database, "SELECT id FROM lists") == [["a"]]


async def test_the_raw_writer_is_heard_too(database: PowerSyncDatabase) -> None:
    changes = database.on_row_change("lists", throttle=0)
    await told(changes)
    async with database.writer() as connection:
        await connection.execute("INSERT INTO lists(id) VALUES ('raw')")
        assert await told(changes) == {"lists": {"raw"}}


async def test_what_the_service_sends_is_told_when_it_is_published(database: PowerSyncDatabase) -> None:
    changes = database.on_row_change(["lists"], throttle=0)
    await told(changes)
    async with stepwise(checkpoint(bucket("b", [1, 2]))) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await within(10, service.streams.get())
        await service.send(data("b", [1, 2]), COMPLETE)
        assert await told(changes) == {"lists": {"list-1", "list-2"}}
        newer = LAST_OP + 1
        await service.send(diff(bucket("b", [1, 2, newer]), last_op_id=str(newer)), data("b", [newer]))
        await service.send({"checkpoint_complete": {"last_op_id": str(newer)}})
        assert await told(changes) == {"lists": {f"list-{newer}"}}


async def test_of_very_many_rows_only_the_table_is_told(database: PowerSyncDatabase) -> None:
    changes = database.on_row_change(["lists", "todos"], throttle=0)
    await told(changes)
    numbers = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT ?)"
    many = f"{numbers} INSERT INTO lists(id) SELECT printf('%s%d', ?, n) FROM n"
    await database.execute(many, [1000, "a"])
    found = await told(changes)
    assert len(found["lists"] or ()) == 1000
    await database.execute("DELETE FROM lists WHERE id = 'a1'")
    await database.execute("INSERT INTO todos(id) VALUES ('t')")
    await database.execute(many, [1001, "b"])
    assert await told(changes) == {"lists": ANY, "todos": {"t"}}


async def test_a_commit_of_another_process_may_have_changed_any_row(database: PowerSyncDatabase) -> None:
    changes = database.on_row_change(["todos"], throttle=0)
    await told(changes)
    program = f"""if True:
        import sqlite3
        connection = sqlite3.connect({database.path!r})
        connection.execute("INSERT INTO ps_data__todos(id, data) VALUES ('t', '{{}}')")
        connection.commit()
    """
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await within(20, process.wait()) == 0
    assert await told(changes) == {"todos": ANY}
    await database.execute("INSERT INTO todos(id) VALUES ('u')")
    assert await told(changes) == {"todos": {"u"}}


async def test_it_goes_on_when_the_schema_changed(database: PowerSyncDatabase) -> None:
    """A table behind a view is dropped and made anew: the triggers on the old one are gone."""
    changes = database.on_row_change(["lists", "todos"], throttle=0)
    await told(changes)
    lists = Table("lists", [Column.text("name")])
    await database.update_schema(Schema([lists, Table("todos", [Column.text("description")], local_only=True)]))
    while ANY not in (await told(changes)).values():
        pass
    await database.execute("INSERT INTO todos(id) VALUES ('here only')")
    assert await told(changes) == {"todos": {"here only"}}


async def test_a_table_of_the_apps_own_that_is_made_anew(database: PowerSyncDatabase) -> None:
    async with database.write_transaction() as transaction:
        await transaction.execute("CREATE TABLE own(id TEXT)")
    changes = database.on_row_change("own", throttle=0)
    await told(changes)
    async with database.write_transaction() as transaction:
        await transaction.execute("DROP TABLE own")
        await transaction.execute("CREATE TABLE own(id TEXT)")
    assert await told(changes) == {"own": ANY}
    await database.execute("INSERT INTO own VALUES ('a')")
    await database.execute("UPDATE own SET id = 'b'")
    assert await told(changes) == {"own": {"a", "b"}}


async def test_a_table_by_both_of_its_names(database: PowerSyncDatabase) -> None:
    known, behind = database.on_row_change("lists", throttle=0), database.on_row_change("ps_data__lists", throttle=0)
    assert (await told(known), await told(behind)) == ({"lists": ANY}, {"ps_data__lists": ANY})
    await database.execute("INSERT INTO lists(id) VALUES ('a')")
    assert (await told(known), await told(behind)) == ({"lists": {"a"}}, {"ps_data__lists": {"a"}})


async def test_a_table_that_is_not_there_or_has_no_ids(database: PowerSyncDatabase) -> None:
    async with database.write_transaction() as transaction:
        await transaction.execute("CREATE TABLE own(a)")
    for table in ("nowhere", "own"):
        with pytest.raises(sqlite3.OperationalError, match="no such"):
            await within(10, anext(database.on_row_change(table)))
    await database.execute("INSERT INTO own VALUES (1)")
    assert await rows(database, "SELECT a FROM own") == [[1]]


async def test_nothing_of_it_is_in_the_file(database: PowerSyncDatabase) -> None:
    before = await rows(database, "SELECT name FROM sqlite_master ORDER BY name")
    await told(database.on_row_change(["lists", "todos"]))
    assert await rows(database, "SELECT name FROM sqlite_master ORDER BY name") == before


async def test_it_ends_with_the_database(database: PowerSyncDatabase) -> None:
    changes = database.on_row_change("lists", throttle=0)
    await told(changes)
    waiting = asyncio.ensure_future(anext(changes))
    await database.close()
    with pytest.raises(StopAsyncIteration):
        await within(10, waiting)
