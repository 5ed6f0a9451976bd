"""The lock by which several processes that share a file agree on which of them syncs it.

Owns the lock file beside the database. The operating system releases the lock of a process that dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from filelock import FileLock, Timeout

POLL_SECONDS = 1.0


@asynccontextmanager
async def sync_lock(database: str, on_waiting: Callable[[], None]) -> AsyncGenerator[None]:
    """Hold the sync lock of a database file; wait for it without a deadline, asking once a second.

    `on_waiting` is called once if another process holds it. A database in memory has no lock.
    """
    if database == ":memory:":
        yield
        return
    lock = FileLock(f"{database}-sync-lock", mode=0o600, thread_local=False)
    is_waiting = False
    while True:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if not is_waiting:
                is_waiting = True
                on_waiting()
            await asyncio.sleep(POLL_SECONDS)
        else:
            break
    try:
        yield
    finally:
        lock.release()
