"""Draining a long upload queue against a backend that does nothing: the engine's own share of the time.

`python -m tests.benchmarks.upload [--transactions 100000] [--rounds 3]` prints, for each way to drain it, transactions
per second and how much the process grew (MB); and how long the checkpoint that includes all of it looks for conflicts.
Each measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from sync import (
    Accepted,
    Column,
    CrudTransaction,
    PowerSyncCredentials,
    PowerSyncDatabase,
    Schema,
    Table,
    TransactionConnector,
    Verdict,
)
from sync.sqlite.sql_connection import SqlConnection
from sync.storage import conflicts
from tests.kit import inside

SCHEMA = Schema([Table("lists", [Column.text("name"), Column.text("owner_id"), Column.integer("position")])])


class Connector(TransactionConnector):
    """Accepts everything at once."""

    async def fetch_credentials(self) -> PowerSyncCredentials:
        raise AssertionError("nothing is downloaded")

    async def upload_transactions(self, transactions: Sequence[CrudTransaction]) -> Sequence[Verdict]:
        return [Accepted()] * len(transactions)


async def batches(database: PowerSyncDatabase) -> None:
    """Verdicts for batches of transactions."""
    await Connector().upload_data(database)


async def iterated(database: PowerSyncDatabase) -> None:
    """Each transaction is completed by itself."""
    async for transaction in database.crud_transactions():
        await transaction.complete()


async def one_by_one(database: PowerSyncDatabase) -> None:
    """Each transaction is asked for and completed by itself."""
    while transaction := await database.next_crud_transaction():
        await transaction.complete()


WAYS: dict[str, Callable[[PowerSyncDatabase], Awaitable[None]]] = {
    "batches": batches,
    "iterated": iterated,
    "one_by_one": one_by_one,
}


def fill(connection: SqlConnection, transactions: int) -> None:
    """A queue of so many transactions of one insert each, and the same rows as the service will send them."""
    row = """'{"name":"list ' || i || '","owner_id":"0b1cf4e5-3f5a-4c11-9d2e-6f1f3bbd","position":' || i || '}'"""
    connection.execute(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO ps_crud(tx_id, data)"
        """ SELECT i, '{"op":"PUT","id":"' || printf('%032x', i * 7919) || '","type":"lists","data":' || """
        f"{row} || '}}' FROM n",
        (transactions,),
    )
    connection.execute(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO ps_oplog(bucket, op_id, row_type, row_id, key, data, hash)"
        f" SELECT 1, i, 'lists', printf('%032x', i * 7919), 'lists/' || i, {row}, 0 FROM n",
        (transactions,),
    )


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def measure(way: str, transactions: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        async with PowerSyncDatabase(Path(directory) / "queue.db", SCHEMA) as database:
            pool = inside.pool_of(database)
            await pool.write(lambda connection: fill(connection, transactions))
            before = peak_mb()
            began = time.perf_counter()
            await WAYS[way](database)
            seconds = time.perf_counter() - began
            assert (await database.upload_queue_stats()).entries == 0
            grown = peak_mb() - before
            began = time.perf_counter()
            await pool.write(conflicts.find)
            found = time.perf_counter() - began
            assert await database.conflicts() == ()
            return {
                "per_second": transactions / seconds,
                "seconds": seconds,
                "grown_mb": grown,
                "conflicts_seconds": found,
                "conflicts_mb": peak_mb() - before - grown,
            }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.upload")
    parser.add_argument("--transactions", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--once", choices=WAYS)
    options = parser.parse_args()
    if options.once is not None:
        print(json.dumps(asyncio.run(measure(options.once, options.transactions))))
        return
    command = [sys.executable, "-m", "tests.benchmarks.upload"]
    for way in options.way or WAYS:
        runs = [
            json.loads(
                subprocess.run(
                    [*command, "--once", way, "--transactions", str(options.transactions)],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
            for _ in range(options.rounds)
        ]
        figures = {name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]}
        print(f"{way}, {options.transactions} transactions: {figures}", flush=True)


if __name__ == "__main__":
    main()
