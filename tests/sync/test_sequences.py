"""Random sequences of what an app may do with a connection end in the state last asked for, with nothing left over.

`TODO_TUI_SEQUENCES` says how many are run; each is told by its number, which seeds it.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sync import DatabaseClosedError, PowerSyncDatabase, SyncOptions, SyncStreamSubscription
from tests.kit.small_service import STREAM, UPLOAD, SmallConnector, SmallService, drop, small_service
from tests.sync.rig import SCHEMA, rows, within

SEQUENCES = int(os.environ.get("TODO_TUI_SEQUENCES", "60"))
BATCHES = 6

OPTIONS = [
    SyncOptions(crud_throttle=0, retry_delay=0.001, max_retry_delay=0.01),
    SyncOptions(crud_throttle=0.001, retry_delay=0.001, max_retry_delay=0.01, params={"other": True}),
]


class Sequence:
    """One database, and the calls that a seeded chance makes on it."""

    def __init__(
        self, chance: random.Random, database: PowerSyncDatabase, service: SmallService, connectors: list[Any]
    ) -> None:
        self.chance = chance
        self.database = database
        self.service = service
        self.connectors = connectors
        self.subscriptions: list[SyncStreamSubscription] = []
        self.number = 0

    async def connect(self) -> None:
        await self.database.connect(self.chance.choice(self.connectors), self.chance.choice(OPTIONS))

    async def subscribe(self) -> None:
        stream = self.database.sync_stream("todos", {"list": self.chance.choice("xyz")})
        self.subscriptions.append(await stream.subscribe())

    async def unsubscribe(self) -> None:
        if self.subscriptions:
            await self.subscriptions.pop().unsubscribe()

    async def write(self) -> None:
        self.number += 1
        await self.database.execute("INSERT INTO lists(id, name) VALUES (uuid(), ?)", [str(self.number)])

    async def trouble(self) -> None:
        self.service.next(self.chance.choice([STREAM, UPLOAD]), drop())

    async def step(self) -> None:
        """One call, which may be cancelled at any await."""
        call: Callable[[], Awaitable[None]] = self.chance.choice(
            [self.connect, self.connect, self.database.disconnect, self.subscribe, self.unsubscribe, self.write]
            + [self.trouble] * (self.chance.random() < 0.2)
        )
        task = asyncio.ensure_future(call())
        if self.chance.random() < 0.5:
            for _ in range(self.chance.randrange(6)):
                await asyncio.sleep(0)
            if self.chance.random() < 0.3:
                await asyncio.sleep(self.chance.random() * 0.005)
            task.cancel()
        elif self.chance.random() < 0.3:
            await asyncio.sleep(self.chance.random() * 0.02)  # lets a connection get somewhere
        await asyncio.gather(task, return_exceptions=True)


def left_over(database: Path) -> list[str]:
    """Tasks, threads and open files that belong to no fixture."""
    tasks = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("sync: ")]
    threads = [thread.name for thread in threading.enumerate() if not thread.name.startswith(("Main", "asyncio_"))]
    files = [
        target
        for number in Path("/proc/self/fd").iterdir()
        if (target := _target(number)) is not None and (str(database) in target or "socket" in target)
    ]
    return [*tasks, *threads, *files]


def _target(descriptor: Path) -> str | None:
    try:
        return str(descriptor.readlink())
    except OSError:
        return None


@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted in /proc")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("batch", range(BATCHES))
async def test_any_sequence_ends_as_asked_with_nothing_left_over(tmp_path: Path, batch: int) -> None:
    async with small_service() as service:
        await until_quiet(tmp_path, None, service)
        before = sorted(left_over(tmp_path))
        for seed in range(batch, SEQUENCES, BATCHES):
            connectors = [SmallConnector(service.url) for _ in range(2)]
            try:
                await run_sequence(seed, tmp_path / f"{seed}.db", service, connectors)
                for connector in connectors:
                    await connector.aclose()
                await until_quiet(tmp_path, before, service)
            except BaseException as error:
                error.add_note(f"sequence {seed}: {left_over(tmp_path)}, {before}")
                raise


async def until_quiet(path: Path, before: list[str] | None, service: SmallService) -> None:
    """Wait until the service has noticed the end of all connections, and everything is as before."""
    async with asyncio.timeout(10):
        while service.open_requests or (before is not None and sorted(left_over(path)) != before):
            await asyncio.sleep(0.001)


async def run_sequence(seed: int, path: Path, service: SmallService, connectors: list[SmallConnector]) -> None:
    chance = random.Random(seed)
    service.forget()
    database = PowerSyncDatabase(path, SCHEMA)
    await database.open()
    try:
        sequence = Sequence(chance, database, service, connectors)
        for _ in range(chance.randrange(4, 16)):
            await sequence.step()
        if chance.random() < 0.5:
            await database.connect(chance.choice(connectors), OPTIONS[0])
            await within(20, ends_synced(database, service))
        else:
            await within(20, database.disconnect())
            assert not database.status.connected
            assert not database.status.wanted
            async with asyncio.timeout(10):
                while service.open_requests:
                    await asyncio.sleep(0.001)
            asked = service.requests.total()
            await asyncio.sleep(0.005)
            assert service.requests.total() == asked  # nobody goes on behind the app's back
    finally:
        closing = asyncio.create_task(database.close())
        for _ in range(1 + chance.randrange(8)):  # a task that is cancelled before its first step was never asked
            await asyncio.sleep(0)
        if chance.random() < 0.5:
            closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
    with pytest.raises(DatabaseClosedError):
        await database.execute("SELECT 1")
    with pytest.raises(DatabaseClosedError):
        await database.connect(connectors[0])


async def ends_synced(database: PowerSyncDatabase, service: SmallService) -> None:
    """Connected, all that was written is at the backend, once and in order, and all that was subscribed to is asked."""
    while True:
        written = await rows(database, "SELECT id, name FROM lists ORDER BY id")
        there = sorted([key[1], row["name"]] for key, row in service.rows.items() if key[0] == "lists")
        wanted = await rows(database, "SELECT local_params FROM ps_stream_subscriptions WHERE ttl IS NOT NULL")
        asked = len(service.bodies[STREAM][-1]["streams"]["subscriptions"]) if service.bodies[STREAM] else -1
        waiting = await rows(database, "SELECT count(*) FROM ps_crud")
        if database.status.connected and written == there and asked == len(wanted) and waiting == [[0]]:
            break
        await asyncio.sleep(0.002)
    first = list(dict.fromkeys(upload.numbers for upload in service.uploads))
    assert first == sorted(first)
