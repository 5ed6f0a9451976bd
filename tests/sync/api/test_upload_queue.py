"""The upload queue as a connector sees it: transactions, batches, and its size."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from sync import BatchLimits, PowerSyncDatabase

INSERT = "INSERT INTO lists(id, name) VALUES (?, ?)"


async def make(database: PowerSyncDatabase, *sizes: int, name: str = "x") -> None:
    """One transaction of each size."""
    number = 0
    for size in sizes:
        rows = [(f"{number + place:04}", name) for place in range(size)]
        await database.execute_many(INSERT, rows)
        number += size


def sizes(transactions) -> list[int]:
    return [len(transaction.crud) for transaction in transactions]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (BatchLimits(), [1, 3, 2, 1]),
        (BatchLimits(transactions=2), [1, 3]),
        (BatchLimits(operations=4), [1, 3]),
        (BatchLimits(operations=5), [1, 3]),
        (BatchLimits(operations=6), [1, 3, 2]),
        (BatchLimits(operations=1), [1]),
        (BatchLimits(bytes=1), [1]),
        (BatchLimits(bytes=4 * len('{"op":"PUT","id":"0000","type":"lists","data":{"name":"x"}}')), [1, 3]),
    ],
)
async def test_a_batch_has_whole_transactions_within_its_limits(
    database: PowerSyncDatabase, limits: BatchLimits, expected: list[int]
) -> None:
    await make(database, 1, 3, 2, 1)
    assert sizes(await database.crud_transaction_batch(limits)) == expected


async def test_a_transaction_larger_than_the_limits_comes_whole(database: PowerSyncDatabase) -> None:
    await make(database, 25, 1)
    assert sizes(await database.crud_transaction_batch(BatchLimits(operations=10))) == [25]
    assert sizes(await database.crud_transaction_batch(BatchLimits(bytes=10))) == [25]


async def test_transactions_come_in_order_across_batches_and_each_once(database: PowerSyncDatabase) -> None:
    await make(database, *[1] * 250)
    seen = [entry.id async for transaction in database.crud_transactions() for entry in transaction.crud]
    assert seen == [f"{number:04}" for number in range(250)]


async def test_completing_one_completes_all_before_it_and_the_iteration_goes_on_behind(
    database: PowerSyncDatabase,
) -> None:
    await make(database, *[1] * 5)
    seen: list[str] = []
    async for transaction in database.crud_transactions():
        seen.append(transaction.crud[0].id)
        if len(seen) == 2:
            later = (await database.crud_transaction_batch())[3]
            await later.complete()
    assert seen == ["0000", "0001", "0004"]
    assert (await database.upload_queue_stats()).entries == 1


async def test_the_next_transaction_and_batches_of_entries(database: PowerSyncDatabase) -> None:
    assert await database.next_crud_transaction() is None
    assert await database.crud_batch() is None
    await make(database, 2, 2)
    transaction = await database.next_crud_transaction()
    assert transaction is not None
    assert [entry.id for entry in transaction.crud] == ["0000", "0001"]
    batch = await database.crud_batch(3)
    assert batch is not None
    assert [entry.id for entry in batch.crud] == ["0000", "0001", "0002"]
    assert batch.have_more
    await batch.complete()
    rest = await database.crud_batch(3)
    assert rest is not None
    assert [entry.id for entry in rest.crud] == ["0003"]
    assert not rest.have_more
    with pytest.raises(ValueError, match="limit must be at least 1"):
        await database.crud_batch(0)


async def test_the_size_of_the_queue(database: PowerSyncDatabase) -> None:
    empty = await database.upload_queue_stats()
    assert (empty.entries, empty.transactions, empty.bytes, empty.oldest_at) == (0, 0, 0, None)
    await make(database, 1, 3, name="ä")
    stats = await database.upload_queue_stats()
    data = [row[0] for row in await database.get_all("SELECT data FROM ps_crud")]
    assert (stats.entries, stats.transactions, stats.bytes) == (4, 2, sum(len(text.encode()) for text in data))


async def test_the_age_of_the_oldest_entry_is_known_to_a_second(database: PowerSyncDatabase) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        for step in range(20):
            await database.execute(INSERT, [f"{step}", "x"])
            clock.shift(timedelta(seconds=0.4))
        for step in range(20):
            stats = await database.upload_queue_stats()
            made = start + timedelta(seconds=0.4 * step)
            assert stats.oldest_at is not None
            assert timedelta(0) <= made - stats.oldest_at < timedelta(seconds=1), step
            transaction = await database.next_crud_transaction()
            assert transaction is not None
            await transaction.complete()
    assert (await database.upload_queue_stats()).oldest_at is None


async def test_the_age_is_known_though_the_clock_was_set_back(database: PowerSyncDatabase) -> None:
    with time_machine.travel(datetime(2026, 3, 14, 9, 0, tzinfo=UTC), tick=False) as clock:
        await database.execute(INSERT, ["a", "x"])
        clock.shift(timedelta(hours=-1))
        await database.execute(INSERT, ["b", "x"])
        transaction = await database.next_crud_transaction()
        assert transaction is not None
        await transaction.complete()
        assert (await database.upload_queue_stats()).oldest_at == datetime(2026, 3, 14, 8, 0, tzinfo=UTC)


async def test_the_age_survives_a_restart(tmp_path, database: PowerSyncDatabase) -> None:
    await make(database, 1)
    first = (await database.upload_queue_stats()).oldest_at
    await database.close()
    async with PowerSyncDatabase(database.path, database.schema) as again:
        assert (await again.upload_queue_stats()).oldest_at == first is not None


async def test_an_entry_that_another_program_made_without_a_transaction_id_stands_alone(
    database: PowerSyncDatabase,
) -> None:
    with sqlite3.connect(database.path) as other:
        for number in range(2):
            entry = {"op": "DELETE", "id": str(number), "type": "lists"}
            other.execute("INSERT INTO ps_crud(data) VALUES (?)", (json.dumps(entry),))
    other.close()
    assert sizes(await database.crud_transaction_batch()) == [1, 1]
    assert (await database.upload_queue_stats()).transactions == 2


async def test_the_age_of_a_queue_that_was_empty_before(database: PowerSyncDatabase) -> None:
    with time_machine.travel(datetime(2026, 3, 14, 9, 0, tzinfo=UTC), tick=False) as clock:
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        async for transaction in database.crud_transactions():
            await transaction.complete()
        assert (await database.upload_queue_stats()).oldest_at is None
        clock.shift(600)
        await database.execute("INSERT INTO lists(id, name) VALUES ('b', 'x')")
        assert (await database.upload_queue_stats()).oldest_at == datetime(2026, 3, 14, 9, 10, tzinfo=UTC)
        clock.shift(600)
        await database.execute("INSERT INTO lists(id, name) VALUES ('c', 'x')")
        assert (await database.upload_queue_stats()).oldest_at == datetime(2026, 3, 14, 9, 10, tzinfo=UTC)
