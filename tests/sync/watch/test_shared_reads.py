"""Quick reads that share a hop to the connection's thread, over a real file."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from sync import PowerSyncDatabase
from sync.errors import DatabaseClosedError, NestedUseError
from sync.sqlite.sql_connection import SqlConnection
from sync.watch.shared_reads import QUICK_SECONDS, SharedReads
from tests.kit import inside
from tests.sync.rig import within

COUNT = "SELECT count(*) FROM lists"


@pytest.fixture
def reads(database: PowerSyncDatabase) -> SharedReads:
    return SharedReads(inside.pool_of(database))


def count(connection: SqlConnection) -> tuple[int, int]:
    return id(connection), connection.value(COUNT)


async def test_what_is_asked_at_once_is_read_at_once(database: PowerSyncDatabase, reads: SharedReads) -> None:
    asked = [asyncio.create_task(reads.read(count, 0.0)) for _ in range(20)]
    found = await within(10, asyncio.gather(*asked))
    assert len(set(found)) == 1, "on one connection, and one snapshot"
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    assert (await reads.read(count, 0.0))[1] == 1


async def test_what_takes_longer_together_is_read_in_order(reads: SharedReads) -> None:
    order: list[int] = []

    def look(number: int, connection: SqlConnection) -> int:
        order.append(number)
        return connection.value(COUNT)

    asked = [reads.read(partial(look, number), QUICK_SECONDS) for number in range(30)]
    assert await within(10, asyncio.gather(*asked)) == [0] * 30
    assert order == list(range(30))


async def test_what_fails_fails_alone(reads: SharedReads) -> None:
    def fail(_: SqlConnection) -> None:
        raise LookupError("mine")

    found = await within(
        10,
        asyncio.gather(reads.read(count, 0.0), reads.read(fail, 0.0), reads.read(count, 0.0), return_exceptions=True),
    )
    assert isinstance(found[1], LookupError)
    assert isinstance(found[0], tuple)
    assert found[0] == found[2]


async def test_who_gives_up_disturbs_nobody(reads: SharedReads) -> None:
    asked = [asyncio.create_task(reads.read(count, 0.0)) for _ in range(3)]
    await asyncio.sleep(0)
    asked[1].cancel()
    found = await within(10, asyncio.gather(*asked, return_exceptions=True))
    assert isinstance(found[1], asyncio.CancelledError)
    assert isinstance(found[0], tuple)
    assert found[0] == found[2]


async def test_nobody_waits_for_a_slow_one(reads: SharedReads) -> None:
    go_on = threading.Event()

    def slow(connection: SqlConnection) -> tuple[int, int]:
        assert go_on.wait(20)
        return count(connection)

    unknown = asyncio.create_task(reads.read(slow, None))
    known = asyncio.create_task(reads.read(slow, QUICK_SECONDS * 2))
    try:
        await within(10, asyncio.gather(*(reads.read(count, 0.0) for _ in range(5))))
        assert not unknown.done()
        assert not known.done()
    finally:
        go_on.set()
    await within(10, asyncio.gather(unknown, known))


async def test_a_closed_database_is_told_to_all(database: PowerSyncDatabase, reads: SharedReads) -> None:
    asked = [asyncio.create_task(reads.read(count, 0.0)) for _ in range(3)]
    await database.close()
    for found in await within(10, asyncio.gather(*asked, return_exceptions=True)):
        assert isinstance(found, DatabaseClosedError | tuple)
    with pytest.raises(DatabaseClosedError):
        await reads.read(count, 0.0)


async def test_inside_a_write_transaction_only_its_own_task_is_refused(
    database: PowerSyncDatabase, reads: SharedReads
) -> None:
    inside = asyncio.Event()

    async def read_meanwhile() -> tuple[int, int]:
        await inside.wait()
        return await reads.read(count, 0.0)

    meanwhile = asyncio.create_task(read_meanwhile())
    async with database.write_transaction():
        inside.set()
        with pytest.raises(NestedUseError):
            await reads.read(count, 0.0)
        assert (await within(10, meanwhile))[1] == 0


async def test_many_watches_are_all_told(database: PowerSyncDatabase) -> None:
    watches = [database.watch("SELECT name FROM lists", throttle=0) for _ in range(50)]
    for watch in watches:
        assert await anext(watch) == []
    for number in range(3):
        await database.execute("INSERT INTO lists(id, name) VALUES (uuid(), 'x')")
        for result in await within(10, asyncio.gather(*(anext(watch) for watch in watches))):
            assert len(result) == number + 1
