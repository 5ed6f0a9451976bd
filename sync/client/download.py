"""The download loop: opens the stream, takes in its lines, publishes checkpoints, and connects again.

Owns the state of the connection (which checkpoint it works towards, what was held back) and the waiting between
attempts. What a line does to the file is `sync.storage`'s; what it looks like on the wire is `sync.protocol`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sync.client.backoff import Backoff
from sync.client.credentials import RENEW_BEFORE_EXPIRY_SECONDS, CredentialsCache
from sync.client.options import SyncOptions
from sync.client.service import SyncService
from sync.connection import ConnectionPool
from sync.errors import AuthError, ChecksumError, NetworkError, ProtocolError, ServiceError, TokenExpiredError
from sync.protocol import (
    BucketRequest,
    Checkpoint,
    CheckpointComplete,
    CheckpointDiff,
    DataLine,
    KeepAlive,
    PartialCheckpointComplete,
    StreamRequest,
    TrackedCheckpoint,
    UnknownLine,
    decode_line,
)
from sync.raw_tables import RawTable
from sync.statements import Statements
from sync.status import StatusBoard
from sync.storage import oplog, publish, subscriptions, upload_queue
from sync.storage.oplog import ReceivedData
from sync.storage.publish import Outcome, PublishResult
from sync.storage.subscriptions import RequestedSubscriptions, StreamKey

logger = logging.getLogger("sync.download")

_TAKE_IN_BYTES = 1 << 20
"""Downloaded lines gather up to this size before they are written, unless a checkpoint is complete sooner."""

_MAX_LINE_BYTES = 256 << 20

_SUBSCRIPTION_CHANGES_GATHER_SECONDS = 0.05


@dataclass(slots=True)
class _Connection:
    """The state of one connection.

    Attributes:
        requested: the subscriptions that it was opened with.
        known_buckets: buckets in the file when it was opened; a first checkpoint that lacks one deletes it.
        target: the checkpoint that it works towards.
        held_back: a complete checkpoint that waits for the upload queue.
        gathered: data lines that are not yet in the file, of `gathered_bytes` together.
        downloading: data has come that no complete checkpoint covers yet.
        awaited: the checkpoint request that the gate waited for when the connection was opened, until a checkpoint
            is complete: the first one names the newest request that the service knows of.
    """

    requested: RequestedSubscriptions
    known_buckets: frozenset[str]
    target: TrackedCheckpoint | None = None
    held_back: TrackedCheckpoint | None = None
    gathered: list[ReceivedData] = field(default_factory=list[ReceivedData])
    gathered_bytes: int = 0
    downloading: bool = False
    awaited: int | None = None

    def take_gathered(self) -> list[ReceivedData]:
        gathered, self.gathered, self.gathered_bytes = self.gathered, [], 0
        return gathered


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
        raw_tables: Callable[[], tuple[RawTable, ...]],
        on_sign_of_life: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._board = board
        self._service = service
        self._credentials = credentials
        self._options = options
        self._streams_in_use = streams_in_use
        self._raw_tables = raw_tables
        self._on_sign_of_life = on_sign_of_life
        self._backoff = Backoff(options.retry_delay, options.max_retry_delay)
        self._connect_again = asyncio.Event()
        self._subscriptions_changed = asyncio.Event()
        self._token_expires = asyncio.Event()
        self._wake = asyncio.Event()
        # Lines and the end of an upload both publish: never at once, for a checkpoint is valid only before the next.
        self._publishing = asyncio.Lock()
        self._connection: _Connection | None = None

    async def run(self) -> None:
        """Connect, and connect again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_subscriptions(), name="sync: subscriptions")
            group.create_task(self._renew_credentials(), name="sync: credentials")
            while True:
                # Cleared before the attempt: what asks for another one meanwhile is not to be lost.
                self._wake.clear()
                wait = await self._attempt()
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
        async with self._publishing:
            connection = self._connection
            if connection is None or connection.held_back is None:
                return
            checkpoint = connection.held_back
            result = await self._pool.write(
                lambda statements: self._publish(statements, connection, checkpoint, priority=None)
            )
            if result.outcome is not Outcome.HELD_BACK:
                connection.held_back = None
            if result.outcome is Outcome.CHECKSUM_MISMATCH:
                self._connect_again.set()

    async def _attempt(self) -> float:
        """One connection from its opening to its end; returns how long to wait before the next."""
        self._connect_again.clear()
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            stream = group.create_task(self._stream(), name="sync: stream")
            again = group.create_task(self._connect_again.wait(), name="sync: connect again")
            await asyncio.wait({stream, again}, return_when=asyncio.FIRST_COMPLETED)
            stream.cancel()
            again.cancel()
        if self._connection is not None:
            await self._keep_what_came(self._connection)
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
            request, connection = await self._pool.write(self._prepare)
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
                        await self._take(connection, lines)
                    elif len(rest) > _MAX_LINE_BYTES:
                        return ProtocolError("The service sent a line without an end.")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported, and the loop goes on
            return error
        return None

    async def _keep_what_came(self, ended: _Connection) -> None:
        """Take in the data that came before the connection ended, so that it need not come again."""
        self._connection = None
        if gathered := ended.take_gathered():
            try:
                await self._pool.write(lambda statements: oplog.take_in(statements, gathered))
            except Exception as error:  # noqa: BLE001 - it comes again with the next connection
                logger.warning("downloaded data could not be kept and is downloaded again: %s", error)

    def _prepare(self, statements: Statements) -> tuple[StreamRequest, _Connection]:
        subscriptions.renew(statements, self._streams_in_use())
        requested = subscriptions.requested_subscriptions(
            statements, include_defaults=self._options.include_default_streams
        )
        buckets = oplog.bucket_positions(statements)
        request = StreamRequest(
            buckets=tuple(BucketRequest(name, str(after)) for name, after in buckets.items()),
            client_id=upload_queue.client_id(statements),
            streams=requested.request,
            parameters=self._options.params,
            app_metadata=self._options.app_metadata,
        )
        return request, _Connection(requested, frozenset(buckets), awaited=upload_queue.target(statements))

    async def _take(self, connection: _Connection, lines: Iterable[bytes | bytearray]) -> None:
        async with self._publishing:
            for text in lines:
                if text.strip():
                    await self._take_line(connection, text)
            if connection.gathered_bytes >= _TAKE_IN_BYTES:
                gathered = connection.take_gathered()
                await self._pool.write(lambda statements: oplog.take_in(statements, gathered))
            self._board.update(downloading=connection.downloading)

    async def _take_line(self, connection: _Connection, text: bytes | bytearray) -> None:
        line = decode_line(text)
        match line:
            case Checkpoint():
                target = TrackedCheckpoint.begin(line)
                before = connection.known_buckets if connection.target is None else connection.target.buckets
                await self._begin_target(connection, target, [name for name in before if name not in target.buckets])
            case CheckpointDiff():
                target = _expected(connection.target, "a checkpoint diff").changed_by(line)
                await self._begin_target(connection, target, line.removed_buckets)
            case DataLine():
                if line.bucket in _expected(connection.target, "data").buckets:
                    connection.gathered.append(ReceivedData(line, len(text)))
                    connection.gathered_bytes += len(text)
                    connection.downloading = True
            case CheckpointComplete():
                await self._complete(connection, _expected(connection.target, "a complete checkpoint"), None)
            case PartialCheckpointComplete():
                target = _expected(connection.target, "a partly complete checkpoint")
                await self._complete(connection, target, line.priority)
            case KeepAlive():
                await self._keep_alive(connection, line)
            case UnknownLine():
                logger.debug("ignored a line of unknown kind: %s", ", ".join(line.kinds))

    async def _begin_target(
        self, connection: _Connection, target: TrackedCheckpoint, removed_buckets: Iterable[str]
    ) -> None:
        """Work towards a new checkpoint. The one before may never be completed; its data stays, and counts."""
        gathered = connection.take_gathered()
        removed = tuple(removed_buckets)
        is_full = connection.target is None or target.streams is not connection.target.streams

        def transaction(statements: Statements) -> None:
            oplog.take_in(statements, gathered)
            oplog.delete_buckets(statements, removed)
            if is_full:
                subscriptions.note_offered_streams(statements, target.streams)

        await self._pool.write(transaction)
        for stream in target.streams if is_full else ():
            for error in stream.errors:
                logger.warning("stream %s: %s", stream.name, error.message)
        connection.held_back = None
        connection.target = target

    async def _complete(self, connection: _Connection, target: TrackedCheckpoint, priority: int | None) -> None:
        gathered = connection.take_gathered()

        def transaction(statements: Statements) -> PublishResult:
            oplog.take_in(statements, gathered)
            result = self._publish(statements, connection, target, priority)
            if result.outcome is Outcome.HELD_BACK and priority is None and connection.awaited is not None:
                upload_queue.ask_again(statements, instead_of=connection.awaited)
            return result

        result = await self._pool.write(transaction)
        if priority is None:
            connection.awaited = None
        connection.downloading = connection.downloading and priority is not None
        match result.outcome:
            case Outcome.CHECKSUM_MISMATCH:
                raise ChecksumError(result.mismatched_buckets)
            case Outcome.HELD_BACK if priority is None:
                connection.held_back = target
                logger.debug("a checkpoint waits for the upload queue")
            case _:
                pass
        if priority is None:
            self._backoff.succeeded()
        self._on_sign_of_life()

    def _publish(
        self, statements: Statements, connection: _Connection, target: TrackedCheckpoint, priority: int | None
    ) -> PublishResult:
        result = publish.publish(statements, target, priority, self._raw_tables())
        if result.outcome is Outcome.PUBLISHED:
            subscriptions.mark_synced(statements, target, connection.requested, priority, result.at)
        return result

    async def _keep_alive(self, connection: _Connection, line: KeepAlive) -> None:
        self._on_sign_of_life()
        if line.token_expires_in <= 0:
            raise TokenExpiredError("The service says that the token has expired; a new one is fetched.")
        if line.token_expires_in <= RENEW_BEFORE_EXPIRY_SECONDS and not self._connect_again.is_set():
            self._token_expires.set()
        await self._pool.write(lambda statements: subscriptions.renew(statements, self._streams_in_use()))
        await self._connect_again_if_changed(connection)

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
            if self._connection is not None:
                await self._connect_again_if_changed(self._connection)

    async def _connect_again_if_changed(self, connection: _Connection) -> None:
        requested = await self._pool.write(
            lambda statements: subscriptions.requested_subscriptions(
                statements, include_defaults=self._options.include_default_streams
            )
        )
        if requested != connection.requested:
            self._connect_again.set()


def _expected(target: TrackedCheckpoint | None, what: str) -> TrackedCheckpoint:
    if target is None:
        raise ProtocolError(f"The service sent {what} before the first checkpoint.")
    return target
