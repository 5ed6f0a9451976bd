"""A process that has a database open and does nothing, as a paused application does.

Run as `python -m tests.kit.open_process FILE`; fills a new file, says `ready`, and closes it when its input ends.
"""

from __future__ import annotations

import asyncio
import sys

from sync import PowerSyncDatabase
from tests.kit.device_data import SCHEMA, fill


async def main(file: str) -> None:
    async with PowerSyncDatabase(file, SCHEMA) as database:
        if not (await database.upload_queue_stats()).entries:
            await fill(database)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
