"""Which rows wait for upload, followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from sync import PowerSyncDatabase


async def until(found: AsyncIterator[frozenset[str]], wanted: set[str]) -> None:
    async with asyncio.timeout(10):
        async for rows in found:
            if rows == wanted:
                return
    raise AssertionError("the watch ended")


async def test_rows_that_wait_are_followed(database: PowerSyncDatabase) -> None:
    async with (
        aclosing(database.watch_queued_rows("lists", throttle=0)) as lists,
        aclosing(database.watch_queued_rows(throttle=0)) as every,
    ):
        await until(lists, set())
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        await until(lists, {"a"})
        await until(every, {"a"})
        await database.execute("UPDATE lists SET name = 'y' WHERE id = 'a'")
        await until(every, {"a"})  # another entry of the same row is a change of the queue
        await database.execute("INSERT INTO lists(id, name) VALUES ('b', 'x')")
        await until(lists, {"a", "b"})
        transactions = [each async for each in database.crud_transactions()]
        await transactions[1].complete()
        await until(lists, {"b"})
        await transactions[2].complete()
        await until(lists, set())
        await until(every, set())


async def test_it_ends_with_the_database(database: PowerSyncDatabase) -> None:
    seen = []

    async def follow() -> None:
        async for rows in database.watch_queued_rows("lists"):
            seen.append(rows)

    task = asyncio.create_task(follow())
    while not seen:
        await asyncio.sleep(0)
    await database.close()
    async with asyncio.timeout(10):
        await task
    assert seen == [frozenset()]
