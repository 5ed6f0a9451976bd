"""A backend's database file as seen by other processes: which backend it belongs to, and whether it is being served.

Owns the lock file beside the database. Never changes the database, and is cheap to import.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

_BUSY_SECONDS = 1.0
_MAX_STEPS = 100_000


def lock_of(database: Path, *, timeout: float) -> BaseFileLock:
    """The lock that a backend holds while it serves `database`; returned without being acquired."""
    return FileLock(f"{database}-lock", mode=0o600, timeout=timeout, thread_local=False)


def is_served(database: Path) -> bool:
    """Whether any process is serving `database`, on whatever address. Blocking; run it in a thread."""
    if not Path(f"{database}-lock").is_file():
        return False
    lock = lock_of(database, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def backend_id_of(database: Path) -> str | None:
    """The id stored in `database`, or None if it is not a readable backend database. Blocking; run it in a thread."""
    try:
        # Only open regular files: opening anything else could block forever.
        if not database.is_file():
            return None
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as it:
            # The file may come from anywhere, and its `meta` may be a view whose query never ends.
            it.set_progress_handler(lambda: 1, _MAX_STEPS)
            row = it.execute("SELECT value FROM meta WHERE key = 'backend_id'").fetchone()
    except (sqlite3.Error, OSError, ValueError):
        return None
    return row[0] if row is not None and isinstance(row[0], str) else None
