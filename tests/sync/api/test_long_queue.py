"""A long queue leaves in order, without all of it ever being in memory at once."""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pytest

from sync import Accepted, CrudTransaction, PowerSyncCredentials, PowerSyncDatabase, TransactionConnector, Verdict
from sync.sqlite.sql_connection import SqlConnection
from sync.storage import conflicts
from tests.kit import inside

TRANSACTIONS = 100_000
MANY = 20_000
FEW = 5_000

T = TypeVar("T")

MEGABYTES = 2**20
LIMIT = 3 * MEGABYTES
"""Far less than the entries take as objects: more than 1 KB each."""


class InOrder(TransactionConnector):
    """Accepts everything, and sees that it comes in order, each transaction once."""

    def __init__(self) -> None:
        self.last = 0

    async def fetch_credentials(self) -> PowerSyncCredentials:
        raise AssertionError("no credentials were to be fetched")

    async def upload_transactions(self, transactions: Sequence[CrudTransaction]) -> Sequence[Verdict]:
        for transaction in transactions:
            [entry] = transaction.crud
            self.last += 1
            assert int(entry.id) == self.last
        return [Accepted()] * len(transactions)


def fill(connection: SqlConnection, transactions: int) -> None:
    """One insert each, as the triggers queue it; and the rows as the service sends them, but every 1,000th changed."""
    connection.execute(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO ps_crud(tx_id, data)"
        """ SELECT i, '{"op":"PUT","id":"' || i || '","type":"lists","data":{"name":"name ' || i || '"}}' FROM n""",
        (transactions,),
    )
    connection.execute(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO ps_oplog(bucket, op_id, row_type, row_id, key, data, hash) SELECT 1, i, 'lists', i, 'k' || i,"
        """ '{"name":"' || iif(i % 1000, 'name ' || i, 'theirs') || '"}', 0 FROM n""",
        (transactions,),
    )


@contextmanager
def memory_bounded() -> Generator[None]:
    """What Python holds at once must stay small inside."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < LIMIT


async def measured(function: Callable[[], Awaitable[T]]) -> T:
    with memory_bounded():
        return await function()


async def test_it_leaves_whole_and_in_order(database: PowerSyncDatabase) -> None:
    await inside.write(database, lambda connection: fill(connection, TRANSACTIONS))
    connector = InOrder()
    await connector.upload_data(database)  # at full speed: to trace the memory takes several times longer
    assert connector.last == TRANSACTIONS
    assert (await database.upload_queue_stats()).entries == 0


async def test_looking_for_conflicts_takes_little_memory(database: PowerSyncDatabase) -> None:
    await inside.write(database, lambda connection: fill(connection, MANY))
    await InOrder().upload_data(database)
    await measured(lambda: inside.write(database, conflicts.find))
    assert {each.row_id for each in await database.conflicts()} == {str(row) for row in range(1000, MANY + 1, 1000)}
    assert [row["count"] for row in await database.get_all("SELECT count(*) AS count FROM ps_uploaded")] == [0]


@pytest.mark.parametrize("way", ["batches", "iterated"])
async def test_its_memory_does_not_grow_with_it(database: PowerSyncDatabase, way: str) -> None:
    await inside.write(database, lambda connection: fill(connection, FEW))
    connector = InOrder()

    async def iterate() -> None:
        async for transaction in database.crud_transactions():
            await connector.upload_transactions([transaction])
            if connector.last % 50 == 0:
                await transaction.complete()

    await measured(iterate if way == "iterated" else lambda: connector.upload_data(database))
    assert connector.last == FEW
    assert (await database.upload_queue_stats()).entries == 0


async def test_of_a_huge_transaction_behind_it_only_the_beginning_is_read(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO lists(id, name) VALUES ('0', 'first')")
    await inside.write(database, lambda connection: fill(connection, FEW))
    await inside.write(database, lambda connection: connection.execute("UPDATE ps_crud SET tx_id = 9 WHERE id > 1"))
    [transaction] = await measured(database.crud_transaction_batch)
    assert transaction.crud[0].id == "0"
    await transaction.complete()
    huge = await database.next_crud_transaction()
    assert huge is not None
    assert len(huge.crud) == FEW
