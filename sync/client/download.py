"""The download loop: opens the stream, hands over its lines, and connects again.

Owns when to connect, with which credentials, and the waiting between attempts. What a line does is
`sync.client.stream_connection`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from sync.cancellation import to_the_end
from sync.client.backoff import Backoff
from sync.client.credentials import RENEW_BEFORE_EXPIRY_SECONDS, CredentialsCache, credentials_expiry
from sync.client.options import SyncOptions
from sync.client.service import SyncService
from sync.client.stream_connection import StreamConnection
from sync.connection import ConnectionPool
from sync.errors import AuthError, NetworkError, ProtocolError, ServiceError, TokenExpiredError
from sync.protocol import KeepAlive
from sync.status import StatusBoard
from sync.storage import subscriptions
from sync.storage.subscriptions import StreamKey

logger = logging.getLogger("sync.download")

_MAX_LINE_BYTES = 256 << 20

_SUBSCRIPTION_CHANGES_GATHER_SECONDS = 0.05


class DownloadLoop:
    """Runs until it is cancelled; no failure ends it."""

    def __init__(
        self,
        pool: ConnectionPool,
        board: StatusBoard,
        service: SyncService,
        credentials: CredentialsCache,
        options: SyncOptions,
        streams_in_use: Callable[[], Iterable[StreamKey]],
        on_sign_of_life: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._board = board
        self._service = service
        self._credentials = credentials
        self._options = options
        self._streams_in_use = streams_in_use
        self._on_sign_of_life = on_sign_of_life
        self._backoff = Backoff(options.retry_delay, options.max_retry_delay)
        self._connect_again = asyncio.Event()
        self._subscriptions_changed = asyncio.Event()
        self._token_expires = asyncio.Event()
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._connection: StreamConnection | None = None

    async def run(self) -> None:
        """Connect, and connect again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_subscriptions(), name="sync: subscriptions")
            group.create_task(self._renew_credentials(), name="sync: credentials")
            while True:
                # Cleared before the attempt: what asks for another one meanwhile is not to be lost.
                self._wake.clear()
                self._board.retry_download_in(None)
                wait = await self._attempt()
                self._board.retry_download_in(wait or None)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()

    def wake(self) -> None:
        """Cut the wait before the next attempt short."""
        self._wake.set()

    def subscriptions_changed(self) -> None:
        """Connect again, if the subscriptions differ from those of the connection."""
        self._subscriptions_changed.set()

    async def uploads_completed(self) -> None:
        """Publish what was held back, if the gate is open now."""
        connection = self._connection
        if connection is not None and not await connection.uploads_completed():
            self._connect_again.set()

    async def _attempt(self) -> float:
        """One connection from its opening to its end; returns how long to wait before the next."""
        self._connect_again.clear()
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
                await to_the_end(ended.end())
        if stream.cancelled():
            return 0.0  # the connection stays visible as connected: it is only exchanged
        error = stream.result()
        if isinstance(error, TokenExpiredError):
            self._credentials.discard()
            if asyncio.get_running_loop().time() - began >= self._options.retry_delay:
                self._board.update(connected=False)
                return 0.0
        self._board.update(connecting=False, connected=False, downloading=False, download_error=error)
        if error is None:
            logger.info("the stream ended; connecting again")
            return self._backoff.failed()
        logger.log(logging.INFO if isinstance(error, NetworkError) else logging.WARNING, "not connected: %s", error)
        wait = self._backoff.failed()
        if isinstance(error, AuthError):
            self._credentials.discard()
        if isinstance(error, ServiceError) and error.retry_after is not None:
            wait = max(wait, min(error.retry_after, self._options.max_retry_delay))
        return wait

    async def _stream(self) -> Exception | None:
        """Run one connection; its error is a result, so that this task can be told from a cancelled one."""
        try:
            if not self._board.status.connected:
                self._board.update(connecting=True)
            credentials = await self._credentials.get()
            self._board.records.token_expires_at = credentials_expiry(credentials)
            connection = StreamConnection(
                self._pool, self._board, self._turn, on_keep_alive=self._keep_alive, on_completed=self._completed
            )
            request = await connection.prepare(self._options, self._streams_in_use())
            self._connection = connection
            async with self._service.open_stream(credentials, request) as chunks:
                self._board.update(connecting=False, connected=True, download_error=None)
                logger.info("connected")
                self._on_sign_of_life()
                rest = bytearray()
                async for chunk in chunks:
                    rest += chunk
                    if b"\n" in chunk:
                        *lines, rest = rest.split(b"\n")
                        await connection.take(lines)
                    elif len(rest) > _MAX_LINE_BYTES:
                        return ProtocolError("The service sent a line without an end.")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported, and the loop goes on
            return error
        return None

    def _completed(self, priority: int | None) -> None:
        if priority is None:
            self._backoff.succeeded()
        self._on_sign_of_life()

    async def _keep_alive(self, line: KeepAlive) -> None:
        self._on_sign_of_life()
        if line.token_expires_in <= 0:
            raise TokenExpiredError("The service says that the token has expired; a new one is fetched.")
        if line.token_expires_in <= RENEW_BEFORE_EXPIRY_SECONDS and not self._connect_again.is_set():
            self._token_expires.set()
        await self._pool.write(lambda statements: subscriptions.renew(statements, self._streams_in_use()))
        await self._connect_again_if_changed()

    async def _renew_credentials(self) -> None:
        """Fetch a new token while the stream goes on, and exchange the connection once it is there."""
        while True:
            await self._token_expires.wait()
            try:
                await self._credentials.renew()
            except Exception as error:  # noqa: BLE001 - the next keepalive asks again
                logger.info("no new credentials yet: %s", error)
            else:
                self._connect_again.set()
            # Tokens that live shorter than the warning of their end must not make this a circle.
            await asyncio.sleep(self._options.retry_delay)
            self._token_expires.clear()

    async def _follow_subscriptions(self) -> None:
        while True:
            await self._subscriptions_changed.wait()
            await asyncio.sleep(_SUBSCRIPTION_CHANGES_GATHER_SECONDS)
            self._subscriptions_changed.clear()
            await self._connect_again_if_changed()

    async def _connect_again_if_changed(self) -> None:
        connection = self._connection
        if connection is not None and await connection.subscriptions_changed(self._options):
            self._connect_again.set()
