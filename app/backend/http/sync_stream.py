"""A single sync stream: a checkpoint and its data, followed by every change as it happens.

`difference` is the core, a pure function: what has changed between two checkpoints. `chunks` gets checkpoints from the
feed or the database, yields the changes, and waits until the feed notifies it. Knows nothing about HTTP or the encoding
of lines, and never writes to the database.
"""

from __future__ import annotations

import asyncio
import math
import random
import sqlite3
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from app.backend.data import checkpoints
from app.backend.data.checkpoints import WriteCheckpoint
from app.backend.data.database import Database
from app.backend.data.feed import Feed, Watcher
from app.backend.data.oplog import BucketState, OperationLog, Page
from app.backend.http.auth import Credentials
from app.backend.http.encodings import Encode
from app.backend.rules.streams import BucketDescription, SyncRequest, Target

_WARNING_SECONDS = 20
_CHUNK_BYTES = 64 * 1024
# After this many operations, a download is interrupted by a newer checkpoint, as in the PowerSync Service.
_YIELDING_OPS = 1000


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a connection syncs, as of one op id."""

    last_op_id: int
    write_checkpoint: WriteCheckpoint
    buckets: tuple[BucketDescription, ...]
    states: dict[str, BucketState]

    def described(self) -> dict[str, BucketDescription]:
        """Return the buckets by name; of two with the same name, the second."""
        return {bucket.name: bucket for bucket in self.buckets}


@dataclass(frozen=True)
class Difference:
    """The line that announces a new checkpoint, the buckets whose data follows, and the removed buckets."""

    line: dict[str, Any]
    buckets: tuple[BucketDescription, ...]
    removed: tuple[str, ...] = ()


class TokenClock:
    """Schedules the lines that report the remaining lifetime of the token.

    A line is due every `interval` seconds, once 20 seconds before the token expires, and when it
    expires. Times are in seconds since the epoch.
    """

    def __init__(self, expires_at: float, interval: float, *, now: float) -> None:
        self._expires_at = expires_at
        self._interval = interval
        self._next = now + interval
        warning = expires_at - _WARNING_SECONDS
        self._warning = warning if warning > now else math.inf

    def due_in(self, now: float) -> float:
        """Return the seconds until the next line is due, at least 0."""
        return max(0.0, min(self._next, self._warning, self._expires_at) - now)

    def due(self, now: float) -> int | None:
        """Return the remaining lifetime in whole seconds if a line is due, otherwise None; 0 means expired."""
        if now >= self._expires_at:
            return 0
        if now < min(self._next, self._warning):
            return None
        if now >= self._warning:
            self._warning = math.inf
        if now >= self._next:
            self._next = now + self._interval
        return math.ceil(self._expires_at - now)


def difference(target: Target, before: Checkpoint | None, after: Checkpoint) -> Difference | None:
    """Return what to announce when `after` follows `before`; None if nothing changed for this connection.

    Without `before`, that is a full checkpoint. A new request for a write checkpoint counts as a
    difference even if the value is unchanged.
    """
    content: dict[str, Any] = {"last_op_id": str(after.last_op_id)}
    if after.write_checkpoint.value is not None:
        content["write_checkpoint"] = str(after.write_checkpoint.value)
    described = after.described()
    if before is None:
        content["buckets"] = [_describe(bucket, after) for bucket in described.values()]
        content["streams"] = target.streams
        return Difference({"checkpoint": content}, after.buckets)
    # Compaction can change the number of operations, but not the data that a client has.
    changed = tuple(
        bucket
        for name, bucket in described.items()
        if name not in before.states or before.states[name].last_op != after.states[name].last_op
    )
    removed = tuple(name for name in before.states if name not in described)
    if not changed and not removed and before.write_checkpoint == after.write_checkpoint:
        return None
    content["removed_buckets"] = removed
    content["updated_buckets"] = [_describe(bucket, after) for bucket in changed]
    return Difference({"checkpoint_diff": content}, changed, removed)


def _describe(bucket: BucketDescription, checkpoint: Checkpoint) -> dict[str, Any]:
    state = checkpoint.states[bucket.name]
    return {
        "bucket": bucket.name,
        "checksum": state.signed_checksum,
        "count": state.count,
        "priority": bucket.priority,
        "subscriptions": bucket.subscriptions,
    }


def _data_line(page: Page) -> dict[str, Any]:
    return {
        "data": {
            "bucket": page.bucket,
            "after": str(page.after),
            "has_more": page.has_more,
            "data": page.operations,
            "next_after": str(page.next_after),
        }
    }


class SyncStream:
    """One connection of a client. `keepalive_seconds` is the mean interval between keepalive lines.

    More than five parameters: three of the backend, three of the request, and two that say how to answer it. It is made
    in one place.
    """

    def __init__(
        self,
        database: Database,
        log: OperationLog,
        feed: Feed,
        target: Target,
        credentials: Credentials,
        request: SyncRequest,
        *,
        encode: Encode,
        keepalive_seconds: float,
    ) -> None:
        self._database = database
        self._log = log
        self._feed = feed
        self._target = target
        self._user_id = credentials.user_id
        self._client_id = request.client_id or ""
        self._expires_at = credentials.expires_at
        self._encode = encode
        # Jitter of 10 %, so that streams opened at the same time do not send keepalives at the same time.
        jitter = random.uniform(0.9, 1.1)  # noqa: S311 - not for security
        self._clock = TokenClock(credentials.expires_at, keepalive_seconds * jitter, now=time.time())
        self._positions = {position.name: int(position.after) for position in request.buckets or ()}
        self._announced: Checkpoint | None = None
        self._unsent: set[str] = set()
        self._newer_checkpoint: Checkpoint | None = None

    async def first_look(self, watcher: Watcher) -> None:
        """Read the first checkpoint from the database.

        Raises RequestError if there are too many buckets, sqlite3.Error if the database cannot be read.
        """
        watcher.calls = self._target.lookup_calls
        self._newer_checkpoint = await self._look(watcher)

    async def chunks(self, watcher: Watcher) -> AsyncGenerator[bytes]:
        """Yield the lines of the stream, one or more complete lines at a time. Call `first_look` before.

        Ends cleanly when the token expires, the sync config changes or the backend stops. Raises sqlite3.Error if the
        database cannot be read, and RequestError if there are now too many buckets. Can safely be closed or cancelled
        at any point.
        """
        while not self._feed.ended:
            if self._expires_at <= time.time():
                yield self._encode({"token_expires_in": 0})
                return
            if self._newer_checkpoint is None:
                watcher.changed.clear()
                checkpoint = await self._next(watcher)
            else:
                # Do not clear `changed`: it announces changes made since this checkpoint was read.
                checkpoint, self._newer_checkpoint = self._newer_checkpoint, None
            found = difference(self._target, self._announced, checkpoint)
            if found is not None:
                self._announced = checkpoint
                async with aclosing(self._deliver(found, checkpoint, watcher)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                        if self._feed.ended:
                            return
                        if self._expires_at <= time.time():
                            break
                        if (line := self._keepalive()) is not None:
                            yield line
            if (line := self._keepalive()) is not None:
                yield line
            elif self._newer_checkpoint is None:
                try:
                    async with asyncio.timeout(self._clock.due_in(time.time())):
                        await watcher.changed.wait()
                except TimeoutError:
                    continue

    def _keepalive(self) -> bytes | None:
        remaining = self._clock.due(time.time())
        # The final line, with 0, is sent where the stream ends.
        return self._encode({"token_expires_in": remaining}) if remaining else None

    async def _next(self, watcher: Watcher) -> Checkpoint:
        """Return the current checkpoint."""
        if watcher.must_look or self._announced is None:
            return await self._look(watcher)
        states = self._announced.states
        if watcher.states:
            states = {name: watcher.states.get(name, state) for name, state in states.items()}
            watcher.states.clear()
        return Checkpoint(watcher.last_op_id, watcher.write_checkpoint, self._announced.buckets, states)

    async def _look(self, watcher: Watcher) -> Checkpoint:
        def look(connection: sqlite3.Connection) -> Checkpoint:
            buckets = self._target.buckets(lambda call: self._log.look_up(connection, call))
            return Checkpoint(
                self._log.last_op_id(connection),
                checkpoints.current(connection, self._user_id, self._client_id),
                buckets,
                # As in the PowerSync Service, the first of two descriptions of a bucket determines its position.
                self._log.states(connection, dict.fromkeys(bucket.name for bucket in buckets)),
            )

        self._feed.begin_look(watcher)
        seen = await self._database.read(look)
        self._feed.end_look(watcher, seen.states, seen.last_op_id, seen.write_checkpoint)
        states = {
            name: max(state, watcher.states.get(name, state), key=lambda candidate: candidate.last_op)
            for name, state in seen.states.items()
        }
        watcher.states.clear()
        return Checkpoint(watcher.last_op_id, watcher.write_checkpoint, seen.buckets, states)

    async def _deliver(self, found: Difference, checkpoint: Checkpoint, watcher: Watcher) -> AsyncGenerator[bytes]:
        """Yield the lines of one checkpoint; lines that are available without waiting are sent together."""
        pending: list[bytes] = []
        async with aclosing(self._lines(found, checkpoint, watcher)) as lines:
            async for line in lines:
                if line is not None:
                    pending.append(line)
                if pending and (line is None or sum(map(len, pending)) > _CHUNK_BYTES):
                    yield b"".join(pending)
                    pending.clear()
        if pending:
            yield b"".join(pending)

    async def _lines(self, found: Difference, checkpoint: Checkpoint, watcher: Watcher) -> AsyncGenerator[bytes | None]:
        """Yield the lines that announce `checkpoint`, send its data by priority, and complete it; None before a wait.

        The checkpoint is not completed if a newer one supersedes it (`_newer_checkpoint`), or if some of its operations
        have been superseded by operations of a newer checkpoint, which then follows.
        """
        yield self._encode(found.line)
        last_op_id = str(checkpoint.last_op_id)
        ordered = self._to_send(found, checkpoint)
        sent = 0
        for priority, group in groupby(ordered, key=lambda bucket: bucket.priority):
            is_complete = True
            for bucket in group:
                while self._positions.get(bucket.name, 0) < checkpoint.states[bucket.name].last_op:
                    page = self._cached_page(bucket.name, checkpoint)
                    if page is None:
                        yield None
                        page = await self._read_page(bucket.name, checkpoint)
                    if page is None:
                        is_complete = False
                        break
                    is_complete = is_complete and page.target_op <= checkpoint.last_op_id
                    self._positions[bucket.name] = page.next_after
                    sent += len(page.operations)
                    line = page.encoded.get(self._encode)
                    if line is None:
                        line = page.encoded[self._encode] = self._encode(_data_line(page))
                    yield line
                    if sent >= _YIELDING_OPS and watcher.changed.is_set() and await self._is_superseded(watcher):
                        return
                else:
                    self._unsent.discard(bucket.name)
            if not is_complete:
                return
            if priority != ordered[-1].priority:
                yield self._encode({"partial_checkpoint_complete": {"last_op_id": last_op_id, "priority": priority}})
        yield self._encode({"checkpoint_complete": {"last_op_id": last_op_id}})

    def _to_send(self, found: Difference, checkpoint: Checkpoint) -> list[BucketDescription]:
        """Return the buckets to send, highest priority first: changed ones, and those not completely sent before."""
        for name in found.removed:
            self._unsent.discard(name)
            self._positions.pop(name, None)
        changed = {bucket.name for bucket in found.buckets}
        unsent = [bucket for name, bucket in checkpoint.described().items() if name in self._unsent - changed]
        self._unsent |= changed
        return sorted((*found.buckets, *unsent), key=lambda bucket: bucket.priority)

    async def _is_superseded(self, watcher: Watcher) -> bool:
        watcher.changed.clear()
        checkpoint = await self._next(watcher)
        if difference(self._target, self._announced, checkpoint) is None:
            return False
        self._newer_checkpoint = checkpoint
        return True

    def _cached_page(self, bucket: str, checkpoint: Checkpoint) -> Page | None:
        after = self._positions.get(bucket, 0)
        return self._feed.page(bucket, after=after, up_to=checkpoint.states[bucket].last_op)

    async def _read_page(self, bucket: str, checkpoint: Checkpoint) -> Page | None:
        after = self._positions.get(bucket, 0)

        def read(connection: sqlite3.Connection) -> Page | None:
            return self._log.page(connection, bucket, after=after, up_to=checkpoint.last_op_id)

        return await self._database.read(read)
