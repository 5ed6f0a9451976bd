"""The sync status that an app can see, as one frozen value.

Owns `SyncStatus`, its per-stream and per-priority parts, and the board on which the engine posts new values. Must not
know where they come from: the loops in `sync.client` and `sync.api.stored_status` post, everyone else reads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sync.errors import ChecksumError, DatabaseClosedError, ServiceError
from sync.status.progress import ProgressWithOperations, StreamReport, SyncProgress, TargetProgress


@dataclass(frozen=True, slots=True)
class SyncPriorityStatus:
    """When buckets of a priority, and of all higher ones, were last complete.

    Attributes:
        priority: 0 is the highest; None for complete checkpoints.
        last_synced_at: time (UTC), or None.
    """

    priority: int | None
    last_synced_at: datetime | None

    @property
    def has_synced(self) -> bool:
        """Whether they have been complete on this device at least once."""
        return self.last_synced_at is not None


@dataclass(frozen=True, slots=True)
class SyncStreamStatus:
    """What is known about one subscription to a sync stream.

    Attributes:
        name: the stream's name.
        parameters: as passed to `sync_stream`, or None.
        active: whether the service offers the stream (as of the last checkpoint).
        is_default: whether the service subscribes every client to it.
        has_explicit_subscription: whether the app subscribed to it.
        last_synced_at: time (UTC) of the last checkpoint that included it, or None. A stream that the service does not
            offer counts as included in each complete checkpoint: all existing data has arrived.
        offered: like `active`, but None until the service has answered this subscription. With sync rules without
            streams, a service offers only `global`, and sends the data anyway.
        error: why the service could not resolve the subscription, in the service's words, or None. Known while this
            process syncs.
        priority: the highest of its buckets, or None if it has none or this process does not sync.
        progress: the progress of its part of the download, or None while nothing is downloaded.
    """

    name: str
    parameters: dict[str, Any] | None
    active: bool
    is_default: bool
    last_synced_at: datetime | None
    has_explicit_subscription: bool = True
    offered: bool | None = None
    error: str | None = None
    priority: int | None = None
    progress: ProgressWithOperations | None = None
    subscription_id: int = field(default=0, repr=False)

    @property
    def has_synced(self) -> bool:
        """Whether its data has been complete on this device at least once."""
        return self.last_synced_at is not None


class _LastLine:
    """When the service last sent a line, by the monotonic clock; shared by all values of a status."""

    def __init__(self) -> None:
        self.at: float | None = None


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """The sync status at one moment.

    What is stored in the file (queue, last syncs, subscriptions) is the same in all processes that share it, and
    correct even without a connection; the rest applies to this process. Times are in UTC.

    Attributes:
        wanted: `connect()` was called and no `disconnect()` since.
        syncing_elsewhere: another process holds this file's sync lock and syncs it; known while `wanted`.
        syncing_process: the id of that process, if known.
        connecting: a connection attempt is in progress.
        connected: the stream to the service is open.
        downloading: a checkpoint is being received.
        download_progress: its progress, or None while nothing is downloaded.
        uploading: the connector is uploading.
        upload_queue_count: local changes (entries of the upload queue) waiting for the backend's answer.
        last_synced_at: time of the last complete checkpoint that was published on this device, or None. It never
            goes back; only `disconnect_and_clear` resets it.
        priorities: when each was published, the highest priority first, complete checkpoints last. A complete
            checkpoint includes all priorities and leaves only its own entry.
        streams: one entry per known subscription.
        download_error: why the last download attempt failed, or None while everything works.
        upload_error: why the last upload attempt failed, or None while everything works.
        download_retry_at: when the stream is reopened after a failure, or None.
        upload_retry_at: when an upload is retried after a failure, or None.
    """

    wanted: bool = False
    syncing_elsewhere: bool = False
    syncing_process: int | None = None
    connecting: bool = False
    connected: bool = False
    downloading: bool = False
    download_progress: SyncProgress | None = None
    uploading: bool = False
    upload_queue_count: int = 0
    last_synced_at: datetime | None = None
    priorities: tuple[SyncPriorityStatus, ...] = ()
    streams: tuple[SyncStreamStatus, ...] = ()
    download_error: Exception | None = None
    upload_error: Exception | None = None
    download_retry_at: datetime | None = None
    upload_retry_at: datetime | None = None
    _last_line: _LastLine = field(default_factory=_LastLine, repr=False, compare=False)

    @property
    def has_synced(self) -> bool:
        """Whether a complete checkpoint has ever been published on this device."""
        return self.last_synced_at is not None

    @property
    def next_retry_at(self) -> datetime | None:
        """When the next retry after a failure is due, or None if there is none."""
        return min(filter(None, (self.download_retry_at, self.upload_retry_at)), default=None)

    def seconds_since_last_line(self) -> float | None:
        """Seconds, at the time of this call, since the service last sent anything; None if it never did.

        A healthy stream sends a line every 22 seconds. No new status is published for it.
        """
        return None if self._last_line.at is None else time.monotonic() - self._last_line.at

    def status_for_priority(self, priority: int) -> SyncPriorityStatus:
        """When data of a priority was last complete.

        Returns the entry of this priority, or the next lower one that has an entry, or complete checkpoints: publishing
        a priority includes all higher ones.
        """
        for entry in self.priorities:
            if entry.priority is None or entry.priority >= priority:
                return entry
        return SyncPriorityStatus(priority, None)

    def for_stream(self, name: str, parameters: dict[str, Any] | None = None) -> SyncStreamStatus | None:
        """The status of one subscription, or None if this device does not have it."""
        for stream in self.streams:
            if stream.name == name and stream.parameters == parameters:
                return stream
        return None


@dataclass(slots=True)
class SyncRecords:
    """What the engine records only for `explain_sync`; not part of the status, and wakes nobody.

    Attributes:
        token_expires_at: time (UTC) at which the credentials in use expire, or None if unknown.
        checksum_failure: the last checksum failure, or None.
        checksum_failed_at: its time.
        service_error: the last HTTP error of the service, or None.
        service_failed_at: its time.
    """

    token_expires_at: datetime | None = None
    checksum_failure: ChecksumError | None = None
    checksum_failed_at: datetime | None = None
    service_error: ServiceError | None = None
    service_failed_at: datetime | None = None

    def note(self, error: object) -> None:
        """Record an error, if it is of a kind that is recorded."""
        if isinstance(error, ChecksumError):
            self.checksum_failure, self.checksum_failed_at = error, datetime.now(UTC)
        elif isinstance(error, ServiceError):
            self.service_error, self.service_failed_at = error, datetime.now(UTC)


class StatusBoard:
    """Has the newest status, and wakes its watchers."""

    def __init__(self) -> None:
        self._last_line = _LastLine()
        self._status = SyncStatus(_last_line=self._last_line)
        self._posted = asyncio.Event()
        self._closed = False
        self._stored_streams: tuple[SyncStreamStatus, ...] = ()
        self._target: TargetProgress | None = None
        self._reports: Mapping[int, StreamReport] = {}
        self._listeners: list[Callable[[], None]] = []
        self.records = SyncRecords()

    @property
    def status(self) -> SyncStatus:
        """The newest status."""
        return self._status

    @property
    def is_closed(self) -> bool:
        """Whether the database was closed."""
        return self._closed

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change, and when the board is closed."""
        self._listeners.append(listener)

    def update(self, **changes: Any) -> None:
        """Replace the given fields; watchers wake only if something differs."""
        self.records.note(changes.get("download_error"))
        self.records.note(changes.get("upload_error"))
        status = replace(self._status, **changes)
        if not status.downloading and self._status.download_progress is not None:
            status = replace(status, download_progress=None)
        if "streams" in changes or status.downloading is not self._status.downloading:
            status = replace(status, streams=self._current_streams(downloading=status.downloading))
        self._post(status)

    def update_stored(self, streams: tuple[SyncStreamStatus, ...], **changes: Any) -> None:
        """Replace the part that is stored in the file."""
        self._stored_streams = streams
        self.update(streams=streams, **changes)

    def update_download(self, target: TargetProgress | None, *, downloading: bool) -> None:
        """Show what a connection has received and learned; None as long as it has no checkpoint."""
        if target is self._target and not downloading and not self._status.downloading:
            return  # a keepalive or the like: nothing was counted
        if target is not None:
            self._target, self._reports = target, target.streams()
        progress = target.progress() if downloading and target is not None else None
        self.update(downloading=downloading, download_progress=progress, streams=())

    def line_received(self) -> None:
        """Record that the service sent a line. Wakes nobody."""
        self._last_line.at = time.monotonic()

    def retry_download_in(self, seconds: float | None) -> None:
        """Show that the stream is reopened in this many seconds (None: it is being opened)."""
        self.update(download_retry_at=_from_now(seconds))

    def retry_upload_in(self, seconds: float | None) -> None:
        """Show that an upload is retried in this many seconds (None: no retry is due)."""
        self.update(upload_retry_at=_from_now(seconds))

    def session_ended(self) -> None:
        """This process no longer syncs: reset everything that only a connection can know."""
        self._target, self._reports = None, {}
        self.records.token_expires_at = None
        self.update(
            syncing_elsewhere=False,
            syncing_process=None,
            connecting=False,
            connected=False,
            downloading=False,
            uploading=False,
            download_retry_at=None,
            upload_retry_at=None,
            streams=(),
        )

    def close(self) -> None:
        """End all watchers."""
        self._closed = True
        self._status = replace(self._status, wanted=False, download_retry_at=None)
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

    def _current_streams(self, *, downloading: bool) -> tuple[SyncStreamStatus, ...]:
        """The subscriptions in the file, with what the connection has learned about them."""
        streams: list[SyncStreamStatus] = []
        for stream in self._stored_streams:
            report = self._reports.get(stream.subscription_id)
            if report is not None:
                stream = replace(
                    stream,
                    offered=report.offered,
                    error=report.error,
                    priority=report.priority,
                    progress=report.progress if downloading else None,
                )
            streams.append(stream)
        return tuple(streams)

    def _post(self, status: SyncStatus) -> None:
        if status != self._status:
            self._status = status
            self._wake()

    def _wake(self) -> None:
        posted, self._posted = self._posted, asyncio.Event()
        posted.set()
        for listener in self._listeners:
            listener()


def _from_now(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
