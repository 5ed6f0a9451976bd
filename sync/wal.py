"""The write-ahead log beside the file, and how it is kept from growing without end.

SQLite begins the log anew only at a moment at which nobody reads from it. If reads overlap all the time there is none,
and the log grows with every commit; then the pool makes one (see `ConnectionPool`). Owns when that is due and the
checkpoint itself. Must not know connections other than the one that it is given.
"""

from __future__ import annotations

from pathlib import Path

from sync.statements import Statements

WAL_LIMIT_BYTES = 16 * 1024 * 1024
"""Above SQLite's own automatic checkpoints (4 MB) and the size that the log keeps when it is begun anew (6 MB)."""

_BUSY_TIMEOUT_MS = 100


class WriteAheadLog:
    """The log of one file. Its methods are called on the writer's thread."""

    def __init__(self, path: str, busy_timeout_seconds: float) -> None:
        self._path = Path(f"{path}-wal")
        self._busy_timeout_ms = int(busy_timeout_seconds * 1000)
        self._due_at = WAL_LIMIT_BYTES

    def is_due(self) -> bool:
        """Whether the log has grown so much that it should be begun anew."""
        return self._size() > self._due_at

    def begin_anew(self, statements: Statements) -> bool:
        """Write the log into the file and empty it. Returns False if a reader is in the way, of another process, say.

        Then it is due again when the log has grown by the same amount once more.
        """
        statements.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        try:
            busy = bool(statements.value("PRAGMA wal_checkpoint(TRUNCATE)"))
        finally:
            statements.execute(f"PRAGMA busy_timeout = {self._busy_timeout_ms}")
        self._due_at = (self._size() if busy else 0) + WAL_LIMIT_BYTES
        return not busy

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0
