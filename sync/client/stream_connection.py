"""One connection of the sync stream: its lines, one after the other, and what they do to the file.

Owns the state of the connection: the checkpoint it works towards, what is buffered, what is held back. What a line
does to the file belongs to `sync.storage`, its format to `sync.protocol`, and when to connect and how to continue after
an error to `sync.client.download`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

from sync.client.context import SessionContext
from sync.errors import ChecksumError, ProtocolError
from sync.protocol import (
    BucketRequest,
    Checkpoint,
    CheckpointComplete,
    CheckpointDiff,
    DataLine,
    KeepAlive,
    Line,
    PartialCheckpointComplete,
    StreamRequest,
    SubscriptionsRequest,
    TrackedCheckpoint,
    UnknownLine,
    decode_line,
)
from sync.sqlite.sql_connection import SqlConnection
from sync.status.progress import TargetProgress
from sync.storage import oplog, progress, publish, staging, subscriptions, upload_queue
from sync.storage.oplog import ReceivedData
from sync.storage.publish import Outcome, PublishResult
from sync.storage.subscriptions import RequestedSubscriptions, StreamKey

logger = logging.getLogger("sync.download")

_TAKE_IN_BYTES = 1 << 20
"""Downloaded lines are buffered up to this size before they are written, unless a checkpoint completes sooner."""

_Received = tuple[Line, int]
"""A line and its length on the wire in bytes."""


class StreamConnection:
    """The state of one connection, from its request to its last line.

    Args:
        context: the session's context.
        exclusive: held while lines are processed or something is published: a checkpoint is valid only until the next,
            so the lines of one connection, the end of an upload, and the next connection must not overlap.
        on_keep_alive: called with each keepalive line.
        on_completed: called after each complete (None) or partial checkpoint (its priority).
    """

    def __init__(
        self,
        context: SessionContext,
        exclusive: asyncio.Lock,
        on_keep_alive: Callable[[KeepAlive], Awaitable[None]],
        on_completed: Callable[[int | None], None],
    ) -> None:
        self._pool = context.pool
        self._board = context.board
        self._raw_tables = context.raw_tables
        self._options = context.options
        self._streams = context.streams
        self._exclusive = exclusive
        self._on_keep_alive = on_keep_alive
        self._on_completed = on_completed
        self._target: TrackedCheckpoint | None = None
        self._held_back: TrackedCheckpoint | None = None
        self._gathered: list[ReceivedData] = []
        self._gathered_bytes = 0
        self._is_staging = False
        self._downloading = False
        self._progress: TargetProgress | None = None
        self._requested = RequestedSubscriptions(SubscriptionsRequest(include_defaults=True, subscriptions=()), ())
        self._known_buckets: frozenset[str] = frozenset()
        self._positions: dict[str, int] = {}
        self._awaited: int | None = None

    async def prepare(self) -> StreamRequest:
        """Read from the file what to request."""
        options, in_use = self._options, self._streams.keys

        def transaction(connection: SqlConnection) -> StreamRequest:
            self._requested = self._subscriptions(connection, in_use)
            buckets = oplog.bucket_positions(connection)
            self._is_staging = staging.is_in_use(connection)
            # Buckets in the file that the first checkpoint lacks are deleted.
            self._known_buckets = frozenset(buckets)
            self._positions = dict(buckets)
            # The checkpoint request that the gate waits for, until a checkpoint is complete: the first one names the
            # newest request that the service knows of.
            self._awaited = upload_queue.target(connection)
            return StreamRequest(
                buckets=tuple(BucketRequest(name, str(after)) for name, after in buckets.items()),
                client_id=upload_queue.client_id(connection),
                streams=self._requested.request,
                parameters=options.params,
                app_metadata=options.app_metadata,
            )

        return await self._pool.write(transaction)

    async def subscriptions_changed(self) -> bool:
        """Whether the subscriptions in the file differ from those that this connection requested."""
        in_use = self._streams.keys
        requested = await self._pool.write(lambda connection: self._subscriptions(connection, in_use))
        return requested != self._requested

    def _subscriptions(self, connection: SqlConnection, in_use: Iterable[StreamKey]) -> RequestedSubscriptions:
        # Renewed first, so that subscriptions in use do not expire, even after days of sleep.
        subscriptions.renew(connection, in_use)
        return subscriptions.requested_subscriptions(connection, include_defaults=self._options.include_default_streams)

    async def take(self, lines: Iterable[bytes | bytearray]) -> None:
        """Process lines in order.

        Raises:
            ProtocolError: a line is invalid, or not allowed at this point.
            ChecksumError: a checkpoint's checksums did not match.
        """
        self._board.line_received()
        received, unreadable = _decoded(lines)
        before, changes, after = _around_changes(received)
        async with self._exclusive:
            try:
                for line in before:
                    await self._take_line(*line)
                if changes and self._are_in_place(changes):
                    await self._publish_newest(changes)
                else:
                    after = [*changes, *after]
                for line in after:
                    await self._take_line(*line)
                if unreadable is not None:
                    raise unreadable
                if self._gathered_bytes >= _TAKE_IN_BYTES:
                    await self._take_in_gathered()
            finally:
                # Also when one of the lines ends the connection: the effect of earlier ones is shown.
                self._board.update_download(self._progress, downloading=self._downloading)

    async def _take_in_gathered(self) -> None:
        gathered = self._take_gathered()
        self._is_staging = True
        await self._pool.write_in_bulk(lambda connection: oplog.take_in(connection, gathered, more_follows=True))

    async def publish_held_back(self) -> None:
        """Publish what was held back, if the gate is open now.

        Raises:
            ChecksumError: its checksums no longer match.
        """
        async with self._exclusive:
            checkpoint = self._held_back
            if checkpoint is None:
                return
            result = await self._pool.write(lambda connection: self._publish(connection, checkpoint, priority=None))
            if result.outcome is not Outcome.HELD_BACK:
                self._held_back = None
            if result.outcome is Outcome.CHECKSUM_MISMATCH:
                raise ChecksumError(result.mismatched_buckets)

    async def end(self) -> None:
        """Stop publishing, and store the data received so far, so that it need not be downloaded again."""
        self._held_back = None
        if gathered := self._take_gathered():
            try:
                await self._pool.write(lambda connection: oplog.take_in(connection, gathered))
            except Exception as error:  # noqa: BLE001 - the next connection downloads it again
                logger.warning("downloaded data could not be stored and will be downloaded again: %s", error)

    def _are_in_place(self, changes: Sequence[_Received]) -> bool:
        """Whether lines only change data that is complete: then there is no progress to count, and nothing to begin."""
        target = self._target
        if target is None or self._downloading or self._gathered:
            return False
        return all(
            not line.removed_buckets and all(bucket.bucket in target.buckets for bucket in line.updated_buckets)
            for line, _ in changes
            if isinstance(line, CheckpointDiff)
        )

    async def _publish_newest(self, changes: Sequence[_Received]) -> None:
        """Publish the last of several checkpoints that were all received, in one transaction.

        The others are skipped: the last one includes them, along with the checkpoint requests that they confirmed.
        """
        target = self._expected_target("a complete checkpoint")
        requested: int | None = None
        for line, size in changes:
            match line:
                case CheckpointDiff():
                    self._held_back = None
                    self._target = target = target.changed_by(line)
                case DataLine() if line.bucket in target.buckets:
                    self._gather(line, size)
                case CheckpointComplete():
                    requested = requested if target.write_checkpoint is None else target.write_checkpoint
                case _:
                    pass
        self._target = target = replace(target, write_checkpoint=requested)
        await self._complete(target, None)

    async def _take_line(self, line: Line, size: int) -> None:
        match line:
            case Checkpoint():
                target = TrackedCheckpoint.begin(line)
                before = self._known_buckets if self._target is None else self._target.buckets
                await self._begin_target(target, [name for name in before if name not in target.buckets])
            case CheckpointDiff():
                target = self._expected_target("a checkpoint diff").changed_by(line)
                await self._begin_target(target, line.removed_buckets)
            case DataLine():
                if line.bucket in self._expected_target("data").buckets:
                    self._gather(line, size)
                    self._downloading = True
                    if self._progress is not None:
                        self._progress.received(line.bucket, len(line.data))
            case CheckpointComplete():
                await self._complete(self._expected_target("a complete checkpoint"), None)
            case PartialCheckpointComplete():
                await self._complete(self._expected_target("a partial checkpoint"), line.priority)
            case KeepAlive():
                await self._on_keep_alive(line)
            case UnknownLine():
                logger.debug("ignored a line of unknown kind: %s", ", ".join(line.kinds))

    async def _begin_target(self, target: TrackedCheckpoint, removed_buckets: Iterable[str]) -> None:
        """Work towards a new checkpoint. The previous one may never be completed; its data stays, and counts."""
        removed = tuple(removed_buckets)
        is_full = self._target is None or target.streams is not self._target.streams
        self._held_back = None
        gathered = self._take_gathered()
        self._progress = None
        if not (is_full or removed or gathered):
            # The most frequent case, one live change: worth keeping off the writer.
            requested = self._requested
            self._progress = await self._pool.read(lambda reader: progress.read_target(reader, target, requested))

        def transaction(connection: SqlConnection) -> TargetProgress:
            oplog.take_in(connection, gathered)
            oplog.delete_buckets(connection, removed)
            if is_full:
                subscriptions.note_offered_streams(connection, target.streams)
            return progress.begin_target(connection, target, self._requested)

        if self._progress is None:
            self._progress = await self._pool.write(transaction)
        self._downloading = not self._progress.is_complete
        for name in removed:
            self._positions.pop(name, None)
        for stream in target.streams if is_full else ():
            for error in stream.errors:
                logger.warning("stream %s: %s", stream.name, error.message)
        self._target = target

    async def _complete(self, target: TrackedCheckpoint, priority: int | None) -> None:
        if self._is_staging:
            await self._settle()
        gathered = self._take_gathered()

        def transaction(connection: SqlConnection) -> PublishResult:
            oplog.take_in(connection, gathered)
            result = self._publish(connection, target, priority)
            if result.outcome is Outcome.HELD_BACK and priority is None and self._awaited is not None:
                upload_queue.request_again(connection, instead_of=self._awaited)
            return result

        try:
            result = await self._pool.write(transaction)
        except sqlite3.OperationalError as error:
            # An index parses the rows. They are validated only once it fails, as that parses each row a second time.
            damaged = await self._pool.write(lambda connection: oplog.take_in_undamaged(connection, gathered))
            if not damaged:
                raise
            raise ProtocolError(
                f"The service sent rows that are not valid JSON, in {', '.join(damaged)}; "
                "these buckets will be downloaded again."
            ) from error
        if priority is None:
            self._awaited = None
        self._downloading = self._downloading and priority is not None
        match result.outcome:
            case Outcome.CHECKSUM_MISMATCH:
                raise ChecksumError(result.mismatched_buckets)
            case Outcome.HELD_BACK if priority is None:
                self._held_back = target
                logger.debug("a checkpoint waits for the upload queue")
            case _:
                pass
        # As in the file: an operation from before the checkpoint that arrives after it would never be published.
        self._positions |= {bucket.bucket: target.last_op_id for bucket in target.buckets_within(priority)}
        self._on_completed(priority)

    async def _settle(self) -> None:
        """Move a large download into the oplog, apart from publishing: each is a transaction as large as the data."""
        gathered = self._take_gathered()

        def transaction(connection: SqlConnection) -> None:
            oplog.take_in(connection, gathered)
            staging.settle(connection)

        await self._pool.write_in_bulk(transaction)
        self._is_staging = False

    def _publish(self, connection: SqlConnection, target: TrackedCheckpoint, priority: int | None) -> PublishResult:
        result = publish.publish(connection, target, priority, self._raw_tables)
        if result.outcome is Outcome.PUBLISHED:
            subscriptions.mark_synced(connection, target, self._requested, priority, result.at)
        return result

    def _gather(self, line: DataLine, size: int) -> None:
        self._positions[line.bucket] = line.last_after(self._positions.get(line.bucket, 0))
        self._gathered.append(ReceivedData(line, size))
        self._gathered_bytes += size

    def _take_gathered(self) -> list[ReceivedData]:
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        return gathered

    def _expected_target(self, what: str) -> TrackedCheckpoint:
        if self._target is None:
            raise ProtocolError(f"The service sent {what} before the first checkpoint.")
        return self._target


def _decoded(lines: Iterable[bytes | bytearray]) -> tuple[list[_Received], ProtocolError | None]:
    """The lines up to the first invalid one, and its error."""
    received: list[_Received] = []
    for text in lines:
        if text.strip():
            try:
                received.append((decode_line(text), len(text)))
            except ProtocolError as error:
                return received, error
    return received, None


def _around_changes(received: list[_Received]) -> tuple[list[_Received], list[_Received], list[_Received]]:
    """What comes before the lines that change checkpoints, those lines up to the last complete one, and the rest."""
    end = max((index for index, (line, _) in enumerate(received, 1) if isinstance(line, CheckpointComplete)), default=0)
    begin = end
    while begin and isinstance(received[begin - 1][0], CheckpointDiff | DataLine | CheckpointComplete):
        begin -= 1
    return received[:begin], received[begin:end], received[end:]
