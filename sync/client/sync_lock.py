"""The lock by which several processes that share a file agree on which of them syncs it.

Owns the lock file beside the database, which holds the number of the process that syncs. The operating system releases
the lock of a process that dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from sync.sqlite.cancellation import run_to_completion
from sync.sqlite.openers import remove_stale_marks

POLL_SECONDS = 1.0


@asynccontextmanager
async def sync_lock(database: str, on_waiting: Callable[[int | None], None]) -> AsyncGenerator[None]:
    """Hold the sync lock of a database file; wait for it without a deadline, asking once a second.

    While another process holds it, `on_waiting` is called after each look with that process' number, or None if it
    is not known. A database in memory has no lock.
    """
    if database == ":memory:":
        yield
        return
    lock = FileLock(await asyncio.to_thread(lock_file, database), mode=0o600, thread_local=False)
    try:
        while not await _acquire(lock):
            on_waiting(await asyncio.to_thread(holder, database))
            await asyncio.sleep(POLL_SECONDS)
        yield
    finally:
        if lock.is_locked:
            await run_to_completion(asyncio.to_thread(_release, lock))


def lock_file(database: str) -> Path:
    """Where the lock of a database file is. Links are followed, so that all names of the file share one lock."""
    return Path(f"{os.path.realpath(database)}-sync-lock")


def holder(database: str) -> int | None:
    """The number of the process that syncs a database file, or None if there is none, or it cannot be told.

    Reads a file: call it in a thread.
    """
    try:
        number = int(lock_file(database).read_text("ascii"))
    except (OSError, ValueError):
        return None
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return None  # it was killed, and nobody has taken over yet
    except PermissionError:
        pass  # it lives, under another user
    return number


def delete_database(database: str) -> None:
    """Remove a closed database file and what SQLite and this engine keep beside it. Blocks: call it in a thread."""
    path = os.path.realpath(database)
    for file in (path, f"{path}-wal", f"{path}-shm", f"{path}-journal", f"{path}-sync-lock", f"{path}-rescue-lock"):
        Path(file).unlink(missing_ok=True)
    shutil.rmtree(f"{path}-rescue", ignore_errors=True)
    remove_stale_marks(path)


async def _acquire(lock: BaseFileLock) -> bool:
    """Try once. If cancelled, the attempt is still carried out: the caller finds out by `is_locked`."""

    def acquire() -> bool:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        with contextlib.suppress(OSError):  # it tells the others who it is; what excludes them is the lock
            Path(lock.lock_file).write_text(str(os.getpid()), "ascii")
        return True

    return await run_to_completion(asyncio.to_thread(acquire))


def _release(lock: BaseFileLock) -> None:
    with contextlib.suppress(OSError):
        os.truncate(lock.lock_file, 0)
    lock.release()
