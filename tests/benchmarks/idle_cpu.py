"""How much of one core a connected client uses while nothing happens: `python -m tests.benchmarks.idle_cpu [SECONDS]`.

The service runs in a process of its own. Two watched queries are open; keepalives come every 20 seconds.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from sync import PowerSyncDatabase
from tests.kit.small_service import SmallConnector, small_service
from tests.kit.writer_process import SCHEMA


async def measure(url: str, seconds: float) -> None:
    async def watch(sql: str) -> None:
        async for _ in database.watch(sql):
            pass

    with tempfile.TemporaryDirectory() as directory:
        connector = SmallConnector(url)
        async with PowerSyncDatabase(Path(directory) / "idle.db", SCHEMA) as database:
            await database.connect(connector)
            await database.wait_for_first_sync(30)
            watching = [asyncio.create_task(watch(f"SELECT * FROM lists LIMIT {limit}")) for limit in (10, 20)]
            await asyncio.sleep(2)
            used, began = time.process_time(), time.monotonic()
            await asyncio.sleep(seconds)
            share = (time.process_time() - used) / (time.monotonic() - began)
            print(f"an idle connected client uses {share:.3%} of one core", flush=True)
            for task in watching:
                task.cancel()
        await connector.aclose()


async def main(seconds: str) -> None:
    async with small_service() as service:
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.benchmarks.idle_cpu", service.url, seconds
        )
        await client.wait()


if __name__ == "__main__":
    match sys.argv[1:]:
        case [url, seconds]:
            asyncio.run(measure(url, float(seconds)))
        case arguments:
            asyncio.run(main(arguments[0] if arguments else "60"))
