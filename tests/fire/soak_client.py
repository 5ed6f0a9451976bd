"""A client of the soak: everyday use of the app's store, until it is told to finish.

Run as `python -m tests.fire.soak_client FILE URL SEED`. It writes a few times a second, keeps some two hundred to-dos,
follows what a screen would show, goes offline for seconds about twice a minute, and every few minutes closes its file
and opens it again. Told to finish, it waits until all is uploaded and synced, and says what it did.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from app.connection.connector import HttpConnector
from app.store import SmartView, Store
from app.store.failures import StoreError
from app.store.rows import Todo
from app.store.schema import APP_SCHEMA
from sync import PowerSyncDatabase, SyncOptions, SyncStatus

_USER: Final = "soaked"
_TODOS: Final = 200
_WRITES_A_SECOND: Final = 8.0
_ONLINE_SECONDS: Final = 30.0
_OPEN_SECONDS: Final = 240.0
_OPTIONS: Final = SyncOptions(retry_delay=0.2, max_retry_delay=2.0)


class SoakedClient:
    """What is done with one opened file."""

    def __init__(self, store: Store, chance: random.Random, done: Counter[str]) -> None:
        self._store = store
        self._chance = chance
        self._done = done
        self._shown: dict[SmartView, list[Todo]] = {SmartView.ALL: [], SmartView.DONE: []}

    @property
    def _todos(self) -> list[Todo]:
        """All of them: the views show the open and the completed ones."""
        return [todo for todos in self._shown.values() for todo in todos]

    async def live(self) -> None:
        """Follow, write, and go offline and back, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store.keep_subscribed())
            for view in self._shown:
                tasks.create_task(self._show(view))
            tasks.create_task(self._follow(self._store.watch_lists()))
            tasks.create_task(self._follow(self._store.watch_counts()))
            tasks.create_task(self._follow(self._store.watch_waiting()))
            tasks.create_task(self._follow(self._store.watch_status()))
            tasks.create_task(self._go_offline_and_back())
            tasks.create_task(self._write())

    async def _show(self, view: SmartView) -> None:
        async for read in self._store.watch_view(view):
            self._shown[view] = read.todos
            self._done["screens"] += 1

    async def _follow(self, watched: AsyncIterator[Any]) -> None:
        async for _ in watched:
            self._done["changes followed"] += 1

    async def _go_offline_and_back(self) -> None:
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / _ONLINE_SECONDS))
            await self._store.disconnect()
            await asyncio.sleep(self._chance.uniform(0.1, 5.0))
            await self._store.connect()
            self._done["times offline"] += 1

    async def _write(self) -> None:
        list_id = await self._some_list()
        while True:
            await asyncio.sleep(self._chance.expovariate(_WRITES_A_SECOND))
            try:
                await self._write_once(list_id)
            except StoreError:
                self._done["refused writes"] += 1  # the to-do was deleted elsewhere, for example
            else:
                self._done["writes"] += 1

    async def _write_once(self, list_id: str) -> None:
        number, action, todos = self._done["writes"], self._chance.random(), self._todos
        if not todos or action < 0.2:
            await self._store.edit.add_todos(list_id, [f"To-do {number} p2 #soak", f"Another {number}\nwith notes"])
            return
        todo = self._chance.choice(todos)
        if len(todos) > _TODOS:
            await self._store.edit.delete_todos([each.id for each in self._chance.sample(todos, 20)])
        elif action < 0.6:
            await self._store.edit.edit_todo(todo.id, f"Edited {number} due:2026-12-01")
        elif action < 0.95:
            await self._store.edit.set_completed([todo.id], completed=not todo.completed)
        else:
            await self._store.edit.undo()

    async def _some_list(self) -> str:
        async for lists in self._store.watch_lists():
            if lists:
                return lists[0].id
            break
        return await self._store.edit.add_list("Soaked")


def is_at_rest(status: SyncStatus) -> bool:
    return bool(status.connected and status.has_synced and not status.uploading and not status.downloading)


async def opened_until(path: Path, url: str, chance: random.Random, done: Counter[str], finish: asyncio.Event) -> None:
    """Open the file, use it for a while, and close it."""
    async with PowerSyncDatabase(path, APP_SCHEMA) as database:
        connector = HttpConnector(url, _USER)

        async def connect() -> None:
            await database.connect(connector, _OPTIONS)

        store = Store(database, _USER, connect)
        await store.connect()
        living = asyncio.create_task(SoakedClient(store, chance, done).live())
        waiting = asyncio.create_task(finish.wait())
        await asyncio.wait(
            {living, waiting}, timeout=chance.expovariate(1 / _OPEN_SECONDS), return_when=asyncio.FIRST_COMPLETED
        )
        for task in (living, waiting):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await living
        await store.flush(10)
        if finish.is_set():
            await come_to_rest(store, database)
        await database.disconnect()
        await connector.aclose()
    done["openings"] += 1


async def come_to_rest(store: Store, database: PowerSyncDatabase) -> None:
    """Wait until all is uploaded, and what the other client wrote has had time to come."""
    await store.connect()
    async with asyncio.timeout(40):
        await store.wait_for_todos()
        while (await database.upload_queue_stats()).entries or not is_at_rest(database.status):
            await asyncio.sleep(0.2)
        await asyncio.sleep(10)


async def main() -> None:
    path, url, seed = sys.argv[1:]
    chance, done, finish = random.Random(seed), Counter[str](), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(0, finish.set)
    while not finish.is_set():
        await opened_until(Path(path), url, chance, done, finish)
    loop.remove_reader(0)
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
