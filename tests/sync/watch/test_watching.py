"""Watched queries: what wakes them, what does not, and what they deliver."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import sqlite3
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sync import PowerSyncDatabase, Watch
from tests.kit import inside
from tests.sync.rig import held_by_another_process, held_reads, within

COUNTS = """
    WITH open AS (SELECT list_id, count(*) AS number FROM todos WHERE NOT completed GROUP BY list_id)
    SELECT l.id, l.name, ifnull(open.number, 0) FROM lists l LEFT JOIN open ON open.list_id = l.id ORDER BY l.id
"""


async def result(watch: Watch[Any]) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await within(10, anext(watch))]


async def nothing_comes(database: PowerSyncDatabase, watch: Watch[Any]) -> None:
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


async def test_a_write_whose_caller_was_cancelled_is_told_all_the_same(database: PowerSyncDatabase) -> None:
    watch = database.watch("SELECT count(*) FROM lists", throttle=0)
    assert await result(watch) == [(0,)]
    with held_by_another_process(database):
        write = asyncio.ensure_future(database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the writer's thread has the statement, and waits for the file
        write.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await write
    assert await result(watch) == [(1,)]


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
    inside.on_commit(database, told.append)
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
    inside.on_commit(database, told.append)
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


async def test_what_a_cancelled_step_was_reading_comes_with_the_next(database: PowerSyncDatabase) -> None:
    watch = database.watch("SELECT count(*) FROM lists", throttle=0)
    assert await result(watch) == [(0,)]
    await database.execute("INSERT INTO lists(id, name) VALUES (uuid(), 'x')")
    async with held_reads(database, "FROM lists") as reached:
        step = asyncio.ensure_future(anext(watch))
        await reached()
        step.cancel()
    await asyncio.gather(step, return_exceptions=True)
    assert await result(watch) == [(1,)]


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
    assert inside.watch_count(database) == 0


async def test_the_app_may_name_the_tables_itself(database: PowerSyncDatabase) -> None:
    watch = database.watch("SELECT count(*) FROM lists", tables=["todos"], throttle=0)
    assert await result(watch) == [(0,)]
    await nothing_comes(database, watch)
    await database.execute("INSERT INTO todos(id) VALUES ('t')")
    assert await result(watch) == [(1,)]


async def test_a_throttled_watch_ends_at_once(database: PowerSyncDatabase) -> None:
    watch = database.watch("SELECT count(*) FROM lists", throttle=1000)
    assert await result(watch) == [(0,)]
    waiting = asyncio.ensure_future(anext(watch))
    await database.execute("INSERT INTO lists(id, name) VALUES (uuid(), 'x')")
    await watch.aclose()
    with pytest.raises(StopAsyncIteration):
        await within(10, waiting)


async def test_source_tables_are_found_again_after_the_schema_changed(database: PowerSyncDatabase) -> None:
    """A view that reads another table from here on, and a trigger that begins to write one."""
    await database.execute("CREATE TABLE one(a)")
    await database.execute("CREATE TABLE two(a)")
    await database.execute("CREATE VIEW both AS SELECT a FROM one")
    watch = database.watch("SELECT count(*) FROM both", throttle=0)
    assert await result(watch) == [(0,)]
    await database.execute("INSERT INTO one VALUES (1)")
    assert await result(watch) == [(1,)]
    async with database.write_transaction() as transaction:
        await transaction.execute("DROP VIEW both")
        await transaction.execute("CREATE VIEW both AS SELECT a FROM two")
    assert await result(watch) == [(0,)]
    await database.execute("INSERT INTO two VALUES (1)")
    assert await result(watch) == [(1,)]
    await database.execute("CREATE TRIGGER copy AFTER INSERT ON one BEGIN INSERT INTO two VALUES (NEW.a); END")
    await database.execute("INSERT INTO one VALUES (1)")  # the same text as before, which did not write this table
    assert await result(watch) == [(2,)]
    await database.execute("DROP TRIGGER copy")
    runs = await query_runs(database)
    step = asyncio.ensure_future(anext(watch))
    await database.execute("INSERT INTO one VALUES (1)")
    await database.execute("INSERT INTO two VALUES (1)")
    assert [tuple(row) for row in await within(10, step)] == [(3,)]
    # One run at most for the dropped trigger, whose commit may concern any query, and one for the last insert.
    assert 1 <= sum("FROM both" in sql for sql in runs) <= 2


@pytest.mark.parametrize("during_a_read", [False, True])
async def test_a_commit_while_the_query_is_read_with_a_new_schema_is_seen(
    database: PowerSyncDatabase, during_a_read: bool
) -> None:
    """Its source tables are known only once it was read, and from a read that the change did not overtake."""

    async def change() -> None:
        async with database.write_transaction() as transaction:
            await transaction.execute("DROP VIEW both")
            await transaction.execute("CREATE VIEW both AS SELECT a FROM two")

    await database.execute("CREATE TABLE one(a)")
    await database.execute("CREATE TABLE two(a)")
    await database.execute("CREATE VIEW both AS SELECT a FROM one")
    watch = database.watch("SELECT count(*) FROM both", throttle=0)
    assert await result(watch) == [(0,)]
    await database.execute("INSERT INTO one VALUES (1)")
    if during_a_read:
        async with held_reads(database, "FROM both") as reached:
            step = asyncio.ensure_future(result(watch))
            await reached()
            await change()
        assert await step == [(1,)]
    else:
        assert await result(watch) == [(1,)]
        await change()
    async with held_reads(database, "FROM both") as reached:
        step = asyncio.ensure_future(result(watch))
        await reached()
        await database.execute("INSERT INTO two VALUES (1), (2)")
    assert await step == [(0,)]
    assert await result(watch) == [(2,)]


async def query_runs(database: PowerSyncDatabase) -> list[str]:
    """From here on, the text of every statement that a reader runs."""
    runs: list[str] = []
    await inside.trace_readers(database, runs.append)
    return runs


async def changes(stream: AsyncIterator[frozenset[str]]) -> set[str]:
    return set(await within(10, anext(stream)))


async def test_changes_of_tables_are_told_by_the_names_of_the_app(database: PowerSyncDatabase) -> None:
    some = database.on_change(["todos", "own"], throttle=0)
    all_of_them = database.watch_all_updates(throttle=0)
    await database.execute("CREATE TABLE own(a)")
    await database.execute("INSERT INTO lists(id, name) VALUES ('l', 'x')")
    assert await changes(all_of_them) == {"lists"}
    await database.execute("INSERT INTO ps_data__todos(id, data) VALUES ('t', '{}')")  # as the sync does it
    assert await changes(all_of_them) == await changes(some) == {"todos"}
    await database.execute("INSERT INTO own VALUES (1)")
    await database.execute("UPDATE todos SET description = 'x'")
    assert await changes(all_of_them) == await changes(some) == {"todos", "own"}
    waiting = asyncio.ensure_future(anext(some))
    await asyncio.sleep(0)
    await some.aclose()
    with pytest.raises(StopAsyncIteration):
        await within(10, waiting)


async def test_a_commit_of_another_process_is_told_for_all_tables(database: PowerSyncDatabase) -> None:
    some = database.on_change(["todos"], throttle=0)
    own = database.on_change(["own"], throttle=0)
    all_of_them = database.watch_all_updates(throttle=0)
    counts = database.watch("SELECT count(*) FROM ps_data__todos", throttle=0)
    assert await result(counts) == [(0,)]
    program = f"""if True:
        import sqlite3
        connection = sqlite3.connect({database.path!r})
        connection.execute("INSERT INTO ps_data__todos(id, data) VALUES ('t', '{{}}')")
        connection.commit()
    """
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await within(20, process.wait()) == 0
    assert await result(counts) == [(1,)]
    assert await changes(some) == {"todos"}
    assert await changes(own) == {"own"}
    assert await changes(all_of_them) == {"lists", "todos"}


COMMITS = int(os.environ.get("TODO_TUI_RANDOM_COMMITS", "1000"))
TABLES = ("lists", "todos", "own")
SHAPES = (
    "SELECT count(*) FROM {0}",
    "SELECT id FROM {0} WHERE id > '{number}' ORDER BY id LIMIT 5",
    "SELECT a.id FROM {0} a JOIN {1} b ON a.id = b.id ORDER BY a.id LIMIT 20",
    "WITH some AS (SELECT id FROM {0}) SELECT count(*) FROM some WHERE id IN (SELECT id FROM {1})",
    "SELECT max(id), (SELECT min(id) FROM {1}) FROM {0}",
    "SELECT count(*) FROM {0}_view",
)


@pytest.mark.timeout(600)
async def test_random_commits_wake_whom_they_concern_and_nobody_else(database: PowerSyncDatabase) -> None:
    """50 overlapping queries: the last result of each equals a fresh query, and no commit to other tables runs it."""
    chance = random.Random(COMMITS)
    await database.execute("CREATE TABLE own(id TEXT PRIMARY KEY, name)")
    for table in TABLES:
        await database.execute(f"CREATE VIEW {table}_view AS SELECT id FROM {table}")
    queries: dict[str, set[str]] = {}
    for number in range(50):
        tables = chance.sample(TABLES, 2)
        shape = SHAPES[number % len(SHAPES)]
        sql = f"{shape.format(*tables, number=chance.randrange(100))} -- {number}"
        queries[sql] = {tables[0], *(tables[1:] if "{1}" in shape else [])}
    newest: dict[str, list[tuple[object, ...]]] = {}

    async def follow(sql: str) -> None:
        async for found in database.watch(sql, throttle=0):
            newest[sql] = [tuple(row) for row in found]

    async def commit() -> set[str]:
        touched = set(chance.sample(TABLES, chance.choice([1, 1, 1, 2])))
        async with database.write_transaction() as transaction:
            for table in sorted(touched):
                row_id = str(chance.randrange(100))
                match chance.randrange(3):
                    case 0:
                        await transaction.execute(f"DELETE FROM {table} WHERE id = ?", [row_id])
                    case 1:
                        await transaction.execute(f"UPDATE {table} SET id = id WHERE id = ?", [row_id])
                    case _:
                        await transaction.execute(f"INSERT OR IGNORE INTO {table}(id) VALUES (?)", [row_id])
        return touched

    def at_rest() -> bool:
        return not inside.is_any_watch_due(database) and inside.are_readers_at_rest(database)

    async def all_right() -> None:
        expected = {sql: [tuple(row) for row in await database.get_all(sql)] for sql in queries}
        async with asyncio.timeout(30):
            while newest != expected or not at_rest():
                await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as group:
        followers = [group.create_task(follow(sql)) for sql in queries]
        await all_right()
        done = 0
        while done < COMMITS:
            # A round of commits that leaves some tables alone, then all watches at rest.
            touched: set[str] = set()
            runs = await query_runs(database)
            for _ in range(chance.randrange(1, 20)):
                touched |= await commit()
                done += 1
                if len(touched) == len(TABLES) and chance.random() < 0.5:
                    break
            await database.execute("SELECT 1")
            await asyncio.sleep(0)  # the last commit was told
            concerned = {sql for sql, tables in queries.items() if tables & touched}
            spurious = set(runs) & (queries.keys() - concerned)
            assert not spurious, (touched, spurious)
            await all_right()
        for follower in followers:
            follower.cancel()
