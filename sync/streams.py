"""Sync streams as an app sees them: something to subscribe to.

Owns the public handles `SyncStream` and `SyncStreamSubscription`. The subscriptions themselves are kept by
`sync.storage.subscriptions`; which are in use is counted by `sync.client.coordinator`.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from sync.client.coordinator import SyncCoordinator
from sync.connection import ConnectionPool
from sync.errors import DatabaseClosedError
from sync.status import StatusBoard
from sync.storage import subscriptions
from sync.storage.subscriptions import StreamKey

DEFAULT_TTL = timedelta(days=1)


class SyncStream:
    """A stream with parameters. Made by `PowerSyncDatabase.sync_stream`."""

    def __init__(
        self,
        pool: ConnectionPool,
        board: StatusBoard,
        coordinator: SyncCoordinator,
        name: str,
        parameters: dict[str, Any] | None,
    ) -> None:
        self._key = StreamKey.of(name, parameters)
        self.name = name
        self.parameters = self._key.decoded_parameters
        self._pool = pool
        self._board = board
        self._coordinator = coordinator

    async def subscribe(self, *, ttl: timedelta = DEFAULT_TTL, priority: int | None = None) -> SyncStreamSubscription:
        """Subscribe; the data comes while connected, and stays for `ttl` after the last subscription ended.

        Args:
            ttl: also kept over restarts of the program.
            priority: overrides the stream's own; 0 is the highest.

        Raises:
            DatabaseClosedError: the database is closed.
        """
        await self._pool.write(lambda statements: subscriptions.subscribe(statements, self._key, ttl, priority))
        self._coordinator.use_stream(self._key)
        return SyncStreamSubscription(self, self._pool, self._board, self._coordinator, self._key)


class SyncStreamSubscription:
    """A use of a stream. Use it as an async context manager, or call `unsubscribe`."""

    def __init__(
        self,
        stream: SyncStream,
        pool: ConnectionPool,
        board: StatusBoard,
        coordinator: SyncCoordinator,
        key: StreamKey,
    ) -> None:
        self.stream = stream
        self._pool = pool
        self._board = board
        self._coordinator = coordinator
        self._key = key
        self._is_active = True

    async def wait_for_first_sync(self) -> None:
        """Wait until the stream's data has been complete on this device once. Has no deadline of its own.

        Raises:
            DatabaseClosedError: the database was closed first.
        """
        name, parameters = self.stream.name, self.stream.parameters
        await self._board.wait_for(
            lambda status: (stream := status.for_stream(name, parameters)) is not None and stream.has_synced
        )

    async def unsubscribe(self) -> None:
        """End this use; the data stays for the time to live. Idempotent."""
        if self._is_active:
            self._is_active = False
            self._coordinator.release_stream(self._key)
            with contextlib.suppress(DatabaseClosedError):
                await self._pool.write(lambda statements: subscriptions.end_use(statements, self._key))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.unsubscribe()
