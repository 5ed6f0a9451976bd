"""Read transactions, raw connections, and rows that stream: what they see, and what is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import threading
from pathlib import Path

import aiosqlite
import pytest

from sync import DatabaseClosedError, NestedUseError, PowerSyncDatabase
from tests.kit import inside
from tests.sync.rig import SCHEMA, rows, within

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) SELECT i FROM n"
INSERT = "INSERT INTO lists(id, name) VALUES (uuid(), ?)"
COUNT = "SELECT count(*) FROM lists"


def pins_the_log(path: str) -> bool:
    """Whether anybody still reads from an older state of the file: a checkpoint of the engine itself is waited for."""
    connection = sqlite3.connect(path, timeout=5)
    try:
        return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
    finally:
        connection.close()


async def test_a_read_transaction_sees_one_state(database: PowerSyncDatabase) -> None:
    async with database.read_transaction() as reading:
        await database.execute(INSERT, ["x"])
        assert (await reading.get(COUNT))[0] == 0
        await database.execute(INSERT, ["x"])
        assert (await reading.get(COUNT))[0] == 0
        assert await rows(database, COUNT) == [[2]]
    with pytest.raises(DatabaseClosedError):
        await reading.get(COUNT)
    assert not pins_the_log(database.path)


async def test_a_read_transaction_cannot_write(either: PowerSyncDatabase) -> None:
    async with either.read_transaction() as reading:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await reading.get_all(INSERT, ["x"])
    await either.execute(INSERT, ["x"])
    assert await rows(either, COUNT) == [[1]]


async def test_more_read_transactions_than_readers_do_not_wait_for_each_other(database: PowerSyncDatabase) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            reading = await within(30, stack.enter_async_context(database.read_transaction()))
            await reading.get(COUNT)
            await within(30, database.get(COUNT))
    assert inside.spare_connections(database) == 3
    assert not inside.leased_connections(database)


async def test_in_memory_use_inside_a_read_transaction_is_refused() -> None:
    async with PowerSyncDatabase(":memory:", SCHEMA) as database:
        async with database.read_transaction():
            with pytest.raises(NestedUseError):
                await within(30, database.execute(INSERT, ["x"]))
        async with database.reader():
            with pytest.raises(NestedUseError):
                await within(30, database.get(COUNT))


async def test_rows_stream_from_one_state_while_others_write(either: PowerSyncDatabase) -> None:
    await either.execute_many(INSERT, [[str(number)] for number in range(1000)])
    seen = 0
    async for row in either.iterate("SELECT id FROM lists"):
        await either.execute("DELETE FROM lists WHERE id = ?", [row["id"]])
        seen += 1
    assert seen == 1000
    assert await rows(either, COUNT) == [[0]]


async def test_a_stream_does_not_read_ahead(database: PowerSyncDatabase) -> None:
    """Of a result without end, some rows can be had; the rest is given up."""
    stream = database.iterate(NUMBERS.format(-1))
    async with contextlib.aclosing(stream):
        assert [(await within(30, anext(stream)))[0] for _ in range(1000)] == list(range(1, 1001))
    assert not pins_the_log(database.path)


async def test_errors_of_a_stream_come_at_the_first_step(either: PowerSyncDatabase) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await anext(either.iterate("SELECT * FROM missing"))
    assert not inside.leased_connections(either)


async def test_a_stream_that_is_left_or_dropped_returns_its_connection(database: PowerSyncDatabase) -> None:
    await database.execute_many(INSERT, [["x"]] * 1000)
    async for _ in database.iterate("SELECT * FROM lists"):
        break
    async with asyncio.timeout(30):
        while inside.leased_connections(database):
            await asyncio.sleep(0)
    assert not pins_the_log(database.path)


async def test_closing_ends_streams_and_read_transactions(tmp_path: Path) -> None:
    database = PowerSyncDatabase(tmp_path / "c.db", SCHEMA)
    await database.open()
    await database.execute_many(INSERT, [["x"]] * 1000)
    stream = database.iterate("SELECT * FROM lists")
    await anext(stream)
    async with database.read_transaction() as reading, database.reader() as raw:
        await within(30, database.close())
        with pytest.raises(ValueError, match="no active connection"):
            await raw.execute("SELECT 1")
        with pytest.raises(DatabaseClosedError):
            await reading.get(COUNT)
    with pytest.raises(DatabaseClosedError):
        await anext(stream)
    assert not (tmp_path / "c.db-wal").exists()


async def test_a_raw_reader(either: PowerSyncDatabase) -> None:
    await either.execute(INSERT, ["x"])
    async with either.reader() as connection:
        assert isinstance(connection, aiosqlite.Connection)
        async with connection.execute("SELECT name FROM lists") as cursor:
            row = await cursor.fetchone()
        assert row is not None
        assert row["name"] == "x"
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await connection.execute(INSERT, ["y"])
        await connection.execute("BEGIN")
        cursor = await connection.execute(COUNT)
    with pytest.raises(ValueError, match="no active connection"):
        await connection.execute("SELECT 1")
    await either.execute(INSERT, ["y"])
    if either.path != ":memory:":
        assert not pins_the_log(either.path)


async def test_edits_by_the_raw_writer_are_queued_and_told(either: PowerSyncDatabase) -> None:
    watch = either.watch(COUNT, throttle=0)
    assert (await anext(watch))[0][0] == 0
    await either.execute(INSERT, ["prepared before"])  # SQLite keeps this statement, and would not tell its tables
    assert (await within(30, anext(watch)))[0][0] == 1
    async with either.writer() as connection:
        await connection.execute(INSERT, ["a"])
        await connection.execute(INSERT, ["b"])
        await connection.execute("BEGIN")
        await connection.executemany(INSERT, [["c"], ["d"]])
        await connection.commit()
    async with asyncio.timeout(30):
        while (await anext(watch))[0][0] != 5:
            pass
    uploads = [len(transaction.crud) async for transaction in either.crud_transactions()]
    assert uploads == [1, 1, 1, 2]


async def test_what_a_raw_writer_leaves_open_is_rolled_back(either: PowerSyncDatabase) -> None:
    async with either.writer() as connection:
        connection.row_factory = None
        await connection.execute("BEGIN")
        await connection.execute(INSERT, ["x"])
        cursor = await connection.execute(NUMBERS.format(1000))
        await cursor.fetchone()
    with pytest.raises(ValueError, match="no active connection"):
        await connection.execute(INSERT, ["late"])
    await connection.close()
    assert await rows(either, COUNT) == [[0]]
    await either.execute(INSERT, ["x"])
    assert dict(await either.get("SELECT name FROM lists")) == {"name": "x"}
    assert [len(transaction.crud) async for transaction in either.crud_transactions()] == [1]
    if either.path != ":memory:":
        assert not pins_the_log(either.path)


async def test_inside_a_raw_writer_the_database_is_refused(either: PowerSyncDatabase) -> None:
    async with either.writer():
        for use in (either.execute("SELECT 1"), either.get_all("SELECT 1"), anext(either.watch("SELECT 1"))):
            with pytest.raises(NestedUseError):
                await within(30, use)
    assert await rows(either, "SELECT 1") == [[1]]


async def test_two_databases_may_be_used_inside_each_other(database: PowerSyncDatabase) -> None:
    async with PowerSyncDatabase(":memory:", SCHEMA) as other:
        async with database.write_transaction() as outer:
            async with other.write_transaction() as inner:
                await inner.execute(INSERT, ["x"])
                with pytest.raises(NestedUseError):
                    await within(30, database.execute(INSERT, ["x"]))
            with pytest.raises(NestedUseError):
                await within(30, database.execute(INSERT, ["x"]))
            await outer.execute(INSERT, ["x"])
        assert await rows(database, COUNT) == await rows(other, COUNT) == [[1]]


async def test_whatever_is_cancelled_nothing_is_left(tmp_path: Path) -> None:
    """Every kind of call, cancelled at any step; in the end the database is closed among them all."""
    chance = random.Random(17)

    async def stream(database: PowerSyncDatabase) -> None:
        async for _ in database.iterate(NUMBERS.format(2000)):
            if chance.random() < 0.001:
                break

    async def read(database: PowerSyncDatabase) -> None:
        async with database.read_transaction() as reading:
            await reading.get(NUMBERS.format(200_000))

    async def lease(database: PowerSyncDatabase) -> None:
        async with database.reader() as connection:
            await connection.execute(NUMBERS.format(10))

    async def write(database: PowerSyncDatabase) -> None:
        async with database.writer() as connection:
            await connection.execute("BEGIN")
            await connection.execute(INSERT, ["one"])
            await connection.execute(INSERT, ["two"])
            await connection.commit()

    async def watch(database: PowerSyncDatabase) -> None:
        async for _ in database.watch(COUNT, throttle=0):
            pass

    async def diff(database: PowerSyncDatabase) -> None:
        async for _ in database.watch_diff("SELECT id FROM lists", throttle=0):
            pass

    async def insert(database: PowerSyncDatabase) -> None:
        async with database.write_transaction() as transaction:
            await transaction.execute(INSERT, ["one"])
            await transaction.execute(INSERT, ["two"])

    async def end(task: asyncio.Task[None]) -> None:
        for _ in range(chance.randrange(80)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    kinds = [stream, read, lease, write, watch, diff, insert]
    database = PowerSyncDatabase(tmp_path / "t.db", SCHEMA)
    await database.open()
    for _ in range(40):
        await asyncio.gather(*(end(asyncio.create_task(chance.choice(kinds)(database))) for _ in range(5)))
    # A stream that was left is closed by a task of the event loop, a write that was cancelled is carried out, and the
    # engine itself reads after a commit.
    async with asyncio.timeout(10):
        while (
            inside.leased_connections(database)
            or inside.idle_readers(database) != 3
            or inside.is_write_locked(database)
        ):
            await asyncio.sleep(0)
    assert inside.spare_connections(database) <= 3
    assert not inside.is_write_locked(database)
    assert not pins_the_log(database.path)
    counts = dict(await database.get_all("SELECT name, count(*) FROM lists GROUP BY name"))
    assert counts.get("one") == counts.get("two")

    tasks = [asyncio.create_task(kind(database)) for kind in kinds * 2]
    for _ in range(chance.randrange(60)):
        await asyncio.sleep(0)
    await within(10, database.close())
    for outcome in await within(10, asyncio.gather(*tasks, return_exceptions=True)):
        assert outcome is None or isinstance(outcome, (DatabaseClosedError, ValueError)), outcome
    assert not (tmp_path / "t.db-wal").exists()
    async with asyncio.timeout(10):
        while any("_connection_worker_thread" in thread.name for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
