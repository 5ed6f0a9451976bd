"""The write-ahead log beside the file, and how it is kept from growing without limit.

Passive checkpoints, which block nobody, move commits from the log into the file in parallel with the writer. SQLite
then restarts the log at a moment without readers. If reads overlap all the time, there is no such moment, and the log
grows with every commit; then the pool creates one (see `ConnectionPool`). Owns when either is due, the checkpoints, and
a connection for the passive ones. Must not know what is in the file.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing

from sync.sqlite.sql_connection import SqlConnection

logger = logging.getLogger("sync.connection")

KEPT_BYTES = 6 << 20
"""The log is truncated to this length when it restarts (`journal_size_limit`); while shorter, it is left alone."""

LONG_BYTES = 48 << 20
"""From this length on, bulk writes wait for a checkpoint: a log can be restarted only in a pause."""

LIMIT_BYTES = 64 << 20
"""Above this length, after a checkpoint, a moment without readers is created."""

_PAUSE_SECONDS = 0.05
"""Between two checkpoints. During many small commits, the log is never short, and each checkpoint slows them down."""

_BUSY_TIMEOUT_MS = 100


class WriteAheadLog:
    """The log of one database file.

    Args:
        path: the database file.
        busy_timeout_seconds: the writer's busy timeout, which `restart` shortens temporarily.
        on_too_long: called on the event loop when a moment without readers is due.
    """

    def __init__(self, path: str, busy_timeout_seconds: float, on_too_long: Callable[[], None]) -> None:
        self._path = path
        self._log = f"{path}-wal"
        self._busy_timeout_ms = int(busy_timeout_seconds * 1000)
        self._on_too_long = on_too_long
        self._limit = LIMIT_BYTES
        self._last_length = 0
        self._checkpoint: asyncio.Task[None] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._requested_again = False
        self._closed = False

    def is_due(self) -> bool:
        """Whether the log is long enough for a checkpoint. Takes one stat; may be called on any thread."""
        return self._length() > KEPT_BYTES

    def begin_checkpoint(self) -> None:
        """Move commits into the file, now or after a short pause. Called on the event loop."""
        if self._pause is not None or (self._checkpoint is not None and not self._checkpoint.done()):
            self._requested_again = True  # the last one may have read the log before it grew
        elif not self._closed:
            self._checkpoint = asyncio.create_task(self._run(), name="sync: WAL checkpoint")

    async def until_short(self) -> None:
        """If the log has grown long, wait for the checkpoint that is due."""
        if self._last_length > LONG_BYTES:
            self._resume()
            if self._checkpoint is not None:
                await asyncio.wait({self._checkpoint})

    def restart(self, connection: SqlConnection) -> bool:
        """Empty the log, on the writer's thread. Returns False if a reader, such as another process, prevents it.

        Then it is due again when the log has grown by the same amount.
        """
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        try:
            busy = bool(connection.value("PRAGMA wal_checkpoint(TRUNCATE)"))
        finally:
            connection.execute(f"PRAGMA busy_timeout = {self._busy_timeout_ms}")
        self._limit = (self._length() if busy else 0) + LIMIT_BYTES
        return not busy

    async def close(self) -> None:
        """Wait for a running checkpoint, and start no other."""
        self._closed = True
        self._end_pause()
        if self._checkpoint is not None:
            await asyncio.wait({self._checkpoint})

    def _length(self) -> int:
        try:
            self._last_length = os.stat(self._log).st_size  # noqa: PTH116 - runs after each commit
        except OSError:
            self._last_length = 0
        return self._last_length

    async def _run(self) -> None:
        self._requested_again = False
        try:
            length = await asyncio.to_thread(self._move)
        except sqlite3.Error as error:
            logger.warning("the write-ahead log could not be moved into the file, retrying: %s", error)
        else:
            if length > self._limit:
                self._on_too_long()
        if not self._closed:
            self._pause = asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._end_pause()
        if self._requested_again:
            self.begin_checkpoint()

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _move(self) -> int:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        return self._length()
