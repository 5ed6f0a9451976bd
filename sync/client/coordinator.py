"""The connection state and the one task that owns it.

Owns the wish that `connect` and `disconnect` set, which streams are in use, and when a session runs: while a connection
is wished for and this process holds the file's sync lock. Nothing else opens or closes a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync.client.backoff import Backoff
from sync.client.connector import Connector
from sync.client.connector_call import is_connector_call
from sync.client.options import SyncOptions
from sync.client.sync_lock import sync_lock
from sync.errors import ConnectedError, DatabaseClosedError, NestedUseError
from sync.schema.raw_tables import RawTable
from sync.sqlite.cancellation import end_task
from sync.sqlite.pool import ConnectionPool
from sync.status.status import StatusBoard
from sync.storage import upload_queue
from sync.storage.subscriptions import StreamKey

if TYPE_CHECKING:
    from sync.client.session import Session

logger = logging.getLogger("sync.connection")

_coordinating: ContextVar[SyncCoordinator | None] = ContextVar("the coordinator that runs the session", default=None)

_FIRST_RESTART_SECONDS = 1.0
_LONGEST_RESTART_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Wish:
    connector: Connector[Any]
    options: SyncOptions


class SyncCoordinator:
    """Keeps a database in the state last asked for. Every method may be called and cancelled at any time."""

    def __init__(
        self,
        pool: ConnectionPool,
        board: StatusBoard,
        upload: Callable[[Connector[Any]], Awaitable[None]],
        raw_tables: Callable[[], tuple[RawTable, ...]],
    ) -> None:
        self._pool = pool
        self._board = board
        self._upload = upload
        self._raw_tables = raw_tables
        self._wish: _Wish | None = None
        self._wish_changed = asyncio.Event()
        self._retry = asyncio.Event()
        self._session_ended = asyncio.Event()
        self._session_ended.set()
        self._one_at_a_time = asyncio.Lock()
        self._owner: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._streams_in_use: Counter[StreamKey] = Counter()
        self._closed = False
        pool.listen(self._on_commit)

    def connect(self, connector: Connector[Any], options: SyncOptions) -> None:
        """Wish for a connection. With the connector and options of the present one it only cuts a wait short.

        Raises:
            DatabaseClosedError: the database is being closed.
        """
        if self._closed:
            raise DatabaseClosedError("The database is closed.")
        wish = _Wish(connector, options)
        if wish == self._wish:
            self._retry.set()
            if self._session is not None:
                self._session.wake(force=True)
            return
        self._change_wish(wish)
        self._board.update(wanted=True)
        if self._owner is None or self._owner.done():
            self._owner = asyncio.create_task(self._own(), name="sync: connection")

    async def disconnect(self) -> None:
        """Wish for no connection, and wait until the present one is closed.

        If cancelled, it is closed all the same; if a connection is wished for meanwhile, that one is opened then.
        """
        self._wish_for_none()
        await self._session_ended.wait()

    def require_disconnected(self) -> None:
        """Raises ConnectedError if a connection is wished for."""
        if self._wish is not None:
            raise ConnectedError("This cannot be done while connected; nothing was changed. Call disconnect() first.")

    def refuse_connector_call(self) -> None:
        """Raises NestedUseError if this is called from inside a call of this database's own connector."""
        if _coordinating.get() is self and is_connector_call():
            raise NestedUseError(
                "This was called inside the connector's own call, whose end it would wait for; nothing was changed. "
                "Let the call end, or start a task for it."
            )

    @asynccontextmanager
    async def disconnected(self) -> AsyncGenerator[None]:
        """Disconnect, and stay so inside. A connection that is wished for meanwhile is opened afterwards."""
        if self._wish is not None:
            self._wish_for_none()
        # The lock goes by turns: the present session ends first, one that is wished for from now on comes later.
        async with self._one_at_a_time:
            yield

    async def close(self) -> None:
        """Disconnect for good. Idempotent; must not be cancelled."""
        self._closed = True
        self._wish = None
        if self._owner is not None:
            await end_task(self._owner)

    def use_stream(self, key: StreamKey) -> None:
        """Count a use of a subscription; the service learns of it if it does not know it yet."""
        self._streams_in_use[key] += 1
        if self._session is not None:
            self._session.subscriptions_changed()

    def release_stream(self, key: StreamKey) -> None:
        """Count the end of a use; the subscription itself lives on for its time to live."""
        self._streams_in_use[key] -= 1
        if self._streams_in_use[key] <= 0:
            del self._streams_in_use[key]

    @property
    def streams_in_use(self) -> tuple[StreamKey, ...]:
        """The subscriptions that the app holds."""
        return tuple(self._streams_in_use)

    def subscriptions_changed(self) -> None:
        """The subscriptions in the file changed."""
        if self._session is not None:
            self._session.subscriptions_changed()

    def retry_now(self) -> None:
        """Cut the waits between attempts short."""
        if self._session is not None:
            self._session.wake()

    def upload_progressed(self) -> None:
        """A transaction was completed."""
        if self._session is not None:
            self._session.upload_progressed()

    def _on_commit(self, changed: frozenset[str] | None) -> None:
        if self._session is None:
            return
        if changed is None:
            # Another process wrote something: a look is enough, it must not cut waits short again and again.
            self._session.look_again()
            self._session.subscriptions_changed()
        elif upload_queue.has_new_entries(changed):
            self._session.wake()

    def _wish_for_none(self) -> None:
        self._change_wish(None)
        self._board.update(wanted=False, download_error=None, upload_error=None, download_retry_at=None)

    def _change_wish(self, wish: _Wish | None) -> None:
        self._wish = wish
        self._wish_changed.set()
        self._retry.set()

    async def _own(self) -> None:
        _coordinating.set(self)
        backoff = Backoff(_FIRST_RESTART_SECONDS, _LONGEST_RESTART_SECONDS)
        while True:
            wish = self._wish
            self._wish_changed.clear()
            self._retry.clear()
            if wish is None:
                await self._wish_changed.wait()
            elif (error := await self._run_in_turn(wish)) is None or wish is not self._wish:
                backoff.succeeded()
            else:
                # The loops handle what may go wrong in them: this is a lock file that cannot be made, or the like.
                seconds = backoff.failed()
                self._board.update(download_error=error)
                self._board.retry_download_in(seconds)
                logger.error("synchronization cannot run, it is tried again: %s", error, exc_info=error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._retry.wait()
                self._board.retry_download_in(None)

    async def _run_in_turn(self, wish: _Wish) -> Exception | None:
        async with self._one_at_a_time:
            if wish is not self._wish:
                return None
            return await self._run_until_wish_changes(wish)

    async def _run_until_wish_changes(self, wish: _Wish) -> Exception | None:
        """Run a session for a wish; returns why it failed, or None if the wish changed."""
        failure: Exception | None = None
        self._session_ended = ended = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                session = group.create_task(self._run_session(wish), name="sync: session")
                changed = group.create_task(self._wish_changed.wait(), name="sync: wish")
                await asyncio.wait({session, changed}, return_when=asyncio.FIRST_COMPLETED)
                session.cancel()
                changed.cancel()
        except* Exception as failures:  # noqa: BLE001 - the caller reports it and tries again
            failure = _first_of(failures)
        finally:
            self._session = None
            self._board.session_ended()
            if wish is not self._wish:
                # Also what a loop reported between the call of `disconnect` and its own end.
                self._board.update(download_error=None, upload_error=None)
            ended.set()
        return failure

    async def _run_session(self, wish: _Wish) -> None:
        async with sync_lock(self._pool.path, self._wait_for_lock):
            self._board.update(syncing_elsewhere=False, syncing_process=None)
            await asyncio.to_thread(importlib.import_module, "sync.client.session")
            from sync.client.session import Session, http_client

            async with http_client(wish.options) as client:
                self._session = Session(
                    self._pool,
                    self._board,
                    wish.connector,
                    wish.options,
                    client,
                    self._upload,
                    lambda: self.streams_in_use,
                    self._raw_tables,
                )
                await self._session.run()

    def _wait_for_lock(self, process: int | None) -> None:
        if not self._board.status.syncing_elsewhere:
            logger.info("another process syncs this file: %s", process or "it does not say which")
        # What went wrong here before is not what keeps this file from being synced.
        self._board.update(syncing_elsewhere=True, syncing_process=process, download_error=None, upload_error=None)


def _first_of(failures: BaseExceptionGroup[Exception]) -> Exception:
    first = failures.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first
