"""The life of one sync stream: a checkpoint, its data, and then every difference as it happens.

`difference` is the pure heart: what has changed between two looks at the database. `lines` takes
those looks, sends what changed, and sleeps until a commit wakes it. Knows no HTTP; writes nothing.
"""

from __future__ import annotations

import asyncio
import math
import random
import sqlite3
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import msgspec

from app.backend import checkpoints
from app.backend.auth import Credentials
from app.backend.checkpoints import WriteCheckpoint
from app.backend.oplog import BucketState, OperationLog, Page
from app.backend.service import Service
from app.backend.streams import BucketDescription, SyncRequest, Target

_WARNING_SECONDS = 20


@dataclass(frozen=True)
class Checkpoint:
    """One consistent look at what a connection syncs."""

    last_op_id: int
    write_checkpoint: WriteCheckpoint
    buckets: dict[str, BucketState]


@dataclass(frozen=True)
class Difference:
    """The line that announces a new checkpoint, and the buckets whose data follows."""

    line: bytes
    buckets: tuple[BucketDescription, ...]


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
    if before is None:
        content["buckets"] = [_describe(bucket, after) for bucket in target.buckets]
        content["streams"] = target.streams
        return Difference(_line("checkpoint", content), target.buckets)
    changed = tuple(bucket for bucket in target.buckets if before.buckets[bucket.name] != after.buckets[bucket.name])
    if not changed and before.write_checkpoint == after.write_checkpoint:
        return None
    # The request alone decides which buckets a connection has, so none ever leaves it.
    content["removed_buckets"] = []
    content["updated_buckets"] = [_describe(bucket, after) for bucket in changed]
    return Difference(_line("checkpoint_diff", content), changed)


def _describe(bucket: BucketDescription, checkpoint: Checkpoint) -> dict[str, Any]:
    state = checkpoint.buckets[bucket.name]
    return {
        "bucket": bucket.name,
        "checksum": state.signed_checksum,
        "count": state.count,
        "priority": bucket.priority,
        "subscriptions": bucket.subscriptions,
    }


def _line(name: str, content: Any) -> bytes:
    return msgspec.json.encode({name: content}) + b"\n"


class SyncStream:
    """One connection of one client."""

    def __init__(self, service: Service, credentials: Credentials, request: SyncRequest, target: Target) -> None:
        self._changes = service.changes
        self._database = service.opened.database
        self._log: OperationLog = service.opened.log
        self._user_id = credentials.user_id
        self._expires_at = credentials.expires_at
        self._client_id = request.client_id or ""
        self._raw_data = bool(request.raw_data)
        self._target = target
        named = {position.name: int(position.after) for position in request.buckets or ()}
        self._after = {bucket.name: named.get(bucket.name, 0) for bucket in target.buckets}
        # Spread by 10 %, so that streams opened together do not speak together for ever.
        spread = random.uniform(0.9, 1.1)  # noqa: S311 - guards nothing
        self._interval = service.config.keepalive_seconds * spread

    async def lines(self) -> AsyncGenerator[bytes]:
        """The stream's lines, until the token expires or the backend stops; both end it cleanly.

        Raises sqlite3.Error if the database cannot be read. May be closed or cancelled anywhere.
        """
        clock = TokenClock(self._expires_at, self._interval, now=time.time())
        with self._changes.subscribe(self._user_id) as changed:
            before: Checkpoint | None = None
            while not self._changes.closed:
                changed.clear()
                after = await self._database.read(self._look)
                found = difference(self._target, before, after)
                if found is not None:
                    yield found.line
                    async with aclosing(self._data(found.buckets, after)) as data:
                        async for line in data:
                            yield line
                            if self._changes.closed:
                                return
                            if time.time() >= self._expires_at:
                                break
                before = after
                remaining = clock.due(time.time())
                if remaining is not None:
                    yield _line("token_expires_in", remaining)
                    if remaining == 0:
                        return
                try:
                    async with asyncio.timeout(clock.due_in(time.time())):
                        await changed.wait()
                except TimeoutError:
                    continue

    def _look(self, connection: sqlite3.Connection) -> Checkpoint:
        return Checkpoint(
            self._log.last_op_id(connection),
            checkpoints.current(connection, self._user_id, self._client_id),
            self._log.states(connection, self._after),
        )

    async def _data(self, buckets: Sequence[BucketDescription], checkpoint: Checkpoint) -> AsyncGenerator[bytes]:
        """The data of `buckets` up to `checkpoint`, highest priority first, and the completions."""
        last_op_id = str(checkpoint.last_op_id)
        ordered = sorted(buckets, key=lambda bucket: bucket.priority)
        for priority, group in groupby(ordered, key=lambda bucket: bucket.priority):
            for bucket in group:
                while self._after[bucket.name] < checkpoint.buckets[bucket.name].last_op:
                    page = await self._page(bucket.name, checkpoint.last_op_id)
                    if page is None:
                        break
                    self._after[bucket.name] = page.next_after
                    yield page.line
            if priority != ordered[-1].priority:
                yield _line("partial_checkpoint_complete", {"last_op_id": last_op_id, "priority": priority})
        yield _line("checkpoint_complete", {"last_op_id": last_op_id})

    async def _page(self, bucket: str, up_to: int) -> Page | None:
        def read(connection: sqlite3.Connection) -> Page | None:
            return self._log.page(connection, bucket, after=self._after[bucket], up_to=up_to, raw_data=self._raw_data)

        return await self._database.read(read)
