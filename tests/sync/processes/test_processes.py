"""Several processes on one file: one syncs, another takes over when it dies, and no write is lost or reordered.

`TODO_TUI_KILLS` says how often the process that syncs is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from sync import PowerSyncDatabase
from sync.client.sync_lock import holder
from tests.kit.small_service import SmallConnector, SmallService, small_service
from tests.sync.rig import QUICK, SCHEMA, rows

ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("TODO_TUI_KILLS", "2"))


class Writers:
    """The processes, by name; one that was killed is started anew under its name."""

    def __init__(self, file: Path, url: str) -> None:
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self._file = file
        self._url = url

    async def start(self, name: str) -> None:
        self.processes[name] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.kit.writer_process", str(self._file), self._url, name),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        stdout = self.processes[name].stdout
        assert stdout is not None
        assert await stdout.readline() == b"ready\n"

    async def kill(self, process_id: int) -> str:
        """Returns its name."""
        (name,) = [name for name, process in self.processes.items() if process.pid == process_id]
        self.processes[name].kill()
        await self.processes[name].wait()
        return name

    async def finish(self) -> list[bytes]:
        """Let all write no more, upload what waits, and end; returns what each said."""
        said = await asyncio.gather(*(process.communicate(b"") for process in self.processes.values()))
        assert [process.returncode for process in self.processes.values()] == [0] * len(said)
        return [output for output, _ in said]


@asynccontextmanager
async def writers(file: Path, service: SmallService) -> AsyncGenerator[Writers]:
    writers = Writers(file, service.url)
    try:
        yield writers
    finally:
        for process in writers.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def until_held(file: Path, uploads: int, service: SmallService) -> int:
    """Wait until some process syncs and has uploaded something; returns its number."""
    async with asyncio.timeout(120):
        while True:
            process = await asyncio.to_thread(holder, str(file))
            if process is not None and len(service.uploads) > uploads + 5:
                return process
            await asyncio.sleep(0.01)


@pytest.mark.timeout(300 + KILLS * 60)
async def test_killing_the_process_that_syncs_loses_and_repeats_nothing(tmp_path: Path) -> None:
    file = tmp_path / "shared.db"
    async with small_service() as service, writers(file, service) as processes:
        await asyncio.gather(*(processes.start(name) for name in "abc"))
        for _ in range(KILLS):
            before = await until_held(file, len(service.uploads), service)
            name = await processes.kill(before)
            killed = time.monotonic()
            async with asyncio.timeout(120):
                while await asyncio.to_thread(holder, str(file)) in {None, before}:
                    await asyncio.sleep(0.005)
            print(f"another process took over after {time.monotonic() - killed:.2f} s")
            await until_held(file, len(service.uploads), service)
            await processes.start(name)
        async with asyncio.timeout(120):
            said = await processes.finish()
        for line in said:
            print(line.decode().strip())
        with contextlib.closing(sqlite3.connect(file)) as connection:
            written = {row[0] for row in connection.execute("SELECT id FROM lists")}
            assert connection.execute("SELECT count(*) FROM ps_crud").fetchone() == (0,)
        arrived = [entry["id"] for upload in service.uploads for entry in upload.crud]
        assert set(arrived) == written
        # A process that dies between the backend's answer and its own note of it leaves that one attempt to repeat.
        repeated = [row for row, count in Counter(arrived).items() if count > 1]
        assert len(repeated) <= KILLS
        assert max(Counter(arrived).values()) <= 2
        first = list(dict.fromkeys(upload.numbers for upload in service.uploads))
        assert first == sorted(first)
        for name in "abc":
            own = [row for row in dict.fromkeys(arrived) if row.startswith(name)]
            assert own == [f"{name}-{number:06}" for number in range(len(own))]
            assert len(own) > 3


async def test_the_process_that_syncs_is_known_to_all(tmp_path: Path) -> None:
    file = str(tmp_path / "shared.db")
    async with small_service() as service, PowerSyncDatabase(file, SCHEMA) as database:
        connector = SmallConnector(service.url)
        assert await asyncio.to_thread(holder, file) is None
        await database.connect(connector, QUICK)
        async with asyncio.timeout(10):
            async for status in database.watch_status():
                if status.connected:
                    break
        (tmp_path / "link.db").symlink_to(file)
        assert await asyncio.to_thread(holder, file) == os.getpid()
        assert await asyncio.to_thread(holder, str(tmp_path / "link.db")) == os.getpid()
        await database.disconnect()
        assert await asyncio.to_thread(holder, file) is None
        await connector.aclose()
    (tmp_path / "shared.db-sync-lock").write_text("not a number")
    assert await asyncio.to_thread(holder, file) is None


async def test_a_killed_process_is_not_taken_for_the_one_that_syncs(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
    await process.wait()
    (tmp_path / "shared.db-sync-lock").write_text(str(process.pid))
    assert await asyncio.to_thread(holder, str(tmp_path / "shared.db")) is None


async def expiry(database: PowerSyncDatabase) -> int:
    ((expires_at,),) = await rows(database, "SELECT expires_at FROM ps_stream_subscriptions WHERE ttl IS NOT NULL")
    return expires_at


@pytest.mark.parametrize(("ttl", "seconds"), [(timedelta(0), 21), (timedelta(days=1), 3601)])
async def test_a_process_that_does_not_sync_renews_the_subscriptions_it_uses(
    database: PowerSyncDatabase, monkeypatch: pytest.MonkeyPatch, ttl: timedelta, seconds: int
) -> None:
    loop = asyncio.get_running_loop()
    real, ahead = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + ahead)
    async with await database.sync_stream("todos").subscribe(ttl=ttl):
        for _ in range(2):
            before = await expiry(database)
            while await expiry(database) == before:
                ahead += seconds  # time goes on: the next renewal may not have been planned yet
                await asyncio.sleep(0)


async def test_a_stream_in_use_is_asked_for_however_short_its_time_to_live(database: PowerSyncDatabase) -> None:
    async with (
        small_service() as service,
        await database.sync_stream("todos", {"list": "a"}).subscribe(ttl=timedelta(0)),
    ):
        connector = SmallConnector(service.url)
        await database.connect(connector, QUICK)
        await database.wait_for_first_sync(10)
        assert [len(body["streams"]["subscriptions"]) for body in service.bodies["/sync/stream"]] == [1]
        await connector.aclose()


async def test_a_keepalive_renews_the_subscriptions_in_use(
    database: PowerSyncDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with small_service() as service:
        connector = SmallConnector(service.url)
        await database.connect(connector, QUICK)
        service.keepalive_seconds = 0.05
        async with await database.sync_stream("todos").subscribe():
            await database.execute("UPDATE ps_stream_subscriptions SET expires_at = 1")  # as after days of sleep
            async with asyncio.timeout(10):
                while await expiry(database) == 1:
                    await asyncio.sleep(0.01)
        await connector.aclose()


async def test_closing_can_remove_the_file(tmp_path: Path) -> None:
    async with small_service() as service:
        database = PowerSyncDatabase(tmp_path / "gone.db", SCHEMA)
        await database.open()
        connector = SmallConnector(service.url)
        await database.connect(connector, QUICK)
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        await database.wait_for_first_sync(10)
        await database.close(delete=True)
        await connector.aclose()
    assert list(tmp_path.iterdir()) == []
    memory = PowerSyncDatabase(":memory:", SCHEMA)
    await memory.open()
    await memory.close(delete=True)
