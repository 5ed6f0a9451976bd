"""The upload loop: lets the connector upload the queue, then requests the checkpoint that brings the changes back.

Owns when an upload runs, its deadline and its next attempt. Never stalls: a local write, the opening of the stream,
every checkpoint and keepalive, and a timer make it check the queue again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from sync.client.backoff import Backoff
from sync.client.connector import PowerSyncCredentials
from sync.client.connector_call import connector_call
from sync.client.context import SessionContext
from sync.client.service import is_offline
from sync.errors import (
    AuthError,
    NetworkError,
    ProtocolError,
    ServiceError,
    UploadRetryError,
    UploadStalledError,
)
from sync.storage import upload_queue
from sync.storage.upload_queue import QueueState

logger = logging.getLogger("sync.upload")

_CHECKPOINT_ID_ATTEMPTS = 5

_LOOK_AGAIN_SECONDS = 60.0
"""How often the queue is checked without any other reason."""


class UploadLoop:
    """Runs until cancelled; no failure ends it.

    Args:
        context: the session's context.
        upload: calls the connector.
    """

    def __init__(self, context: SessionContext, upload: Callable[[], Awaitable[None]]) -> None:
        self._pool = context.pool
        self._board = context.board
        self._service = context.service
        self._credentials = context.credentials
        self._options = context.options
        self._mail = context.mail.uploads
        self._downloads = context.mail.downloads
        self._upload = upload
        self._backoff = Backoff(context.options.retry_delay, context.options.max_retry_delay, self._mail.retry)
        self._deadline: asyncio.Timeout | None = None
        self._is_legacy_service = False
        self._last_logged: str | None = None

    async def run(self) -> None:
        """Upload whenever the queue is not empty."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_progress(), name="sync: upload progress")
            await self._run()

    async def _run(self) -> None:
        self._mail.due.set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_SECONDS):
                    await self._mail.due.wait()
            await asyncio.sleep(self._options.crud_throttle)
            # Cleared before the attempt, so that a request for another one during it is not lost.
            self._mail.due.clear()
            self._mail.retry.clear()
            try:
                await self._drain()
            except Exception as error:  # noqa: BLE001 - any error is reported, and the loop continues
                self._report(error)
                if isinstance(error, UploadRetryError) and error.renew_credentials:
                    self._credentials.discard()
                self._take_progress()
                seconds = self._backoff.failed(error)
                self._board.retry_upload_in(seconds)
                await self._backoff.wait(seconds, error)
                self._board.retry_upload_in(None)
                self._mail.due.set()
            else:
                self._backoff.succeeded()
                self._report(None)

    async def _follow_progress(self) -> None:
        while True:
            await self._mail.progressed.wait()
            self._take_progress()

    def _take_progress(self) -> None:
        """If a transaction was completed, the deadline and the back-off start over."""
        if not self._mail.progressed.is_set():
            return
        self._mail.progressed.clear()
        self._backoff.succeeded()
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._options.upload_timeout)

    async def _drain(self) -> None:
        state = await self._pool.read(upload_queue.queue_state)
        while state.head is not None:
            self._board.update(uploading=True)
            await self._credentials.ensure_user_claimed()
            await self._upload_once()
            after = await self._pool.read(upload_queue.queue_state)
            if after.head == state.head:
                raise UploadStalledError(
                    "The connector returned without completing the first transaction in the upload queue, which is "
                    "kept and retried. Call complete() on each transaction that the backend has answered for."
                )
            self._backoff.succeeded()
            self._board.update(upload_error=None)
            state = after
        if state.checkpoint_wanted:
            await self._request_checkpoint(state)
        self._downloads.uploads_completed.set()

    async def _upload_once(self) -> None:
        seconds = self._options.upload_timeout
        overdue = NetworkError(f"The upload took longer than {seconds:g} seconds; retrying.")
        try:
            async with connector_call(seconds, overdue) as self._deadline:
                await self._upload()
        finally:
            self._deadline = None

    async def _request_checkpoint(self, state: QueueState) -> None:
        """Request a checkpoint that includes all uploads, and make the gate wait for it."""
        client_id = await self._pool.read(upload_queue.client_id)
        try:
            checkpoint = await self._requested_checkpoint(client_id)
        except AuthError:
            checkpoint = await self._requested_checkpoint(client_id)  # with new credentials
        was_set = await self._pool.write(
            lambda connection: upload_queue.set_target(connection, checkpoint, state.last_ever)
        )
        if not was_set:
            self._mail.due.set()

    async def _requested_checkpoint(self, client_id: str) -> int:
        credentials = await self._credentials.get()
        try:
            return await self._checkpoint_by(credentials, client_id)
        except AuthError:
            self._credentials.discard(credentials)
            raise

    async def _checkpoint_by(self, credentials: PowerSyncCredentials, client_id: str) -> int:
        at_least = 0
        for _ in range(_CHECKPOINT_ID_ATTEMPTS):
            if self._is_legacy_service:
                return await self._service.legacy_write_checkpoint(credentials, client_id)
            request_id = await self._pool.write(
                lambda connection, at_least=at_least: upload_queue.next_checkpoint_request_id(connection, at_least)
            )
            try:
                at_least = await self._service.request_checkpoint(credentials, client_id, request_id)
            except ServiceError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
                self._is_legacy_service = True
            else:
                if at_least <= request_id:
                    return request_id
        raise ProtocolError("The sync service keeps answering checkpoint requests with ids that were not requested.")

    def _report(self, error: Exception | None) -> None:
        self._board.update(uploading=False, upload_error=error)
        reason = None if error is None else self._credentials.redacted(error)
        if reason == self._last_logged:
            return
        self._last_logged = reason
        if error is None:
            logger.info("uploads work again")
        else:
            level = logging.INFO if is_offline(error) else logging.WARNING
            logger.log(level, "upload failed, the changes are kept and retried: %s", reason)
