"""Watched queries: what wakes them, what does not, and what they deliver."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import sqlite3

import pytest

from sync import PowerSyncDatabase, Watch
from tests.sync.rig import within

COUNTS = """
    WITH open AS (SELECT list_id, count(*) AS number FROM todos WHERE NOT completed GROUP BY list_id)
    SELECT l.id, l.name, ifnull(open.number, 0) FROM lists l LEFT JOIN open ON open.list_id = l.id ORDER BY l.id
"""


async def result(watch: Watch) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await within(10, anext(watch))]


async def nothing_comes(database: PowerSyncDatabase, watch: Watch) -> None:
    """No result waits: a commit made now is delivered by itself, with nothing before it."""
    step = asyncio.ensure_future(anext(watch))
    other = database.watch("SELECT count(*) FROM lists", throttle=0)
    await anext(other)
    await database.execute("INSERT INTO lists(id, name) VALUES (uuid(), 'another')")
    await anext(other)
    assert not step.done()
    step.cancel()
    await asyncio.gather(step, return_exceptions=True)


async def test_the_first_result_comes_at_once_and_then_each_change(database: PowerSyncDatabase) -> None:
    watch = database.watch(COUNTS, throttle=0)
    assert await result(watch) == []
    await database.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home')")
    assert await result(watch) == [("l", "Home", 0)]
    await database.execute("INSERT INTO todos(id, list_id, completed) VALUES ('t', 'l', 0)")
    assert await result(watch) == [("l", "Home", 1)]
    async with database.write_transaction() as transaction:
        await transaction.execute("UPDATE todos SET completed = 1")
        await transaction.execute("UPDATE lists SET name = 'House'")
    assert await result(watch) == [("l", "House", 0)]


async def test_source_tables_are_found_through_triggers_and_statements_used_before(database: PowerSyncDatabase) -> None:
    """A statement that SQLite has prepared before is not prepared again: its tables must be remembered."""
    watch = database.watch("SELECT count(*) FROM todos", throttle=0)
    assert await result(watch) == [(0,)]
    for number in range(1, 4):
        await database.execute("INSERT INTO todos(id, list_id) VALUES (uuid(), ?)", ["l"])
        assert await result(watch) == [(number,)]


async def test_a_commit_that_changes_nothing_here_is_not_delivered(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO todos(id, description) VALUES ('t', 'Milk')")
    watch = database.watch("SELECT description FROM todos", throttle=0)
    assert await result(watch) == [("Milk",)]
    await database.execute("UPDATE todos SET completed = 1")
    await nothing_comes(database, watch)


async def announced(database: PowerSyncDatabase, *statements: str) -> list[frozenset[str] | None]:
    """What each commit told of itself."""
    told: list[frozenset[str] | None] = []
    database._pool.listen(told.append)
    for statement in statements:
        await database.execute(statement)
    await asyncio.sleep(0)
    return told


async def test_each_commit_tells_once_which_tables_it_changed(database: PowerSyncDatabase) -> None:
    insert = "INSERT INTO todos(id, description) VALUES (uuid(), 'x')"
    none = "UPDATE todos SET description = 'y' WHERE id = 'missing'"
    queue = {"ps_crud", "ps_tx", "ps_kv", "ps_updated_rows"}
    told = await announced(database, insert, insert, none, "SELECT 1", "DELETE FROM ps_data__todos")
    # The time of a queued change is noted once a second.
    assert [set(tables or ()) - {"ps_crud_times"} for tables in told] == [
        {"todos", "ps_data__todos", *queue},
        {"todos", "ps_data__todos", *queue},
        {"ps_data__todos"},
    ]


async def test_statements_that_virtual_tables_prepare_meanwhile_hide_nothing(database: PowerSyncDatabase) -> None:
    """A full-text index kept by a trigger, as in PowerSync's own guide."""
    await database.execute("CREATE VIRTUAL TABLE fts USING fts5(id, description)")
    await database.execute(
        "CREATE TRIGGER fts_insert AFTER INSERT ON ps_data__todos BEGIN"
        " INSERT INTO fts(id, description) VALUES (NEW.id, json_extract(NEW.data, '$.description')); END"
    )
    insert = "INSERT INTO todos(id, description) VALUES (uuid(), 'some words to index')"
    for tables in await announced(database, *[insert] * 40):
        assert tables is not None
        assert "ps_data__todos" in tables


async def test_a_rolled_back_statement_is_not_announced(database: PowerSyncDatabase) -> None:
    told: list[frozenset[str] | None] = []
    database._pool.listen(told.append)
    with pytest.raises(sqlite3.IntegrityError):
        await database.execute("INSERT INTO todos(id) VALUES ('a'), (NULL)")
    await asyncio.sleep(0)
    assert told == []


async def test_a_slow_reader_gets_only_the_newest(database: PowerSyncDatabase) -> None:
    watch = database.watch("SELECT count(*) FROM lists", throttle=0)
    assert await result(watch) == [(0,)]
    for _ in range(20):
        await database.execute("INSERT INTO lists(id, name) VALUES (uuid(), 'x')")
    assert await result(watch) == [(20,)]


async def test_a_burst_makes_few_results_and_the_last_is_right(database: PowerSyncDatabase) -> None:
    watch = database.watch("SELECT count(*) FROM lists", throttle=0.2)
    assert await result(watch) == [(0,)]
    loop = asyncio.get_running_loop()
    delivered: list[tuple[float, object]] = []

    async def follow() -> None:
        while not delivered or delivered[-1][1] != 20:
            count = (await result(watch))[0][0]
            delivered.append((loop.time(), count))

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(follow())
        for _ in range(20):
            await database.execute("INSERT INTO lists(id, name) VALUES (uuid(), 'x')")
    times = [time for time, _ in delivered]
    assert all(later - earlier >= 0.19 for earlier, later in itertools.pairwise(times))


async def test_errors_in_the_sql_are_raised_at_the_first_step(database: PowerSyncDatabase) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table: missing"):
        await anext(database.watch("SELECT * FROM missing"))
    with pytest.raises(sqlite3.ProgrammingError):
        await anext(database.watch("SELECT * FROM lists WHERE id = ?"))


async def test_a_cancelled_step_loses_no_change(database: PowerSyncDatabase) -> None:
    watch = database.watch("SELECT count(*) FROM lists", throttle=0)
    assert await result(watch) == [(0,)]
    chance = random.Random(3)
    for _ in range(50):
        step = asyncio.ensure_future(anext(watch))
        await database.execute("INSERT INTO lists(id, name) VALUES (uuid(), 'x')")
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
    await database.execute("INSERT INTO lists(id, name) VALUES (uuid(), 'x')")
    assert await result(watch) == [(51,)]


async def test_closing_the_database_ends_watches(tmp_path) -> None:
    from tests.sync.rig import SCHEMA

    database = PowerSyncDatabase(tmp_path / "c.db", SCHEMA)
    await database.open()
    watch = database.watch("SELECT * FROM lists")
    assert await result(watch) == []
    waiting = asyncio.ensure_future(anext(watch))
    statuses = database.watch_status()
    await anext(statuses)
    await asyncio.sleep(0)
    await database.close()
    for step in (waiting, anext(watch), anext(statuses)):
        with pytest.raises(StopAsyncIteration):
            await within(10, step)
    await database.close()


async def test_a_closed_watch_ends(database: PowerSyncDatabase) -> None:
    watch = database.watch("SELECT * FROM lists")
    assert await result(watch) == []
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    await watch.aclose()
    with pytest.raises(StopAsyncIteration):
        await within(10, waiting)


async def test_a_watch_that_is_dropped_is_forgotten(database: PowerSyncDatabase) -> None:
    for _ in range(10):
        await anext(database.watch("SELECT * FROM lists"))
    gc.collect()
    assert len(database._watched._watches) == 0


async def test_watches_are_right_after_random_writes(database: PowerSyncDatabase) -> None:
    """Whatever was committed: the last result of each watch equals a fresh query."""
    queries = [COUNTS, "SELECT count(*) FROM todos", "SELECT id, description FROM todos ORDER BY id"]
    newest: dict[str, list[tuple[object, ...]]] = {}

    async def follow(sql: str) -> None:
        async for found in database.watch(sql, throttle=0):
            newest[sql] = [tuple(row) for row in found]

    chance = random.Random(11)
    async with asyncio.TaskGroup() as group:
        followers = [group.create_task(follow(sql)) for sql in queries]
        for number in range(200):
            match chance.randrange(4):
                case 0:
                    await database.execute("INSERT INTO lists(id, name) VALUES (?, 'x')", [str(number)])
                case 1:
                    await database.execute("INSERT INTO todos(id, list_id, completed) VALUES (uuid(), '0', 0)")
                case 2:
                    await database.execute("UPDATE todos SET description = ?", [str(number)])
                case _:
                    await database.execute("DELETE FROM todos WHERE id = (SELECT min(id) FROM todos)")
        for sql in queries:
            expected = [tuple(row) for row in await database.get_all(sql)]
            async with asyncio.timeout(10):
                while newest.get(sql) != expected:
                    await asyncio.sleep(0)
        for follower in followers:
            follower.cancel()
