"""A process that writes and uploads until it is done or killed.

Run as `python -m tests.kit.uploading_process FILE URL LIFE FIRST COUNT KILL_AT`. It makes the writes of the numbers
FIRST to COUNT, one transaction each, and says each number once the write has returned; then it waits until its queue is
empty, and says its number of ticks. A tick is so many steps of SQLite's machine on any connection of the process; at
tick KILL_AT (0: never) it kills itself amid the statement. It may as well be killed from outside at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from typing import Any

import httpx

from sync import (
    Accepted,
    BatchLimits,
    CrudTransaction,
    PowerSyncCredentials,
    PowerSyncDatabase,
    Rejected,
    Retry,
    TransactionConnector,
    Verdict,
    WriteRejectedError,
)
from tests.sync.rig import QUICK, SCHEMA

STEPS_PER_TICK = 50
TWO_ENTRIES_EVERY = 10
"""Each write of such a number has an insert and an update in one transaction, the others have an insert."""


class Connector(TransactionConnector):
    """Posts transactions to `/upload`, and reads one verdict for each: accepted, rejected or retry."""

    limits = BatchLimits(transactions=25)

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self._url = url
        self._client = client

    async def fetch_credentials(self) -> PowerSyncCredentials:
        return PowerSyncCredentials(self._url, "token", user_id="ann")

    async def upload_transactions(self, transactions: Sequence[CrudTransaction]) -> list[Verdict]:
        crud = [[[entry.op, entry.id, entry.data] for entry in transaction.crud] for transaction in transactions]
        response = await self._client.post(f"{self._url}/upload", json=crud)
        response.raise_for_status()
        verdicts: dict[str, Verdict] = {"accepted": Accepted(), "rejected": Rejected("no"), "retry": Retry("busy")}
        return [verdicts[word] for word in response.json()]


async def write_and_upload(path: str, url: str, life: str, numbers: range) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, PowerSyncDatabase(path, SCHEMA) as database:
        await database.connect(Connector(url, client), QUICK)
        for number in numbers:
            insert = "INSERT INTO lists(id, name) VALUES (?, 'new')", [f"{number}-{life}"]
            if number % TWO_ENTRIES_EVERY:
                await database.execute(*insert)
            else:
                async with database.write_transaction() as transaction:
                    await transaction.execute(*insert)
                    await transaction.execute("UPDATE lists SET name = 'newer' WHERE id = ?", [f"{number}-{life}"])
            os.write(1, b"%d\n" % number)
        with contextlib.suppress(WriteRejectedError):
            await database.wait_for_upload()


def main() -> None:
    path, url, life, first, count, kill_at = sys.argv[1:]
    ticks = 0

    def tick() -> int:
        nonlocal ticks
        ticks += 1
        if ticks == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    connect = sqlite3.connect

    def connect_and_count(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_progress_handler(tick, STEPS_PER_TICK)
        return connection

    sqlite3.connect = connect_and_count
    asyncio.run(write_and_upload(path, url, life, range(int(first), int(count) + 1)))
    os.write(1, b"ticks %d\n" % ticks)


if __name__ == "__main__":
    main()
