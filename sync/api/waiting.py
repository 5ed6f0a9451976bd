"""Waiting for something to happen: a sync, an upload, a checkpoint.

Owns the waits of the public API, their deadlines and their errors. Their conditions are read from the file, never
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
        SyncTimeoutError: the time is up; its message starts with `awaited`.
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
    """A requested checkpoint. Made by `PowerSyncDatabase.request_checkpoint`."""

    def __init__(self, waiting: Waiting, requested_at: int) -> None:
        self._waiting = waiting
        self._requested_at = requested_at

    async def wait_for_sync(self, timeout: float | None = None) -> None:
        """Wait until the checkpoint is published on this device. May be called concurrently and repeatedly.

        Args:
            timeout: seconds.

        Raises:
            SyncTimeoutError: not within `timeout`.
            NotConnectedError: `connect` was not called, or `disconnect` was called during the wait. The request
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
        context: the database's context.
        stored: refreshed before a wait returns, so that the status agrees with what was waited for.
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
        await self._for_status_while_connected(
            lambda status: status.has_synced if priority is None else status.status_for_priority(priority).has_synced,
            "The first sync",
            timeout,
        )

    async def for_stream(self, name: str, is_synced: Callable[[SyncStatus], bool], timeout: float | None) -> None:
        """See `SyncStreamSubscription.wait_for_first_sync`."""
        await self._for_status_while_connected(is_synced, f"The first sync of the stream {name}", timeout)

    async def for_status(self, predicate: Callable[[SyncStatus], bool], timeout: float | None) -> SyncStatus:
        """See `PowerSyncDatabase.wait_for_status`."""
        async with deadline("Waiting for the status", timeout):
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
        self._require_connect("A checkpoint")
        requested_at = await self._pool.write(checkpoint_requests.request)
        self._mail.retry_now()
        return CheckpointRequest(self, requested_at)

    async def until(
        self, condition: Callable[[SqlConnection], bool], awaited: str, timeout: float | None = None
    ) -> None:
        """Wait until the file satisfies a condition, but only while connected or connecting."""
        async with deadline(awaited, timeout):
            while True:
                changed = self._something_changed
                if await self._pool.read(condition):
                    break
                self._require_connect(awaited)
                await changed.wait()
            await self._stored.refresh()

    @asynccontextmanager
    async def _unless_rejected(self) -> AsyncGenerator[int]:
        """Yields the number of the last local change; raises at the end if one of those now waiting was rejected."""
        first, last = await self._pool.read(checkpoint_requests.waiting_entries)
        yield last
        reason = await self._pool.read(lambda connection: rejected_writes.reason_among(connection, first, last))
        if reason is not None:
            message = reason.rstrip(".")
            raise WriteRejectedError(f"The backend rejected a change: {message}. It is kept in the rejected writes.")

    async def _for_status_while_connected(
        self, predicate: Callable[[SyncStatus], bool], awaited: str, timeout: float | None
    ) -> None:
        """Wait for a status. `connect` may be called later, or in another process; `disconnect` ends the wait."""
        was_wanted = False

        def reached(status: SyncStatus) -> bool:
            nonlocal was_wanted
            if predicate(status):
                return True
            if was_wanted and not status.wanted:
                raise NotConnectedError(f"{awaited} did not complete: disconnect() was called during the wait.")
            was_wanted = status.wanted
            return False

        async with deadline(awaited, timeout):
            await self._board.wait_for(reached)

    def _require_connect(self, awaited: str) -> None:
        if self._board.is_closed:
            raise DatabaseClosedError("The database was closed during the wait.")
        if not self._board.status.wanted:
            raise NotConnectedError(
                f"{awaited} needs a connection: call connect() first. Local changes are kept in the upload queue."
            )

    def _on_commit(self, changed: frozenset[str] | None) -> None:
        if checkpoint_requests.concerns(changed):
            self._wake()

    def _wake(self) -> None:
        changed, self._something_changed = self._something_changed, asyncio.Event()
        changed.set()
