"""The life of one sync stream: a checkpoint, its data, and then every difference as it happens.

`difference` is the pure heart: what has changed between two checkpoints. `chunks` takes those from the feed or from the
database, sends what changed, and sleeps until the feed wakes it. Knows no HTTP and no format of lines; writes nothing.
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
# A download that has sent this much gives way to a newer checkpoint, as the service's does.
_YIELDING_OPS = 1000


@dataclass(frozen=True)
class Checkpoint:
    """All that a connection syncs, as of one op id."""

    last_op_id: int
    write_checkpoint: WriteCheckpoint
    buckets: tuple[BucketDescription, ...]
    states: dict[str, BucketState]

    def described(self) -> dict[str, BucketDescription]:
        """The buckets by name; of one that comes twice, the second."""
        return {bucket.name: bucket for bucket in self.buckets}


@dataclass(frozen=True)
class Difference:
    """The line that announces a new checkpoint, the buckets whose data follows, and those that are gone."""

    line: dict[str, Any]
    buckets: tuple[BucketDescription, ...]
    removed: tuple[str, ...] = ()


class TokenClock:
    """When a stream says how long its token still lasts.

    A line is due every `interval` seconds, once 20 seconds before the end, and at the end. Times
    are seconds since the epoch.
    """

    def __init__(self, expires_at: float, interval: float, *, now: float) -> None:
        self._expires_at = expires_at
        self._interval = interval
        self._next = now + interval
        warning = expires_at - _WARNING_SECONDS
        self._warning = warning if warning > now else math.inf

    def due_in(self, now: float) -> float:
        """Seconds until the next line is due, at least 0."""
        return max(0.0, min(self._next, self._warning, self._expires_at) - now)

    def due(self, now: float) -> int | None:
        """The whole seconds that the token still lasts if a line is due, else None; 0 is the last."""
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
    """What to announce when `after` follows `before`; None if nothing of this connection changed.

    Without `before` it is a full checkpoint. A new request for a write checkpoint is a difference
    of its own, even if its value stayed the same.
    """
    content: dict[str, Any] = {"last_op_id": str(after.last_op_id)}
    if after.write_checkpoint.value is not None:
        content["write_checkpoint"] = str(after.write_checkpoint.value)
    described = after.described()
    if before is None:
        content["buckets"] = [_describe(bucket, after) for bucket in described.values()]
        content["streams"] = target.streams
        return Difference({"checkpoint": content}, after.buckets)
    # Compaction may change the number of operations, but not what a client has.
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
    """One connection of one client. `keepalive_seconds` is the mean time between two keepalive lines."""

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
        # Spread by 10 %, so that streams opened together do not speak together for ever.
        spread = random.uniform(0.9, 1.1)  # noqa: S311 - guards nothing
        self._clock = TokenClock(credentials.expires_at, keepalive_seconds * spread, now=time.time())
        self._after = {position.name: int(position.after) for position in request.buckets or ()}
        self._announced: Checkpoint | None = None
        self._unsent: set[str] = set()
        self._overtaking: Checkpoint | None = None

    async def first_look(self, watcher: Watcher) -> None:
        """Look at the database for the first checkpoint.

        Raises RequestError if it has too many buckets, sqlite3.Error if the database cannot be read.
        """
        watcher.calls = self._target.lookup_calls
        self._overtaking = await self._look(watcher)

    async def chunks(self, watcher: Watcher) -> AsyncGenerator[bytes]:
        """The stream's lines after `first_look`, one or more whole ones at a time.

        They end cleanly when the token expires, the sync config changes or the backend stops. Raises sqlite3.Error if
        the database cannot be read, and RequestError if there are too many buckets now. May be closed or cancelled
        anywhere.
        """
        while not self._feed.ended:
            if self._expires_at <= time.time():
                yield self._encode({"token_expires_in": 0})
                return
            if self._overtaking is None:
                watcher.changed.clear()
                checkpoint = await self._next(watcher)
            else:
                # What has changed since that look is still to come: its wake is kept.
                checkpoint, self._overtaking = self._overtaking, None
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
            elif self._overtaking is None:
                try:
                    async with asyncio.timeout(self._clock.due_in(time.time())):
                        await watcher.changed.wait()
                except TimeoutError:
                    continue

    def _keepalive(self) -> bytes | None:
        remaining = self._clock.due(time.time())
        # The last one is said where the stream ends.
        return self._encode({"token_expires_in": remaining}) if remaining else None

    async def _next(self, watcher: Watcher) -> Checkpoint:
        """The present checkpoint."""
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
                # As the service has it: of two descriptions of a bucket the first gives its place.
                self._log.states(connection, dict.fromkeys(bucket.name for bucket in buckets)),
            )

        self._feed.begin_look(watcher)
        seen = await self._database.read(look)
        self._feed.end_look(watcher, seen.states, seen.last_op_id, seen.write_checkpoint)
        states = {
            name: max(state, watcher.states.get(name, state), key=lambda it: it.last_op)
            for name, state in seen.states.items()
        }
        watcher.states.clear()
        return Checkpoint(watcher.last_op_id, watcher.write_checkpoint, seen.buckets, states)

    async def _deliver(self, found: Difference, checkpoint: Checkpoint, watcher: Watcher) -> AsyncGenerator[bytes]:
        """The lines of one checkpoint; what is there at once goes out together."""
        waiting: list[bytes] = []
        async with aclosing(self._lines(found, checkpoint, watcher)) as lines:
            async for line in lines:
                if line is not None:
                    waiting.append(line)
                if waiting and (line is None or sum(map(len, waiting)) > _CHUNK_BYTES):
                    yield b"".join(waiting)
                    waiting.clear()
        if waiting:
            yield b"".join(waiting)

    async def _lines(self, found: Difference, checkpoint: Checkpoint, watcher: Watcher) -> AsyncGenerator[bytes | None]:
        """The line that announces `checkpoint`, its data by priority, and that it is complete; None before a wait.

        It is not completed if a newer one overtakes it (`_overtaking`), or if operations that made earlier ones
        superfluous belong to a newer one, which then follows.
        """
        yield self._encode(found.line)
        last_op_id = str(checkpoint.last_op_id)
        ordered = self._to_send(found, checkpoint)
        sent = 0
        for priority, group in groupby(ordered, key=lambda bucket: bucket.priority):
            is_whole = True
            for bucket in group:
                while self._after.get(bucket.name, 0) < checkpoint.states[bucket.name].last_op:
                    page = self._page_at_hand(bucket.name, checkpoint)
                    if page is None:
                        yield None
                        page = await self._page(bucket.name, checkpoint)
                    if page is None:
                        is_whole = False
                        break
                    is_whole = is_whole and page.target_op <= checkpoint.last_op_id
                    self._after[bucket.name] = page.next_after
                    sent += len(page.operations)
                    line = page.encoded.get(self._encode)
                    if line is None:
                        line = page.encoded[self._encode] = self._encode(_data_line(page))
                    yield line
                    if sent >= _YIELDING_OPS and watcher.changed.is_set() and await self._is_overtaken(watcher):
                        return
                else:
                    self._unsent.discard(bucket.name)
            if not is_whole:
                return
            if priority != ordered[-1].priority:
                yield self._encode({"partial_checkpoint_complete": {"last_op_id": last_op_id, "priority": priority}})
        yield self._encode({"checkpoint_complete": {"last_op_id": last_op_id}})

    def _to_send(self, found: Difference, checkpoint: Checkpoint) -> list[BucketDescription]:
        """The buckets whose data follows, highest priority first: what has changed, and what was not sent before."""
        for name in found.removed:
            self._unsent.discard(name)
            self._after.pop(name, None)
        changed = {bucket.name for bucket in found.buckets}
        late = [bucket for name, bucket in checkpoint.described().items() if name in self._unsent - changed]
        self._unsent |= changed
        return sorted((*found.buckets, *late), key=lambda bucket: bucket.priority)

    async def _is_overtaken(self, watcher: Watcher) -> bool:
        watcher.changed.clear()
        checkpoint = await self._next(watcher)
        if difference(self._target, self._announced, checkpoint) is None:
            return False
        self._overtaking = checkpoint
        return True

    def _page_at_hand(self, bucket: str, checkpoint: Checkpoint) -> Page | None:
        after = self._after.get(bucket, 0)
        return self._feed.page(bucket, after=after, up_to=checkpoint.states[bucket].last_op)

    async def _page(self, bucket: str, checkpoint: Checkpoint) -> Page | None:
        after = self._after.get(bucket, 0)

        def read(connection: sqlite3.Connection) -> Page | None:
            return self._log.page(connection, bucket, after=after, up_to=checkpoint.last_op_id)

        return await self._database.read(read)
