"""Waiting until something is so: synced, uploaded, come back.

Owns the waits of the public face, their deadlines and their errors. What is waited for is read from the file, never
from the loops of this process: another process may be the one that syncs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from sync.api.stored_status import StoredStatus
from sync.client.context import DatabaseContext
from sync.errors import DatabaseClosedError, NotConnectedError, SyncTimeoutError, WriteRejectedError
from sync.sqlite.sql_connection import SqlConnection
from sync.status.status import SyncStatus
from sync.storage import checkpoint_requests, rejected_writes


@asynccontextmanager
async def deadline(awaited: str, timeout: float | None) -> AsyncGenerator[None]:
    """Like `asyncio.timeout`, with the engine's own error.

    Raises:
        SyncTimeoutError: the time is over; `awaited` begins its sentence.
    """
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if timeout is not None and limit.expired():
            raise SyncTimeoutError(awaited, timeout) from error
        raise


class CheckpointRequest:
    """A checkpoint that was requested. Made by `PowerSyncDatabase.request_checkpoint`."""

    def __init__(self, waiting: Waiting, requested_at: int) -> None:
        self._waiting = waiting
        self._requested_at = requested_at

    async def wait_for_sync(self, timeout: float | None = None) -> None:
        """Wait until the checkpoint is published on this device. May be called by several, and again.

        Args:
            timeout: seconds.

        Raises:
            SyncTimeoutError: not within `timeout`.
            NotConnectedError: no connection is wished for, or `disconnect` was called during the wait. The request
                stays in the file, and is fulfilled after the next `connect`.
            DatabaseClosedError: the database was closed.
        """
        await self._waiting.until(
            lambda connection: checkpoint_requests.is_published(connection, self._requested_at),
            "The requested checkpoint",
            timeout,
        )


class Waiting:
    """All waits of one database.

    Args:
        context: of the database.
        stored: brought up to date before a wait returns, so that the status agrees with what was waited for.
    """

    def __init__(self, context: DatabaseContext, stored: StoredStatus) -> None:
        self._pool = context.pool
        self._board = context.board
        self._mail = context.mail
        self._stored = stored
        self._something_changed = asyncio.Event()
        self._pool.listen(self._on_commit)
        self._board.listen(self._wake)

    async def for_first_sync(self, priority: int | None, timeout: float | None) -> None:
        """See `PowerSyncDatabase.wait_for_first_sync`."""
        await self._for_status_while_wanted(
            lambda status: status.has_synced if priority is None else status.status_for_priority(priority).has_synced,
            "The first sync",
            timeout,
        )

    async def for_stream(self, name: str, is_synced: Callable[[SyncStatus], bool], timeout: float | None) -> None:
        """See `SyncStreamSubscription.wait_for_first_sync`."""
        await self._for_status_while_wanted(is_synced, f"The first sync of the stream {name}", timeout)

    async def for_status(self, predicate: Callable[[SyncStatus], bool], timeout: float | None) -> SyncStatus:
        """See `PowerSyncDatabase.wait_for_status`."""
        async with deadline("The status that was waited for", timeout):
            return await self._board.wait_for(predicate)

    async def for_upload(self, timeout: float | None, *, retry_now: bool) -> None:
        """See `PowerSyncDatabase.wait_for_upload` and `flush`."""
        async with deadline("The upload of the local changes", timeout), self._unless_rejected() as last:
            if retry_now:
                self._mail.retry_now()
            await self.until(lambda connection: checkpoint_requests.is_uploaded(connection, last), "The upload")

    async def for_sync(self, timeout: float | None) -> None:
        """See `PowerSyncDatabase.wait_for_sync`."""
        async with deadline("The sync", timeout), self._unless_rejected():
            request = await self.request_checkpoint()
            await request.wait_for_sync()

    async def request_checkpoint(self) -> CheckpointRequest:
        """See `PowerSyncDatabase.request_checkpoint`."""
        self._require_wish("A checkpoint")
        requested_at = await self._pool.write(checkpoint_requests.request)
        self._mail.retry_now()
        return CheckpointRequest(self, requested_at)

    async def until(
        self, condition: Callable[[SqlConnection], bool], awaited: str, timeout: float | None = None
    ) -> None:
        """Wait until the file satisfies a condition, as long as a connection is wished for."""
        async with deadline(awaited, timeout):
            while True:
                changed = self._something_changed
                if await self._pool.read(condition):
                    break
                self._require_wish(awaited)
                await changed.wait()
            await self._stored.refresh()

    @asynccontextmanager
    async def _unless_rejected(self) -> AsyncGenerator[int]:
        """Gives the number of the last local change; at the end none of those that wait now may have been rejected."""
        first, last = await self._pool.read(checkpoint_requests.waiting_entries)
        yield last
        reason = await self._pool.read(lambda connection: rejected_writes.reason_among(connection, first, last))
        if reason is not None:
            said = reason.rstrip(".")
            raise WriteRejectedError(f"The backend rejected a change: {said}. It is kept among the rejected writes.")

    async def _for_status_while_wanted(
        self, predicate: Callable[[SyncStatus], bool], awaited: str, timeout: float | None
    ) -> None:
        """Wait for a status. The connection may be wished for later, or by another process; but not be given up."""
        was_wanted = False

        def reached(status: SyncStatus) -> bool:
            nonlocal was_wanted
            if predicate(status):
                return True
            if was_wanted and not status.wanted:
                raise NotConnectedError(f"{awaited} was given up: disconnect() was called meanwhile.")
            was_wanted = status.wanted
            return False

        async with deadline(awaited, timeout):
            await self._board.wait_for(reached)

    def _require_wish(self, awaited: str) -> None:
        if self._board.is_closed:
            raise DatabaseClosedError("The database was closed while waiting for it to sync.")
        if not self._board.status.wanted:
            raise NotConnectedError(
                f"{awaited} cannot come while no connection is wished for; call connect() first. "
                "Local changes are kept in the upload queue."
            )

    def _on_commit(self, changed: frozenset[str] | None) -> None:
        if checkpoint_requests.concerns(changed):
            self._wake()

    def _wake(self) -> None:
        changed, self._something_changed = self._something_changed, asyncio.Event()
        changed.set()
