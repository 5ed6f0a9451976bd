"""The part of the status that is in the file: queue length, last sync, subscriptions.

Owns its reading after commits that may have changed it, also those of other processes, and right after opening: an
offline restart shows when the last sync was.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sync.cancellation import end_task
from sync.connection import ConnectionPool
from sync.errors import DatabaseClosedError
from sync.statements import Statements
from sync.status import StatusBoard
from sync.storage import publish, subscriptions, upload_queue
from sync.storage.key_values import optional_time

logger = logging.getLogger("sync.status")

_TABLES = frozenset({"ps_crud", "ps_sync_state", "ps_stream_subscriptions"})


class StoredStatus:
    """Keeps the board in step with the file."""

    def __init__(self, pool: ConnectionPool, board: StatusBoard) -> None:
        self._pool = pool
        self._board = board
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        pool.listen(self._on_commit)

    async def start(self) -> None:
        """Read once, then after each commit that concerns it."""
        await self._read()
        self._task = asyncio.create_task(self._follow(), name="sync: status")

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            await end_task(self._task)

    def _on_commit(self, changed: frozenset[str] | None) -> None:
        if changed is None or not _TABLES.isdisjoint(changed):
            self._changed.set()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._read()
            except DatabaseClosedError:
                return
            except Exception:
                logger.exception("the status could not be read from the file; it is read again after the next change")

    async def _read(self) -> None:
        def read(statements: Statements) -> dict[str, Any]:
            return {
                "upload_queue_count": upload_queue.queue_state(statements).count,
                "last_synced_at": optional_time(publish.last_synced_at(statements)),
                "streams": subscriptions.stream_statuses(statements),
            }

        self._board.update(**await self._pool.read(read))
