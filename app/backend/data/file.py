"""A backend's database file as other processes may look at it: which backend it is of, and whether it is served.

Owns the lock that goes with the file. Changes nothing in it, and is cheap to import.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

_BUSY_SECONDS = 1.0
_MAX_STEPS = 100_000


def lock_of(database: Path, *, timeout: float) -> BaseFileLock:
    """The lock that the one backend holds that serves `database`; not acquired."""
    return FileLock(f"{database}-lock", mode=0o600, timeout=timeout, thread_local=False)


def is_served(database: Path) -> bool:
    """Whether some process serves `database` now, wherever it listens. May take a moment; run it in a thread."""
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
    """The id kept in `database`, or None if that is no readable backend database. Run it in a thread."""
    try:
        # Only a regular file: opening anything else could wait for ever.
        if not database.is_file():
            return None
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as it:
            # The file may be anybody's, and `meta` in it be a view that never ends.
            it.set_progress_handler(lambda: 1, _MAX_STEPS)
            row = it.execute("SELECT value FROM meta WHERE key = 'backend_id'").fetchone()
    except (sqlite3.Error, OSError, ValueError):
        return None
    return row[0] if row is not None and isinstance(row[0], str) else None
