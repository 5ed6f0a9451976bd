"""The write-ahead log beside the file, and how it is kept from growing without end.

What was committed is moved from the log into the file beside the writer, by passive checkpoints that make nobody wait.
SQLite then begins the log anew at a moment at which nobody reads from it. If reads overlap all the time there is none,
and the log grows with every commit; then the pool makes one (see `ConnectionPool`). Owns when either is due, the
checkpoints, and a connection for the passive ones. Must not know what is in the file.
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
"""The log is cut to this length when it is begun anew (`journal_size_limit`); while it is shorter, it is left alone."""

LONG_BYTES = 48 << 20
"""From this length on, those who write in bulk wait for a checkpoint: a log can be begun anew only in a pause."""

LIMIT_BYTES = 64 << 20
"""Above this length, after a checkpoint, a moment without readers is made."""

_PAUSE_SECONDS = 0.05
"""Between two checkpoints. While many small commits come, the log is never short, and each checkpoint slows them."""

_BUSY_TIMEOUT_MS = 100


class WriteAheadLog:
    """The log of one database file.

    Args:
        path: of the database.
        busy_timeout_seconds: of the writer, which `begin_anew` shortens for a while.
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
        self._asked_again = False
        self._closed = False

    def is_due(self) -> bool:
        """Whether the log is long enough for a checkpoint. Costs one stat; may be called on any thread."""
        return self._length() > KEPT_BYTES

    def begin_checkpoint(self) -> None:
        """Move what is committed into the file, now or after a short pause. Called on the event loop."""
        if self._pause is not None or (self._checkpoint is not None and not self._checkpoint.done()):
            self._asked_again = True  # the last one may have looked at the log before it grew to what it is
        elif not self._closed:
            self._checkpoint = asyncio.create_task(self._run(), name="sync: WAL checkpoint")

    async def until_short(self) -> None:
        """If the log has grown long, wait until the checkpoint that is due has ended."""
        if self._last_length > LONG_BYTES:
            self._resume()
            if self._checkpoint is not None:
                await asyncio.wait({self._checkpoint})

    def begin_anew(self, connection: SqlConnection) -> bool:
        """Empty the log, on the writer's thread. Returns False if a reader is in the way, of another process, say.

        Then it is due again when the log has grown by the same amount once more.
        """
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        try:
            busy = bool(connection.value("PRAGMA wal_checkpoint(TRUNCATE)"))
        finally:
            connection.execute(f"PRAGMA busy_timeout = {self._busy_timeout_ms}")
        self._limit = (self._length() if busy else 0) + LIMIT_BYTES
        return not busy

    async def close(self) -> None:
        """Wait for the checkpoint that is going on, and begin no other."""
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
        self._asked_again = False
        try:
            length = await asyncio.to_thread(self._move)
        except sqlite3.Error as error:
            logger.warning("the write-ahead log could not be moved into the file, it is tried again: %s", error)
        else:
            if length > self._limit:
                self._on_too_long()
        if not self._closed:
            self._pause = asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._end_pause()
        if self._asked_again:
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
