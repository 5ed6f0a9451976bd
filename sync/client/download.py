"""The download loop: opens the stream, passes on its lines, and reconnects.

Owns when to connect, with which credentials, and the waiting between attempts. What a line does belongs to
`sync.client.stream_connection`.
"""

from __future__ import annotations

import asyncio
import logging

from sync.client.backoff import Backoff
from sync.client.context import SessionContext
from sync.client.credentials import RENEW_BEFORE_EXPIRY_SECONDS, credentials_expiry
from sync.client.line_reader import Lines, lines_of
from sync.client.service import is_offline
from sync.client.stream_connection import StreamConnection
from sync.errors import AccountMismatchError, AuthError, TokenExpiredError
from sync.protocol import KeepAlive
from sync.sqlite.cancellation import run_to_completion

logger = logging.getLogger("sync.download")

_SUBSCRIPTION_CHANGES_GATHER_SECONDS = 0.05


class DownloadLoop:
    """Runs until cancelled; no failure ends it."""

    def __init__(
        self,
        context: SessionContext,
    ) -> None:
        self._context = context
        self._board = context.board
        self._service = context.service
        self._credentials = context.credentials
        self._options = context.options
        self._mail = context.mail.downloads
        self._uploads = context.mail.uploads
        self._backoff = Backoff(context.options.retry_delay, context.options.max_retry_delay, self._mail.retry)
        self._reconnect = asyncio.Event()
        self._exclusive = asyncio.Lock()
        self._connection: StreamConnection | None = None
        self._lines: Lines | None = None
        self._fault: Exception | None = None
        self._was_refused = False
        self._last_logged: str | None = None

    async def run(self) -> None:
        """Connect, and reconnect whenever the connection ends."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_subscriptions(), name="sync: subscriptions")
            group.create_task(self._follow_uploads(), name="sync: held back checkpoint")
            group.create_task(self._renew_credentials(), name="sync: credentials")
            while True:
                # Cleared before the attempt, so that a request for another one during it is not lost.
                self._mail.retry.clear()
                self._board.retry_download_in(None)
                wait, error = await self._attempt()
                if wait:
                    self._board.retry_download_in(wait)
                    await self._backoff.wait(wait, error)

    async def publish_held_back(self) -> None:
        """Publish a checkpoint that was held back for the uploads, if they have been confirmed."""
        connection = self._connection
        try:
            if connection is not None:
                await connection.publish_held_back()
        except Exception as error:  # noqa: BLE001 - it ends the connection, not the loop
            self._fault = error
            self._reconnect.set()

    async def _attempt(self) -> tuple[float, Exception | None]:
        """Run one connection; returns how long to wait before the next, and why."""
        self._reconnect.clear()
        self._fault = None
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as group:
                stream = group.create_task(self._stream(), name="sync: stream")
                again = group.create_task(self._reconnect.wait(), name="sync: reconnect")
                await asyncio.wait({stream, again}, return_when=asyncio.FIRST_COMPLETED)
                stream.cancel()
                again.cancel()
        finally:
            # Also when disconnecting: what was received is kept.
            ended, self._connection = self._connection, None
            if ended is not None:
                await run_to_completion(ended.end())
        error = self._fault
        if error is None:
            if stream.cancelled():
                return 0.0, None  # the status stays connected: the connection is only replaced
            error = stream.result()
        lasted = asyncio.get_running_loop().time() - began
        if self._should_retry_at_once(error, lasted):
            self._board.update(connected=False)
            return 0.0, error
        self._board.update(connecting=False, connected=False, downloading=False, download_error=error)
        self._log(error)
        return self._backoff.failed(error), error

    def _should_retry_at_once(self, error: Exception | None, lasted: float) -> bool:
        """Whether only new credentials are needed; not if the previous ones were rejected as well."""
        if isinstance(error, TokenExpiredError):
            return lasted >= self._options.retry_delay
        was_refused, self._was_refused = self._was_refused, isinstance(error, AuthError)
        return self._was_refused and not was_refused

    def _log(self, error: Exception | None) -> None:
        """Log each new failure once, and repetitions only for debugging."""
        reason = "the stream ended" if error is None else self._credentials.redacted(error)
        level = logging.INFO if error is None or is_offline(error) else logging.WARNING
        logger.log(logging.DEBUG if reason == self._last_logged else level, "not connected, retrying: %s", reason)
        self._last_logged = reason

    async def _stream(self) -> Exception | None:
        """Run one connection; its error is the result, to distinguish this task from a cancelled one."""
        try:
            if not self._board.status.connected:
                self._board.update(connecting=True)
            credentials = await self._credentials.get()
            self._board.records.token_expires_at = credentials_expiry(credentials)
        except Exception as error:  # noqa: BLE001 - any error is reported, and the loop continues
            return error
        try:
            connection = StreamConnection(
                self._context, self._exclusive, on_keep_alive=self._keep_alive, on_completed=self._completed
            )
            request = await connection.prepare()
            self._connection = connection
            async with self._service.open_stream(credentials, request) as chunks:
                self._connected()
                async with lines_of(chunks) as self._lines:
                    async for several in self._lines:
                        await connection.take(several)
        except Exception as error:  # noqa: BLE001 - any error is reported, and the loop continues
            if isinstance(error, AuthError | TokenExpiredError):
                self._credentials.discard(credentials)
            return error
        return None

    def _connected(self) -> None:
        if not self._board.status.connected:
            logger.info("connected")
        self._last_logged = None
        self._was_refused = False
        self._board.update(connecting=False, connected=True, download_error=None)
        # What could not be reached a moment ago may be reachable now.
        self._uploads.retry_now()

    def _completed(self, priority: int | None) -> None:
        if priority is None:
            self._backoff.succeeded()
        self._uploads.due.set()

    async def _keep_alive(self, line: KeepAlive) -> None:
        self._uploads.due.set()
        if line.token_expires_in <= 0:
            raise TokenExpiredError("The service says that the token has expired; fetching a new one.")
        if line.token_expires_in <= RENEW_BEFORE_EXPIRY_SECONDS and not self._reconnect.is_set():
            self._credentials.request_renewal()
        await self._reconnect_if_changed()

    async def _renew_credentials(self) -> None:
        """Fetch a new token while the stream stays open, and replace the connection once it has arrived."""
        while True:
            await self._credentials.until_renewal_is_due()
            try:
                await self._credentials.renew()
            except AccountMismatchError as error:
                self._fault = error
                self._reconnect.set()
            except Exception as error:  # noqa: BLE001 - retried at the next keepalive
                logger.debug("no new credentials yet: %s", self._credentials.redacted(error))
            else:
                self._reconnect.set()
            # Tokens that expire sooner than the warning period must not make this a busy loop.
            await asyncio.sleep(self._options.retry_delay)

    async def _follow_subscriptions(self) -> None:
        while True:
            await self._mail.subscriptions_changed.wait()
            await asyncio.sleep(_SUBSCRIPTION_CHANGES_GATHER_SECONDS)
            self._mail.subscriptions_changed.clear()
            try:
                await self._reconnect_if_changed()
            except Exception as error:  # noqa: BLE001 - checked again at the next keepalive; must not end an upload
                logger.warning("the subscriptions could not be read, retrying: %s", error)

    async def _reconnect_if_changed(self) -> None:
        connection = self._connection
        if connection is not None and await connection.subscriptions_changed():
            self._reconnect.set()

    async def _follow_uploads(self) -> None:
        while True:
            await self._mail.uploads_completed.wait()
            self._mail.uploads_completed.clear()
            await self.publish_held_back()
