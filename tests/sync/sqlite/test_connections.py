"""Leases and transactions: nothing is left over, whenever a task is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import threading
from pathlib import Path

import pytest

from sync import DatabaseClosedError, NestedUseError, NoRowError, PowerSyncDatabase
from tests.kit import inside
from tests.sync.rig import SCHEMA, rows, within

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


async def test_get_raises_without_a_row(database: PowerSyncDatabase) -> None:
    with pytest.raises(NoRowError):
        await database.get("SELECT * FROM lists")
    assert await database.get_optional("SELECT * FROM lists") is None
    assert (await database.get("SELECT 1 AS one"))["one"] == 1


async def test_queries_cannot_write(database: PowerSyncDatabase) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await database.get_all("INSERT INTO lists(id, name) VALUES ('a', 'x') RETURNING id")


async def test_a_cancelled_query_is_broken_off_and_its_reader_returns(database: PowerSyncDatabase) -> None:
    for _ in range(10):  # more often than there are readers
        query = asyncio.create_task(database.get_all(ENDLESS))
        while not inside.idle_readers(database) < 3:
            await asyncio.sleep(0)
        await asyncio.to_thread(lambda: None)
        query.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(10, query)
    assert inside.idle_readers(database) == 3
    assert await rows(database, "SELECT 1") == [[1]]


async def test_cancelling_a_transaction_anywhere_leaves_no_half_of_it(database: PowerSyncDatabase) -> None:
    async def write() -> None:
        async with database.write_transaction() as transaction:
            await transaction.execute("INSERT INTO lists(id, name) VALUES (uuid(), 'one')")
            await transaction.execute("INSERT INTO lists(id, name) VALUES (uuid(), 'two')")

    chance = random.Random(5)
    for _ in range(200):
        task = asyncio.create_task(write())
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await within(10, write())
    found = dict(await database.get_all("SELECT name, count(*) FROM lists GROUP BY name"))
    assert found["one"] == found["two"]
    assert await rows(database, "SELECT count(*) FROM ps_crud") == [[found["one"] + found["two"]]]


async def test_a_transaction_that_sqlite_ended_takes_no_more_statements(database: PowerSyncDatabase) -> None:
    async def write() -> None:
        async with database.write_transaction() as transaction:
            await transaction.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
            with contextlib.suppress(sqlite3.IntegrityError):
                await transaction.execute("INSERT OR ROLLBACK INTO ps_data__lists(id) VALUES ('a')")
            await transaction.execute("INSERT INTO lists(id, name) VALUES ('b', 'x')")

    with pytest.raises(DatabaseClosedError, match="rolled back this transaction"):
        await write()
    assert await rows(database, "SELECT * FROM lists") == []
    assert await rows(database, "SELECT * FROM ps_crud") == []


async def test_a_child_task_of_a_transaction_is_refused_and_does_not_wait_for_ever(database: PowerSyncDatabase) -> None:
    async with database.write_transaction():
        with pytest.raises(NestedUseError):
            await within(5, asyncio.create_task(database.execute("SELECT 1")))
        with pytest.raises(NestedUseError):
            await within(5, database.close())
    assert await rows(database, "SELECT 1") == [[1]]


async def test_opening_and_closing_may_be_cancelled_anywhere(tmp_path: Path) -> None:
    for steps in range(0, 60, 3):
        database = PowerSyncDatabase(tmp_path / f"{steps}.db", SCHEMA)
        opening = asyncio.create_task(database.open())
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        closing = asyncio.create_task(database.close())
        for _ in range(steps):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        await within(5, database.close())
    async with asyncio.timeout(10):  # a thread that was told to end takes a moment to be gone
        while any("_connection_worker_thread" in thread.name for thread in threading.enumerate()):
            await asyncio.sleep(0.01)


async def test_in_memory_queries_cannot_write_either() -> None:
    async with PowerSyncDatabase(":memory:", SCHEMA) as database:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await database.get_all("INSERT INTO lists(id, name) VALUES ('a', 'x') RETURNING id")
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")


async def test_writes_wait_for_each_other(database: PowerSyncDatabase) -> None:
    async def write(number: int) -> None:
        async with database.write_transaction() as transaction:
            count = (await transaction.get("SELECT count(*) FROM lists"))[0]
            await transaction.execute("INSERT INTO lists(id, name) VALUES (?, ?)", [str(number), str(count)])

    await asyncio.gather(*(write(number) for number in range(20)))
    names = [int(row[0]) for row in await rows(database, "SELECT name FROM lists")]
    assert sorted(names) == list(range(20))


async def test_the_handle_is_dead_after_the_transaction(database: PowerSyncDatabase) -> None:
    async with database.write_transaction() as transaction:
        pass
    with pytest.raises(DatabaseClosedError):
        await transaction.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")


async def test_a_closed_database_says_so(tmp_path: Path) -> None:
    database = PowerSyncDatabase(tmp_path / "c.db", SCHEMA)
    with pytest.raises(DatabaseClosedError):
        await database.get_all("SELECT 1")
    await database.open()
    await database.close()
    for use in (database.get_all("SELECT 1"), database.execute("SELECT 1")):
        with pytest.raises(DatabaseClosedError):
            await use


async def test_closing_waits_for_what_runs(tmp_path: Path) -> None:
    database = PowerSyncDatabase(tmp_path / "c.db", SCHEMA)
    await database.open()
    writes = [
        asyncio.create_task(database.execute("INSERT INTO lists(id, name) VALUES (?, 'x')", [str(n)])) for n in range(9)
    ]
    await asyncio.sleep(0)
    await database.close()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    done = sum(not isinstance(outcome, BaseException) for outcome in outcomes)
    assert all(isinstance(outcome, (list, DatabaseClosedError)) for outcome in outcomes)
    async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as again:
        assert await rows(again, "SELECT count(*) FROM lists") == [[done]]
