"""What an app may know about the state of synchronization, as one frozen value.

Owns `SyncStatus`, the per-stream part of it, and the board on which the engine posts new values. Must not know how
any of it comes about: the loops in `sync.client` post, everyone else reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sync.errors import DatabaseClosedError


@dataclass(frozen=True, slots=True)
class SyncStreamStatus:
    """What is known about one subscription of a sync stream.

    Attributes:
        name: the stream's name.
        parameters: as given to `sync_stream`, or None.
        active: the service offers the stream (as of the last checkpoint).
        is_default: the service subscribes every client to it.
        last_synced_at: time of the last checkpoint that included it, or None.
    """

    name: str
    parameters: dict[str, Any] | None
    active: bool
    is_default: bool
    last_synced_at: datetime | None

    @property
    def has_synced(self) -> bool:
        """Whether its data has been complete on this device at least once."""
        return self.last_synced_at is not None


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """The state of synchronization at one moment.

    Attributes:
        wanted: `connect()` was called and no `disconnect()` since.
        syncing_elsewhere: another process holds this file's sync lock and syncs it.
        connecting: a connection attempt is under way.
        connected: the stream to the service is open.
        downloading: a checkpoint is being received.
        uploading: the connector is uploading.
        upload_queue_count: local changes (entries of the upload queue) that wait for the backend's answer.
        last_synced_at: time (UTC) of the last complete checkpoint that was published on this device, or None.
        streams: one entry per known subscription.
        download_error: why the last download attempt ended, or None while all is well.
        upload_error: why the last upload attempt ended, or None while all is well.
    """

    wanted: bool = False
    syncing_elsewhere: bool = False
    connecting: bool = False
    connected: bool = False
    downloading: bool = False
    uploading: bool = False
    upload_queue_count: int = 0
    last_synced_at: datetime | None = None
    streams: tuple[SyncStreamStatus, ...] = ()
    download_error: Exception | None = None
    upload_error: Exception | None = None

    @property
    def has_synced(self) -> bool:
        """Whether a complete checkpoint has ever been published on this device."""
        return self.last_synced_at is not None

    def for_stream(self, name: str, parameters: dict[str, Any] | None = None) -> SyncStreamStatus | None:
        """The status of one subscription, or None if this device does not have it."""
        for stream in self.streams:
            if stream.name == name and stream.parameters == parameters:
                return stream
        return None


class StatusBoard:
    """Holds the newest status and wakes those who watch it."""

    def __init__(self) -> None:
        self._status = SyncStatus()
        self._posted = asyncio.Event()
        self._closed = False

    @property
    def status(self) -> SyncStatus:
        """The newest status."""
        return self._status

    def update(self, **changes: Any) -> None:
        """Replace the given fields; watchers wake only if something differs."""
        status = replace(self._status, **changes)
        if status != self._status:
            self._status = status
            self._wake()

    def close(self) -> None:
        """End all watchers."""
        self._closed = True
        self._wake()

    async def watch(self) -> AsyncIterator[SyncStatus]:
        """Yield the current status, then each newer one; a slow reader gets only the newest.

        Ends when the database is closed.
        """
        last: SyncStatus | None = None
        while not self._closed:
            posted = self._posted
            if self._status is not last:
                last = self._status
                yield last
            else:
                await posted.wait()

    async def wait_for(self, predicate: Callable[[SyncStatus], bool]) -> SyncStatus:
        """Wait until the status satisfies `predicate`, and return it. Has no deadline: use `asyncio.timeout`.

        Raises:
            DatabaseClosedError: the database was closed first.
        """
        async for status in self.watch():
            if predicate(status):
                return status
        raise DatabaseClosedError("The database was closed while waiting for its status.")

    def _wake(self) -> None:
        posted, self._posted = self._posted, asyncio.Event()
        posted.set()
