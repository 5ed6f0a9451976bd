"""A process that shares a database file with others, syncs it if it may, and writes all the while.

Run as `python -m tests.kit.writer_process FILE URL NAME`; says `ready` once it writes, and writes until it is killed or
its input ends; then it waits until its queue is empty, and says how late it saw the others' rows, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time

from sync import Column, PowerSyncDatabase, Schema, SyncOptions, Table
from tests.kit.small_service import SmallConnector

SCHEMA = Schema([Table("lists", [Column.text("created_at"), Column.text("name"), Column.text("owner_id")])])

_PAUSE_SECONDS = 0.1


async def main(file: str, url: str, name: str) -> None:
    lateness: list[float] = []

    async def write() -> None:
        found = await database.get("SELECT count(*) FROM lists WHERE owner_id = ?", [name])
        number: int = found[0]
        while True:
            await database.execute(
                "INSERT INTO lists(id, created_at, name, owner_id) VALUES (?, ?, ?, ?)",
                [f"{name}-{number:06}", str(time.time()), str(number), name],
            )
            number += 1
            await asyncio.sleep(_PAUSE_SECONDS)

    async def watch() -> None:
        began = time.time()
        seen: set[str] = set()
        sql = "SELECT id, created_at FROM lists WHERE owner_id <> ? ORDER BY created_at DESC LIMIT 50"
        async for rows in database.watch(sql, [name]):
            for row in rows:
                if row["id"] not in seen and float(row["created_at"]) > began:
                    lateness.append(time.time() - float(row["created_at"]))
                seen.add(row["id"])

    async with PowerSyncDatabase(file, SCHEMA) as database:
        connector = SmallConnector(url)
        await database.connect(connector, SyncOptions(retry_delay=0.05, max_retry_delay=0.2))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(write()), group.create_task(watch())]
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)
            for task in tasks:
                task.cancel()
        await database.wait_for_upload(30)
        lateness.sort()
        count = len(lateness)
        figures = {"rows": count, "median": lateness[count // 2], "p95": lateness[count * 95 // 100]} if count else {}
        print(json.dumps(figures), flush=True)
        await connector.aclose()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
