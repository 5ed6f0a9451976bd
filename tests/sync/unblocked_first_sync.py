"""A first sync with three watched queries open, in a process that has loaded nothing yet: what runs on the event loop.

Run as `python -m tests.sync.unblocked_first_sync PORT DIRECTORY ROWS`. A blocking call by the engine's own code ends it
with an error. Prints, as JSON, the last result of each query, and what was imported by the event loop's own thread.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from pathlib import Path
from typing import Any

from blockbuster import blockbuster_ctx

import sync
from sync import BackendConnector, PowerSyncCredentials, PowerSyncDatabase, Schema, Table
from tests.benchmarks.first_sync import COLUMNS, watched_queries


class Connector(BackendConnector):
    def __init__(self, port: str) -> None:
        self._port = port

    async def fetch_credentials(self) -> PowerSyncCredentials:
        return PowerSyncCredentials(f"http://127.0.0.1:{self._port}", "token")

    async def upload_data(self, _database: PowerSyncDatabase) -> None:
        raise AssertionError("nothing is uploaded")


class ImportWitness:
    """Told of every module that is looked for."""

    def __init__(self) -> None:
        self.on_the_loop: list[str] = []

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> None:
        if threading.current_thread() is threading.main_thread():
            self.on_the_loop.append(name)


async def main(port: str, directory: str, count: int) -> None:
    witness = ImportWitness()
    results: dict[str, list[list[Any]]] = {}
    all_there = asyncio.Event()

    async def watch(sql: str) -> None:
        async for rows in database.watch(sql):
            results[sql] = [list(row) for row in rows]
            if all(results.get(each) for each in queries) and results[queries[0]] == [[count]]:
                all_there.set()

    queries = watched_queries("table_0")
    async with PowerSyncDatabase(Path(directory) / "first.db", Schema([Table("table_0", COLUMNS)])) as database:
        with blockbuster_ctx(sync) as blockbuster:
            blockbuster.functions["os.stat"].can_block_in("sync/sqlite/other_processes.py", "_stamps")
            watching = [asyncio.create_task(watch(sql)) for sql in queries]
            sys.meta_path.insert(0, witness)
            await database.connect(Connector(port))
            await database.wait_for_first_sync(40)
            async with asyncio.timeout(10):
                await all_there.wait()
            sys.meta_path.remove(witness)
            for task in watching:
                task.cancel()
    imported = [name for name in witness.on_the_loop if name in sys.modules]  # httpx looks for some that are not there
    print(json.dumps({"results": [results[sql] for sql in queries], "imported": imported}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
