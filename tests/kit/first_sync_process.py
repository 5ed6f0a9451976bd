"""A process that syncs until it is done or killed: `python -m tests.kit.first_sync_process FILE URL KILL_AT HOW`.

Ticks are counted: a tick is so many steps of SQLite's machine, on any connection of the process, so that ticks are
spread over all that it does to the file. At tick KILL_AT the process is killed: by itself, amid a statement (HOW is
"at"), or by who reads its output, wherever it is by then ("after"). At the end it prints the number of ticks.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from typing import Any

import sync.sqlite.wal
from sync import PowerSyncDatabase
from sync.client import stream_connection
from sync.storage import publish
from tests.sync.rig import QUICK, SCHEMA, ServiceConnector

STEPS_PER_TICK = 10


async def sync_to_the_end(path: str, url: str) -> None:
    async with PowerSyncDatabase(path, SCHEMA) as database:
        await database.connect(ServiceConnector(url), QUICK)
        async for rows in database.watch("SELECT 1 FROM lists WHERE id = 'the last one'", throttle=0):
            if rows:
                break


def main() -> None:
    path, url, kill_at, how = sys.argv[1:]
    stream_connection._TAKE_IN_BYTES = 20_000  # pyright: ignore[reportPrivateUsage]
    publish.FILL_FROM_OPERATIONS = 100
    sync.sqlite.wal.KEPT_BYTES = 50_000
    ticks = 0

    def tick() -> int:
        nonlocal ticks
        ticks += 1
        if ticks == int(kill_at):
            if how == "at":
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(1, b"now\n")
        return 0

    connect = sqlite3.connect

    def connect_and_count(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_progress_handler(tick, STEPS_PER_TICK)
        return connection

    sqlite3.connect = connect_and_count
    asyncio.run(sync_to_the_end(path, url))
    print(ticks, flush=True)


if __name__ == "__main__":
    main()
