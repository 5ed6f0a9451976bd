"""The lock by which several processes that share a file agree on which of them syncs it.

Owns the lock file beside the database. The operating system releases the lock of a process that dies.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from filelock import BaseFileLock, FileLock, Timeout

from sync.cancellation import to_the_end

POLL_SECONDS = 1.0


@asynccontextmanager
async def sync_lock(database: str, on_waiting: Callable[[], None]) -> AsyncGenerator[None]:
    """Hold the sync lock of a database file; wait for it without a deadline, asking once a second.

    `on_waiting` is called once if another process holds it. A database in memory has no lock.
    """
    if database == ":memory:":
        yield
        return
    path = await asyncio.to_thread(os.path.realpath, database)
    lock = FileLock(f"{path}-sync-lock", mode=0o600, thread_local=False)
    try:
        if not await _acquire(lock):
            on_waiting()
            while not await _acquire(lock):  # noqa: ASYNC110 - no event tells of another process
                await asyncio.sleep(POLL_SECONDS)
        yield
    finally:
        if lock.is_locked:
            await to_the_end(asyncio.to_thread(lock.release))


async def _acquire(lock: BaseFileLock) -> bool:
    """Try once. If cancelled, the attempt is still carried out: the caller finds out by `is_locked`."""
    try:
        await to_the_end(asyncio.to_thread(lock.acquire, blocking=False))
    except Timeout:
        return False
    return True
