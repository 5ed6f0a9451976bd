"""The newest operations of the log, shared by all open streams: read once per commit, however many streams there are.

A stream that keeps up finds everything it has to send here, without reading the database. A stream that lags behind, or
whose set of buckets may have changed, reads the database itself. Not thread-safe: use it on the event loop's thread.
Keeps only buckets that streams watch, and at most a few hundred operations of each.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from bisect import bisect_right
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from app.backend.data import checkpoints
from app.backend.data.changes import Changes
from app.backend.data.checkpoints import WriteCheckpoint
from app.backend.data.database import Database
from app.backend.data.oplog import BucketState, Operation, OperationLog, Page, Tail
from app.backend.rules.streams import LookupCall

_KEPT_OPS = 256
_KEPT_BYTES = 256 * 1024
_TAIL_OPS = 2000
_RETRY_SECONDS = 0.5
_BUSY_SECONDS = 0.005
_YIELDS = 3

K = TypeVar("K")

_log = logging.getLogger(__name__)


class Watcher:
    """The changes for one stream that it has not processed yet. Only the feed and that stream may use it."""

    def __init__(self, last_op_id: int) -> None:
        self.changed = asyncio.Event()
        """Set when there are changes to process, and when the feed ends."""
        self.last_op_id = last_op_id
        self.states: dict[str, BucketState] = {}
        """New states of the watched buckets; of all buckets while the stream reads the database itself."""
        self.write_checkpoint = WriteCheckpoint(None, 0)
        """The client's current write checkpoint."""
        self.must_look = True
        """Whether the set of buckets may have changed, so the stream has to read the database itself."""
        self.calls: list[LookupCall] = []
        """The lookups that the set of buckets depends on."""
        self.buckets: frozenset[str] = frozenset()


@dataclass
class _Recent:
    """The newest operations of a bucket: all after the op id `start`."""

    start: int
    operations: list[Operation] = field(default_factory=list[Operation])
    ids: list[int] = field(default_factory=list[int])
    size: int = 0
    pages: dict[tuple[int, int], Page] = field(default_factory=dict[tuple[int, int], Page])
    """The pages requested since the last operation was added; many streams request the same ones."""

    def extend(self, operations: Iterable[Operation]) -> None:
        self.pages.clear()
        for operation in operations:
            self.operations.append(operation)
            self.ids.append(int(operation.op_id))
            self.size += _size(operation)
        while len(self.operations) > _KEPT_OPS or (self.size > _KEPT_BYTES and self.operations):
            # Drop half of them, so this does not happen for every operation.
            half = (len(self.operations) + 1) // 2
            self.start = self.ids[half - 1]
            self.size -= sum(_size(operation) for operation in self.operations[:half])
            del self.operations[:half], self.ids[:half]


async def _yield_to_writes() -> None:
    """Pause in proportion to the time that the woken streams take, so that many streams cannot starve writes.

    Everything committed meanwhile reaches the streams together, which is also cheaper for them.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    for _ in range(_YIELDS):
        await asyncio.sleep(0)
    took = loop.time() - started
    if took > _BUSY_SECONDS:
        await asyncio.sleep(took / 2)


def _size(operation: Operation) -> int:
    return len(operation.data) + 200 if isinstance(operation.data, str) else 200


class Feed:
    """Follows the log of one backend while `run` is running."""

    def __init__(self, database: Database, log: OperationLog, changes: Changes) -> None:
        self._database = database
        self._log = log
        self._changes = changes
        self._watchers: dict[tuple[str, str], set[Watcher]] = {}
        self._by_bucket: dict[str, set[Watcher]] = {}
        self._reading: set[Watcher] = set()
        self._recent: dict[str, _Recent] = {}
        self.last_op_id = 0
        self.ended = False
        """Whether the streams of this feed should end."""
        changes.when_closed(self.end)

    async def start(self) -> None:
        """Start at the current end of the log. Raises sqlite3.Error if it cannot be read."""
        self.last_op_id = await self._database.read(self._log.last_op_id)

    async def run(self) -> None:
        """Follow the log until cancelled; retries if the database cannot be read."""
        users: set[str] = set()
        while True:
            users |= await self._changes.committed()
            try:
                tail, written = await self._read_changes(users)
            except sqlite3.Error as error:
                _log.warning("Cannot read the database; open streams are waiting: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._changes.notify("")
                continue
            self._distribute(tail)
            for owner, checkpoint in written.items():
                for watcher in self._watchers.get(owner, ()):
                    if watcher.write_checkpoint != checkpoint:
                        watcher.write_checkpoint = checkpoint
                        watcher.last_op_id = tail.last_op_id
                        watcher.changed.set()
            users.clear()
            await _yield_to_writes()

    def end(self) -> None:
        """End the streams of this feed. Can be called more than once."""
        self.ended = True
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.changed.set()

    @contextmanager
    def watch(self, user_id: str, client_id: str) -> Generator[Watcher]:
        """Collect the changes for one stream from now on."""
        watcher = Watcher(self.last_op_id)
        owner = (user_id, client_id)
        self._watchers.setdefault(owner, set()).add(watcher)
        try:
            yield watcher
        finally:
            _discard(self._watchers, owner, watcher)
            self._reading.discard(watcher)
            self._follow(watcher, ())

    def begin_look(self, watcher: Watcher) -> None:
        """Call before the stream reads the database itself: changes to all buckets are collected meanwhile."""
        watcher.must_look = False
        watcher.states.clear()
        self._reading.add(watcher)

    def end_look(
        self, watcher: Watcher, buckets: Iterable[str], last_op_id: int, write_checkpoint: WriteCheckpoint
    ) -> None:
        """Call when the stream has read the database as of `last_op_id`; from now on it watches `buckets`."""
        self._reading.discard(watcher)
        if write_checkpoint.requests > watcher.write_checkpoint.requests:
            watcher.write_checkpoint = write_checkpoint
        self._follow(watcher, buckets)
        watcher.last_op_id = max(watcher.last_op_id, last_op_id)

    def page(self, bucket: str, *, after: int, up_to: int) -> Page | None:
        """The operations of a bucket with `after` < id ≤ `up_to`.

        None if there are none, or if they are not all among the newest operations.
        """
        recent = self._recent.get(bucket)
        if recent is None or after < recent.start:
            return None
        page = recent.pages.get((after, up_to))
        if page is None:
            operations = recent.operations[bisect_right(recent.ids, after) : bisect_right(recent.ids, up_to)]
            if not operations:
                return None
            last = int(operations[-1].op_id)
            page = recent.pages[after, up_to] = Page(bucket, after, operations, last, has_more=False, target_op=0)
        return page

    async def _read_changes(self, users: set[str]) -> tuple[Tail, dict[tuple[str, str], WriteCheckpoint]]:
        def read(connection: sqlite3.Connection) -> tuple[Tail, dict[tuple[str, str], WriteCheckpoint]]:
            tail = self._log.tail(connection, after=self.last_op_id, limit=_TAIL_OPS)
            return tail, checkpoints.of_users(connection, users)

        return await self._database.read(read)

    def _distribute(self, tail: Tail) -> None:
        for bucket, state in tail.states.items():
            watchers = self._by_bucket.get(bucket)
            if watchers is not None:
                self._keep(bucket, tail)
            for watcher in (*(watchers or ()), *self._reading):
                watcher.states[bucket] = state
                watcher.last_op_id = tail.last_op_id
                watcher.changed.set()
        if tail.lookups:
            for watchers in self._watchers.values():
                for watcher in watchers:
                    if any(call.is_changed_by(entry) for call in watcher.calls for entry in tail.lookups):
                        watcher.must_look = True
                        watcher.changed.set()
        self.last_op_id = tail.last_op_id

    def _keep(self, bucket: str, tail: Tail) -> None:
        if tail.operations is None:
            self._recent.pop(bucket, None)
            return
        recent = self._recent.setdefault(bucket, _Recent(self.last_op_id))
        recent.extend(tail.operations.get(bucket, ()))

    def _follow(self, watcher: Watcher, buckets: Iterable[str]) -> None:
        wanted = frozenset(buckets)
        for bucket in watcher.buckets - wanted:
            _discard(self._by_bucket, bucket, watcher)
            if bucket not in self._by_bucket:
                self._recent.pop(bucket, None)
        for bucket in wanted - watcher.buckets:
            self._by_bucket.setdefault(bucket, set()).add(watcher)
        watcher.buckets = wanted


def _discard(watchers: dict[K, set[Watcher]], key: K, watcher: Watcher) -> None:
    group = watchers.get(key, set())
    group.discard(watcher)
    if not group:
        watchers.pop(key, None)
