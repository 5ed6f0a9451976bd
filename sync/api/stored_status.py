"""The part of the status that is stored in the file: queue length, last sync, subscriptions.

Owns reading it after commits that may have changed it, including those of other processes, and right after opening:
an offline restart shows when the last sync was.
"""

from __future__ import annotations

import asyncio
import logging

from sync.errors import DatabaseClosedError
from sync.sqlite.cancellation import end_task
from sync.sqlite.pool import ConnectionPool
from sync.sqlite.sql_connection import SqlConnection
from sync.status.status import StatusBoard, SyncPriorityStatus, SyncStreamStatus
from sync.storage import publish, subscriptions, upload_queue
from sync.storage.key_values import from_microseconds
from sync.storage.names import STATUS_TABLES
from sync.storage.upload_queue import QueueState

logger = logging.getLogger("sync.status")

_PAUSE_SECONDS = 0.03
"""Between two reads: during a burst of commits, reads would cost more than the commits."""


class StoredStatus:
    """Keeps the status board up to date with the file."""

    def __init__(self, pool: ConnectionPool, board: StatusBoard) -> None:
        self._pool = pool
        self._board = board
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reading = asyncio.Lock()
        pool.listen(self._on_commit)

    async def start(self) -> None:
        """Read once, then after each commit that may have changed it."""
        await self.refresh()
        self._task = asyncio.create_task(self._follow(), name="sync: status")

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            await end_task(self._task)

    def _on_commit(self, changed: frozenset[str] | None) -> None:
        if changed is None or not STATUS_TABLES.isdisjoint(changed):
            self._changed.set()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.refresh()
            except DatabaseClosedError:
                return
            except Exception:
                logger.exception("the status could not be read from the file; retrying after the next change")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def refresh(self) -> None:
        """Read now. Only one read runs at a time, so that an older one never replaces a newer.

        Raises:
            DatabaseClosedError: the database is closed.
        """

        def read(
            connection: SqlConnection,
        ) -> tuple[QueueState, tuple[tuple[int | None, int], ...], tuple[SyncStreamStatus, ...]]:
            return (
                upload_queue.queue_state(connection),
                publish.synced_priorities(connection),
                subscriptions.stream_statuses(connection),
            )

        async with self._reading:
            queue, synced, streams = await self._pool.read(read)
            priorities = tuple(SyncPriorityStatus(number, from_microseconds(at)) for number, at in synced)
            complete = (entry.last_synced_at for entry in priorities if entry.priority is None)
            self._board.update_stored(
                streams,
                upload_queue_count=queue.count,
                last_synced_at=next(complete, None),
                priorities=priorities,
            )
