"""The download loop: opens the stream, hands over its lines, and connects again.

Owns when to connect, with which credentials, and the waiting between attempts. What a line does is
`sync.client.stream_connection`'s.
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
    """Runs until it is cancelled; no failure ends it."""

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
        self._connect_again = asyncio.Event()
        self._turn = asyncio.Lock()
        self._connection: StreamConnection | None = None
        self._lines: Lines | None = None
        self._fault: Exception | None = None
        self._was_refused = False
        self._said: str | None = None

    async def run(self) -> None:
        """Connect, and connect again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_subscriptions(), name="sync: subscriptions")
            group.create_task(self._follow_uploads(), name="sync: held back checkpoint")
            group.create_task(self._renew_credentials(), name="sync: credentials")
            while True:
                # Cleared before the attempt: what asks for another one meanwhile is not to be lost.
                self._mail.retry.clear()
                self._board.retry_download_in(None)
                wait, error = await self._attempt()
                if wait:
                    self._board.retry_download_in(wait)
                    await self._backoff.wait(wait, error)

    async def publish_held_back(self) -> None:
        """Publish a checkpoint that waits for the uploads, if they have been confirmed."""
        connection = self._connection
        try:
            if connection is not None:
                await connection.publish_held_back()
        except Exception as error:  # noqa: BLE001 - it ends the connection, not the loop
            self._fault = error
            self._connect_again.set()

    async def _attempt(self) -> tuple[float, Exception | None]:
        """One connection from its opening to its end; returns how long to wait before the next, and why."""
        self._connect_again.clear()
        self._fault = None
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as group:
                stream = group.create_task(self._stream(), name="sync: stream")
                again = group.create_task(self._connect_again.wait(), name="sync: connect again")
                await asyncio.wait({stream, again}, return_when=asyncio.FIRST_COMPLETED)
                stream.cancel()
                again.cancel()
        finally:
            # Also when disconnecting: what has come is kept.
            ended, self._connection = self._connection, None
            if ended is not None:
                await run_to_completion(ended.end())
        error = self._fault
        if error is None:
            if stream.cancelled():
                return 0.0, None  # the connection stays visible as connected: it is only exchanged
            error = stream.result()
        lasted = asyncio.get_running_loop().time() - began
        if self._is_worth_another_at_once(error, lasted):
            self._board.update(connected=False)
            return 0.0, error
        self._board.update(connecting=False, connected=False, downloading=False, download_error=error)
        self._tell(error)
        return self._backoff.failed(error), error

    def _is_worth_another_at_once(self, error: Exception | None, lasted: float) -> bool:
        """Whether new credentials are all that is missing; not if the last ones were refused as well."""
        if isinstance(error, TokenExpiredError):
            return lasted >= self._options.retry_delay
        was_refused, self._was_refused = self._was_refused, isinstance(error, AuthError)
        return self._was_refused and not was_refused

    def _tell(self, error: Exception | None) -> None:
        """Log a change of the state, once: not each attempt that fails as the one before."""
        said = "the stream ended" if error is None else self._credentials.redacted(error)
        level = logging.INFO if error is None or is_offline(error) else logging.WARNING
        logger.log(logging.DEBUG if said == self._said else level, "not connected, it is tried again: %s", said)
        self._said = said

    async def _stream(self) -> Exception | None:
        """Run one connection; its error is a result, so that this task can be told from a cancelled one."""
        try:
            if not self._board.status.connected:
                self._board.update(connecting=True)
            credentials = await self._credentials.get()
            self._board.records.token_expires_at = credentials_expiry(credentials)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported, and the loop goes on
            return error
        try:
            connection = StreamConnection(
                self._context, self._turn, on_keep_alive=self._keep_alive, on_completed=self._completed
            )
            request = await connection.prepare()
            self._connection = connection
            async with self._service.open_stream(credentials, request) as chunks:
                self._connected()
                async with lines_of(chunks) as self._lines:
                    async for several in self._lines:
                        await connection.take(several)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported, and the loop goes on
            if isinstance(error, AuthError | TokenExpiredError):
                self._credentials.discard(credentials)
            return error
        return None

    def _connected(self) -> None:
        if not self._board.status.connected:
            logger.info("connected")
        self._said = None
        self._was_refused = False
        self._board.update(connecting=False, connected=True, download_error=None)
        # What could not be reached a moment ago is worth another try.
        self._uploads.retry_now()

    def _completed(self, priority: int | None) -> None:
        if priority is None:
            self._backoff.succeeded()
        self._uploads.due.set()

    async def _keep_alive(self, line: KeepAlive) -> None:
        self._uploads.due.set()
        if line.token_expires_in <= 0:
            raise TokenExpiredError("The service says that the token has expired; a new one is fetched.")
        if line.token_expires_in <= RENEW_BEFORE_EXPIRY_SECONDS and not self._connect_again.is_set():
            self._credentials.ask_for_renewal()
        await self._connect_again_if_changed()

    async def _renew_credentials(self) -> None:
        """Fetch a new token while the stream goes on, and exchange the connection once it is there."""
        while True:
            await self._credentials.until_renewal_is_due()
            try:
                await self._credentials.renew()
            except AccountMismatchError as error:
                self._fault = error
                self._connect_again.set()
            except Exception as error:  # noqa: BLE001 - the next keepalive asks again
                logger.debug("no new credentials yet: %s", self._credentials.redacted(error))
            else:
                self._connect_again.set()
            # Tokens that live shorter than the warning of their end must not make this a circle.
            await asyncio.sleep(self._options.retry_delay)

    async def _follow_subscriptions(self) -> None:
        while True:
            await self._mail.subscriptions_changed.wait()
            await asyncio.sleep(_SUBSCRIPTION_CHANGES_GATHER_SECONDS)
            self._mail.subscriptions_changed.clear()
            try:
                await self._connect_again_if_changed()
            except Exception as error:  # noqa: BLE001 - the next keepalive looks again, no upload must end for it
                logger.warning("the subscriptions could not be read, it is tried again: %s", error)

    async def _connect_again_if_changed(self) -> None:
        connection = self._connection
        if connection is not None and await connection.subscriptions_changed():
            self._connect_again.set()

    async def _follow_uploads(self) -> None:
        while True:
            await self._mail.uploads_completed.wait()
            self._mail.uploads_completed.clear()
            await self.publish_held_back()
