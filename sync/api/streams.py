"""Sync streams as an app sees them: something to subscribe to.

Owns the public handles `SyncStream` and `SyncStreamSubscription`, and which handles are in use. The subscriptions
themselves are stored by `sync.storage.subscriptions`; `sync.client` decides when the service learns of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from sync.api.stored_status import StoredStatus
from sync.api.waiting import Waiting
from sync.client.context import DatabaseContext
from sync.client.streams_in_use import StreamsInUse
from sync.errors import DatabaseClosedError
from sync.sqlite.cancellation import end_task
from sync.sqlite.sql_connection import SqlConnection
from sync.status.status import SyncStatus, SyncStreamStatus
from sync.storage import subscriptions
from sync.storage.subscriptions import StreamKey

logger = logging.getLogger("sync.streams")

DEFAULT_TTL = timedelta(days=1)

_SHORTEST_RENEWAL_SECONDS = 20.0
_LONGEST_RENEWAL_SECONDS = 3600.0


class SyncStreams:
    """The subscriptions of one database that this process uses."""

    def __init__(self, context: DatabaseContext, stored: StoredStatus, waiting: Waiting) -> None:
        self._pool = context.pool
        self._board = context.board
        self._in_use: StreamsInUse[SyncStreamSubscription] = context.streams
        self._mail = context.mail.downloads
        self._stored = stored
        self._waiting = waiting
        self._uses_changed = asyncio.Event()
        self._renewal: asyncio.Task[None] | None = None

    @property
    def status(self) -> SyncStatus:
        return self._board.status

    def start(self) -> None:
        """Start renewing the subscriptions in use."""
        self._renewal = asyncio.create_task(self._renew(), name="sync: uses of streams")

    async def close(self) -> None:
        """Stop renewing; subscriptions in use last for their time to live."""
        if self._renewal is not None:
            await end_task(self._renewal)

    async def subscribe(self, stream: SyncStream, ttl: timedelta, priority: int | None) -> SyncStreamSubscription:
        key = await self._pool.write(lambda connection: subscriptions.subscribe(connection, stream.key, ttl, priority))
        subscription = SyncStreamSubscription(self, stream, key, ttl)
        self._in_use.add(key, subscription)
        self._uses_changed.set()
        self._mail.subscriptions_changed.set()
        await self._stored.refresh()
        return subscription

    def is_used(self, subscription: SyncStreamSubscription) -> bool:
        return subscription in self._in_use.of(subscription.key)

    async def unsubscribe(self, subscription: SyncStreamSubscription) -> None:
        if not self.is_used(subscription):
            return
        key, ttl = subscription.key, subscription.ttl
        self._in_use.remove(key, subscription)
        with contextlib.suppress(DatabaseClosedError):
            await self._pool.write(lambda connection: subscriptions.end_use(connection, key, ttl))

    async def unsubscribe_all(self, stream: SyncStream) -> None:
        def transaction(connection: SqlConnection) -> StreamKey:
            key = subscriptions.stored_key(connection, stream.key)
            subscriptions.unsubscribe_all(connection, key)
            return key

        key = await self._pool.write(transaction)
        for subscription in self._in_use.of(key):
            self._in_use.remove(key, subscription)
        self._mail.subscriptions_changed.set()
        await self._stored.refresh()

    async def wait_for_first_sync(self, stream: SyncStream, timeout: float | None) -> None:
        def is_synced(status: SyncStatus) -> bool:
            known = status.for_stream(stream.name, stream.parameters)
            return known is not None and known.has_synced

        await self._waiting.for_stream(stream.name, is_synced, timeout)

    async def _renew(self) -> None:
        """Keep subscriptions in use from expiring: another process may be syncing, and does not know of them."""
        loop = asyncio.get_running_loop()
        due: float | None = None
        while True:
            ttls = [use.ttl.total_seconds() for use in self._in_use]
            wait = min(max(min(ttls, default=0.0) / 3, _SHORTEST_RENEWAL_SECONDS), _LONGEST_RENEWAL_SECONDS)
            # Uses that come and go must not postpone the renewal of the others.
            due = min(due or loop.time() + wait, loop.time() + wait) if ttls else None
            self._uses_changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._uses_changed.wait()
                    continue
            due = None
            keys = self._in_use.keys
            try:
                await self._pool.write(lambda connection, keys=keys: subscriptions.renew(connection, keys))
            except DatabaseClosedError:
                return
            except sqlite3.Error as error:
                logger.warning("subscriptions in use could not be renewed, retrying: %s", error)


class SyncStream:
    """A stream with parameters. Made by `PowerSyncDatabase.sync_stream`.

    Attributes:
        name: the stream's name.
        parameters: as decoded from JSON, or None.
    """

    def __init__(self, streams: SyncStreams, name: str, parameters: dict[str, Any] | None) -> None:
        self.key = StreamKey.of(name, parameters)
        self.name = name
        self.parameters = self.key.decoded_parameters
        self._streams = streams

    @property
    def status(self) -> SyncStreamStatus | None:
        """What is known about it now, or None if this device has no subscription to it."""
        return self._streams.status.for_stream(self.name, self.parameters)

    async def subscribe(self, *, ttl: timedelta = DEFAULT_TTL, priority: int | None = None) -> SyncStreamSubscription:
        """Subscribe; the data arrives while connected, and stays for `ttl` after the last subscription ended.

        Subscriptions to the same stream with the same parameters are sent to the service as one, which is stored in the
        file: a program that does not subscribe again after a restart still gets the data, until `ttl` has passed.
        Several changes within 50 ms cause one reconnect. A subscription that is dropped without `unsubscribe` counts as
        in use until the program ends. If cancelled, the subscription may exist; it expires after its time to live.

        Args:
            ttl: the time to live.
            priority: overrides the stream's own; 0 is the highest. Of several, the highest applies.

        Raises:
            DatabaseClosedError: the database is closed.
        """
        return await self._streams.subscribe(self, ttl, priority)

    async def unsubscribe_all(self) -> None:
        """End all subscriptions to this stream with these parameters, and their time to live, immediately.

        Its data is removed with the next checkpoint, unless other streams include it. A stream that the service
        subscribes everyone to stays subscribed.

        Raises:
            DatabaseClosedError: the database is closed.
        """
        await self._streams.unsubscribe_all(self)


class SyncStreamSubscription:
    """A use of a stream. Use it as an async context manager, or call `unsubscribe`.

    Attributes:
        stream: what was subscribed to.
        ttl: how long the data stays after the last use.
    """

    def __init__(self, streams: SyncStreams, stream: SyncStream, key: StreamKey, ttl: timedelta) -> None:
        self.stream = stream
        self.key = key
        self.ttl = ttl
        self._streams = streams

    @property
    def is_active(self) -> bool:
        """Whether neither `unsubscribe` nor the stream's `unsubscribe_all` has been called."""
        return self._streams.is_used(self)

    @property
    def status(self) -> SyncStreamStatus | None:
        """What is known about the stream now, or None if it was unsubscribed and removed."""
        return self.stream.status

    async def wait_for_first_sync(self, timeout: float | None = None) -> None:
        """Wait until the stream's data has been complete on this device at least once.

        A stream that the service does not offer is complete when all data is: with sync rules without streams, a
        service offers no stream but `global`, and sends the data anyway. `status.offered` distinguishes the two, and
        `status.error` says why a stream could not be resolved. May be called before `connect`.

        Args:
            timeout: seconds.

        Raises:
            SyncTimeoutError: not within `timeout`.
            NotConnectedError: `disconnect` was called during the wait.
            DatabaseClosedError: the database was closed first.
        """
        await self._streams.wait_for_first_sync(self.stream, timeout)

    async def unsubscribe(self) -> None:
        """End this use; the data stays for the time to live after the last use. Idempotent."""
        await self._streams.unsubscribe(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.unsubscribe()
