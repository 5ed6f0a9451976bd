"""The lock by which several processes that share a file agree on which of them syncs it.

Owns the lock file beside the database. The operating system releases the lock of a process that dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from sync.cancellation import to_the_end

POLL_SECONDS = 1.0


@asynccontextmanager
async def sync_lock(database: str, on_waiting: Callable[[int | None], None]) -> AsyncGenerator[None]:
    """Hold the sync lock of a database file; wait for it without a deadline, asking once a second.

    While another process holds it, `on_waiting` is called after each look with that process' id, or None if it is not
    known. A database in memory has no lock.
    """
    if database == ":memory:":
        yield
        return
    path = await asyncio.to_thread(os.path.realpath, database)
    lock = FileLock(f"{path}-sync-lock", mode=0o600, thread_local=False)
    holder = Path(f"{path}-sync-process")
    try:
        while not await _acquire(lock):
            on_waiting(await asyncio.to_thread(_read_holder, holder))
            await asyncio.sleep(POLL_SECONDS)
        await asyncio.to_thread(_write_holder, holder)
        yield
    finally:
        if lock.is_locked:
            await to_the_end(asyncio.to_thread(_release, lock, holder))


def _write_holder(path: Path) -> None:
    """Tell the others who syncs. It is for people to read: the lock alone decides, and goes without it if need be."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(str(os.getpid()))


def _read_holder(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _release(lock: BaseFileLock, holder: Path) -> None:
    with contextlib.suppress(OSError):
        holder.unlink()
    lock.release()


async def _acquire(lock: BaseFileLock) -> bool:
    """Try once. If cancelled, the attempt is still carried out: the caller finds out by `is_locked`."""
    try:
        await to_the_end(asyncio.to_thread(lock.acquire, blocking=False))
    except Timeout:
        return False
    return True
