"""The connection state and the one task that owns it.

Owns the target that `connect` and `disconnect` set, and when a session runs: while there is a target and this process
holds the file's sync lock. Nothing else opens or closes a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sync.client.backoff import Backoff, RetrySignal
from sync.client.connector import Connector
from sync.client.connector_call import is_connector_call
from sync.client.context import DatabaseContext
from sync.client.options import SyncOptions
from sync.client.sync_lock import sync_lock
from sync.errors import ConnectedError, DatabaseClosedError, NestedUseError
from sync.sqlite.cancellation import end_task
from sync.storage import upload_queue

logger = logging.getLogger("sync.connection")

DatabaseT = TypeVar("DatabaseT")

_coordinating: ContextVar[SyncCoordinator[Any] | None] = ContextVar(
    "the coordinator that runs the session", default=None
)

_FIRST_RESTART_SECONDS = 1.0
_LONGEST_RESTART_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Target(Generic[DatabaseT]):
    """What the app asked to connect to."""

    connector: Connector[DatabaseT]
    options: SyncOptions


class SyncCoordinator(Generic[DatabaseT]):
    """Keeps a database in the last requested state. Every method may be called and cancelled at any time.

    Args:
        context: shared with the sessions.
        database: passed to the connector's `upload_data`.
    """

    def __init__(self, context: DatabaseContext, database: DatabaseT) -> None:
        self._context = context
        self._database = database
        self._pool = context.pool
        self._board = context.board
        self._mail = context.mail
        self._target: _Target[DatabaseT] | None = None
        self._target_changed = asyncio.Event()
        self._retry = asyncio.Event()
        self._session_ended = asyncio.Event()
        self._session_ended.set()
        self._one_at_a_time = asyncio.Lock()
        self._owner: asyncio.Task[None] | None = None
        self._closed = False
        context.pool.listen(self._on_commit)

    def connect(self, connector: Connector[DatabaseT], options: SyncOptions) -> None:
        """Connect from now on. With the connector and options of the current connection, only cuts a wait short.

        Raises:
            DatabaseClosedError: the database is being closed.
        """
        if self._closed:
            raise DatabaseClosedError("The database is closed.")
        target = _Target(connector, options)
        if target == self._target:
            self._retry.set()
            self._mail.retry_now(force=True)
            return
        self._change_target(target)
        self._board.update(wanted=True)
        if self._owner is None or self._owner.done():
            self._owner = asyncio.create_task(self._own(), name="sync: connection")

    async def disconnect(self) -> None:
        """Disconnect, and wait until the connection is closed.

        If cancelled, it is still closed; if `connect` is called meanwhile, it then connects again.
        """
        self._drop_target()
        await self._session_ended.wait()

    def require_disconnected(self) -> None:
        """Raise ConnectedError unless disconnected."""
        if self._target is not None:
            raise ConnectedError("This is not allowed while connected; nothing was changed. Call disconnect() first.")

    def refuse_connector_call(self) -> None:
        """Raise NestedUseError if called from a method of this database's own connector."""
        if _coordinating.get() is self and is_connector_call():
            raise NestedUseError(
                "This was called from the connector, and would wait for the connector to return; nothing was changed. "
                "Let the connector return first, or start a task."
            )

    @asynccontextmanager
    async def disconnected(self) -> AsyncGenerator[None]:
        """Disconnect, and stay disconnected inside the block. If `connect` is called meanwhile, connects afterwards."""
        if self._target is not None:
            self._drop_target()
        # The lock is fair: the current session ends first, and one requested from now on comes later.
        async with self._one_at_a_time:
            yield

    async def close(self) -> None:
        """Disconnect permanently. Idempotent; must not be cancelled."""
        self._closed = True
        self._target = None
        if self._owner is not None:
            await end_task(self._owner)

    def _on_commit(self, changed: frozenset[str] | None) -> None:
        if changed is None:
            # Another process wrote something: check for work, but do not cut waits short again and again.
            self._mail.uploads.due.set()
            self._mail.downloads.subscriptions_changed.set()
        elif upload_queue.has_new_entries(changed):
            self._mail.retry_now()

    def _drop_target(self) -> None:
        self._change_target(None)
        self._board.update(wanted=False, download_error=None, upload_error=None, download_retry_at=None)

    def _change_target(self, target: _Target[DatabaseT] | None) -> None:
        self._target = target
        self._target_changed.set()
        self._retry.set()

    async def _own(self) -> None:
        _coordinating.set(self)
        backoff = Backoff(_FIRST_RESTART_SECONDS, _LONGEST_RESTART_SECONDS, RetrySignal())
        while True:
            target = self._target
            self._target_changed.clear()
            self._retry.clear()
            if target is None:
                await self._target_changed.wait()
            elif (error := await self._run_exclusively(target)) is None or target is not self._target:
                backoff.succeeded()
            else:
                # The loops handle their own errors: this is a lock file that cannot be created, or the like.
                seconds = backoff.failed()
                self._board.update(download_error=error)
                self._board.retry_download_in(seconds)
                logger.error("synchronization cannot run, retrying: %s", error, exc_info=error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._retry.wait()
                self._board.retry_download_in(None)

    async def _run_exclusively(self, target: _Target[DatabaseT]) -> Exception | None:
        async with self._one_at_a_time:
            if target is not self._target:
                return None
            return await self._run_until_target_changes(target)

    async def _run_until_target_changes(self, target: _Target[DatabaseT]) -> Exception | None:
        """Run a session; returns why it failed, or None if the target changed."""
        failure: Exception | None = None
        self._session_ended = ended = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                session = group.create_task(self._run_session(target), name="sync: session")
                changed = group.create_task(self._target_changed.wait(), name="sync: target")
                await asyncio.wait({session, changed}, return_when=asyncio.FIRST_COMPLETED)
                session.cancel()
                changed.cancel()
        except* Exception as failures:  # noqa: BLE001 - the caller reports it and tries again
            failure = _first_of(failures)
        finally:
            self._board.session_ended()
            if target is not self._target:
                # Including what a loop reported between the call of `disconnect` and its own end.
                self._board.update(download_error=None, upload_error=None)
            ended.set()
        return failure

    async def _run_session(self, target: _Target[DatabaseT]) -> None:
        async with sync_lock(self._pool.path, self._wait_for_lock):
            self._board.update(syncing_elsewhere=False, syncing_process=None)
            await asyncio.to_thread(importlib.import_module, "sync.client.session")
            from sync.client.session import run_session

            connector = target.connector
            await run_session(self._context, connector, target.options, lambda: connector.upload_data(self._database))

    def _wait_for_lock(self, process: int | None) -> None:
        if not self._board.status.syncing_elsewhere:
            logger.info("another process syncs this file: %s", process or "unknown process id")
        # Earlier errors of this process are not what keeps this file from being synced.
        self._board.update(syncing_elsewhere=True, syncing_process=process, download_error=None, upload_error=None)


def _first_of(failures: BaseExceptionGroup[Exception]) -> Exception:
    first = failures.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first
