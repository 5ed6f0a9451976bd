"""Two processes on one file: what one sees of the other's syncing, and that its waits work all the same."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from sync import PowerSyncDatabase
from sync.client.sync_lock import holder, lock_file
from tests.sync.rig import QUICK, SCHEMA, ServiceConnector, rows, within
from tests.sync.stepwise import COMPLETE, bucket, checkpoint, data, stepwise, stream

ROOT = Path(__file__).parents[3]

CHILD = """
import asyncio, sys
from sync import PowerSyncDatabase
from tests.sync.rig import QUICK, SCHEMA, ServiceConnector

async def upload(database):
    async for transaction in database.crud_transactions():
        await transaction.complete()

async def main():
    async with PowerSyncDatabase(sys.argv[1], SCHEMA) as database:
        await database.connect(ServiceConnector(sys.argv[2], upload), QUICK)
        await database.wait_for_status(lambda status: status.connected)
        await database.wait_for_first_sync()
        print(database.status.last_synced_at.isoformat(), flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


@asynccontextmanager
async def other_process(path: Path, url: str) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str]]:
    """Another process that syncs the file, and when it last did."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, str(path), url),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield process, (await within(30, process.stdout.readline())).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_syncing_process_is_shown_and_its_work_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    lists = stream("lists", is_default=True)
    target = checkpoint(bucket("b", [1], subscriptions=[{"default": 0}]), streams=[lists])
    async with (
        stepwise(target, data("b", [1]), COMPLETE) as service,
        other_process(path, service.url) as (process, last_synced_at),
        PowerSyncDatabase(path, SCHEMA) as database,
    ):
        assert database.status.last_synced_at is not None
        assert database.status.last_synced_at.isoformat() == last_synced_at
        connector = ServiceConnector(service.url)
        await database.connect(connector, QUICK)
        status = await database.wait_for_status(lambda status: status.syncing_process is not None, 10)
        assert (status.syncing_elsewhere, status.syncing_process) == (True, process.pid)
        assert f"Process {process.pid} holds the sync lock" in str(await database.explain_sync())
        await database.wait_for_first_sync(0)
        assert [stream.name for stream in status.streams if stream.has_synced] == ["lists"]

        # The other process uploads what this one writes, and requests the checkpoint.
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        await database.wait_for_upload(20)
        assert database.status.upload_queue_count == 0
        before = database.status.last_synced_at
        await database.wait_for_sync(20)
        assert before is not None
        assert database.status.last_synced_at is not None
        assert database.status.last_synced_at > before
        assert await rows(database, "SELECT id FROM lists") == [["list-1"]]
        subscription = await database.sync_stream("todos", {"list": 1}).subscribe()
        await subscription.wait_for_first_sync(20)
        assert connector.fetched == 0

        # A killed process leaves the lock to this one, and its name is not shown for ever.
        request = await database.request_checkpoint()
        process.send_signal(signal.SIGKILL)
        await within(10, process.wait())
        status = await database.wait_for_status(lambda status: status.connected, 20)
        assert (status.syncing_elsewhere, status.syncing_process) == (False, None)
        await request.wait_for_sync(20)
        assert connector.fetched >= 1
        assert await asyncio.to_thread(holder, str(path)) == os.getpid()
        assert (await asyncio.to_thread(lock_file, str(path))).stat().st_mode & 0o777 == 0o600
        await database.disconnect()
        assert await asyncio.to_thread(holder, str(path)) is None
