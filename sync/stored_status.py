"""The part of the status that is in the file: queue length, last sync, subscriptions.

Owns its reading after commits that may have changed it, also those of other processes, and right after opening: an
offline restart shows when the last sync was.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from datetime import UTC, datetime

from sync.cancellation import end_task
from sync.connection import ConnectionPool
from sync.errors import DatabaseClosedError
from sync.statements import Statements
from sync.status import StatusBoard, SyncPriorityStatus, SyncStreamStatus
from sync.storage import publish, subscriptions, upload_queue
from sync.storage.upload_queue import QueueState

logger = logging.getLogger("sync.status")

_PAUSE_SECONDS = 0.03
"""Between two reads: during a burst of commits they would cost more than the commits."""

_TABLES = frozenset({"ps_crud", "ps_sync_state", "ps_stream_subscriptions"})

_MOST_SIGHTINGS = 1000


class QueueAge:
    """How long the first entry of the upload queue waits, as far as this process has seen it.

    The file keeps no times: what was there when it was opened has waited at least since then.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[int, datetime]] = deque()

    def look(self, queue: QueueState) -> None:
        """Note which entries there are at this moment."""
        if queue.head is None:
            self._seen.clear()
            return
        if not self._seen or self._seen[-1][0] < queue.last_ever:
            self._seen.append((queue.last_ever, datetime.now(UTC)))
        while self._seen[0][0] < queue.head:
            self._seen.popleft()
        if len(self._seen) > _MOST_SIGHTINGS:
            # Every other one goes; an entry then counts as seen a little later than it was.
            self._seen = deque((*list(self._seen)[1:-1:2], self._seen[-1]))

    @property
    def head_seen_at(self) -> datetime | None:
        """When (UTC) the first entry that still waits was first seen, or None if nothing waits."""
        return self._seen[0][1] if self._seen else None


class StoredStatus:
    """Keeps the board in step with the file."""

    def __init__(self, pool: ConnectionPool, board: StatusBoard) -> None:
        self._pool = pool
        self._board = board
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self.queue_age = QueueAge()
        pool.listen(self._on_commit)

    async def start(self) -> None:
        """Read once, then after each commit that concerns it."""
        await self.refresh()
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
                await self.refresh()
            except DatabaseClosedError:
                return
            except Exception:
                logger.exception("the status could not be read from the file; it is read again after the next change")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def refresh(self) -> None:
        """Read now. Readings take turns, so that an older one never replaces a newer.

        Raises:
            DatabaseClosedError: the database is closed.
        """

        def read(
            statements: Statements,
        ) -> tuple[QueueState, tuple[tuple[int | None, int], ...], tuple[SyncStreamStatus, ...]]:
            return (
                upload_queue.queue_state(statements),
                publish.synced_priorities(statements),
                subscriptions.stream_statuses(statements),
            )

        async with self._turn:
            queue, synced, streams = await self._pool.read(read)
            self.queue_age.look(queue)
            priorities = tuple(SyncPriorityStatus(number, subscriptions.from_microseconds(at)) for number, at in synced)
            complete = (entry.last_synced_at for entry in priorities if entry.priority is None)
            self._board.update_stored(
                streams,
                upload_queue_count=queue.count,
                last_synced_at=next(complete, None),
                priorities=priorities,
            )
