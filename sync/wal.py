"""The write-ahead log: moving what was committed from it into the database file, beside the writer.

Owns a connection and a thread hop for passive checkpoints, which make neither readers nor the writer wait. When a
checkpoint is due, is told by the log's length after a commit. Must not know what is in the file.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

logger = logging.getLogger("sync.connection")

KEPT_BYTES = 6 << 20
"""The log is cut to this length when it is begun anew (`journal_size_limit`); while it is shorter, it is left alone."""

LONG_BYTES = 48 << 20
"""From this length on, those who write in bulk wait for a checkpoint: a log can be begun anew only in a pause."""


class WriteAheadLog:
    """The log of one database file. Its methods belong to the event loop, except `is_due`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._log = Path(f"{path}-wal")
        self._checkpoint: asyncio.Task[None] | None = None
        self._closed = False

    def is_due(self) -> bool:
        """Whether the log is long enough for a checkpoint. Costs one stat; may be called on any thread."""
        return self._length() > KEPT_BYTES

    def begin_checkpoint(self) -> None:
        """Move what is committed into the file, unless that is already going on."""
        if not self._closed and (self._checkpoint is None or self._checkpoint.done()):
            self._checkpoint = asyncio.create_task(self._run(), name="sync: WAL checkpoint")

    async def until_short(self) -> None:
        """If the log has grown long, wait until the checkpoint that is going on has ended."""
        if self._checkpoint is not None and self._length() > LONG_BYTES:
            await asyncio.wait({self._checkpoint})

    async def close(self) -> None:
        """Wait for the checkpoint that is going on, and begin no other."""
        self._closed = True
        if self._checkpoint is not None:
            await asyncio.wait({self._checkpoint})

    def _length(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    async def _run(self) -> None:
        try:
            await asyncio.to_thread(self._move)
        except sqlite3.Error as error:
            logger.warning("the write-ahead log could not be moved into the file, it is tried again: %s", error)

    def _move(self) -> None:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
