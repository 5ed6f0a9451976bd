"""The end of the operation log, as all open streams see it: read once for each commit, however many streams there are.

A stream that has kept up finds here all that it must send, and does not touch the database; one that lags behind, or
whose buckets may have become others, looks itself. Lives on the event loop's thread. Holds only what streams watch, and
of each bucket at most some hundred operations.
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
_TURNS = 3

K = TypeVar("K")

_log = logging.getLogger(__name__)


class Watcher:
    """What has changed for one stream since it last looked. Only the feed and that stream touch it."""

    def __init__(self, last_op_id: int) -> None:
        self.changed = asyncio.Event()
        """Set when there is something to look at, and when the feed ends."""
        self.last_op_id = last_op_id
        self.states: dict[str, BucketState] = {}
        """New states of watched buckets; while it looks itself, of all."""
        self.write_checkpoint = WriteCheckpoint(None, 0)
        """The client's write checkpoint as it is now."""
        self.must_look = True
        """Whether its buckets may be others now, so that only the database can tell."""
        self.calls: list[LookupCall] = []
        """The lookups that its buckets depend on."""
        self.buckets: frozenset[str] = frozenset()


@dataclass
class _Recent:
    """The newest operations of a bucket: all after `start`."""

    start: int
    operations: list[Operation] = field(default_factory=list[Operation])
    ids: list[int] = field(default_factory=list[int])
    size: int = 0
    pages: dict[tuple[int, int], Page] = field(default_factory=dict[tuple[int, int], Page])
    """Those that were asked for since the last operation came: many streams ask for the same."""

    def extend(self, operations: Iterable[Operation]) -> None:
        self.pages.clear()
        for operation in operations:
            self.operations.append(operation)
            self.ids.append(int(operation.op_id))
            self.size += _size(operation)
        while len(self.operations) > _KEPT_OPS or (self.size > _KEPT_BYTES and self.operations):
            # From the first half on, so that this does not happen at each operation.
            half = (len(self.operations) + 1) // 2
            self.start = self.ids[half - 1]
            self.size -= sum(_size(operation) for operation in self.operations[:half])
            del self.operations[:half], self.ids[:half]


async def _let_others_run() -> None:
    """Wait a share of the time that the woken streams take, so that many streams cannot keep writes from their turn.

    What is committed meanwhile comes to them at once, which costs them less.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    took = loop.time() - started
    if took > _BUSY_SECONDS:
        await asyncio.sleep(took / 2)


def _size(operation: Operation) -> int:
    return len(operation.data) + 200 if isinstance(operation.data, str) else 200


class Feed:
    """Follows the log of one backend while `run` runs."""

    def __init__(self, database: Database, log: OperationLog, changes: Changes) -> None:
        self._database = database
        self._log = log
        self._changes = changes
        self._watchers: dict[tuple[str, str], set[Watcher]] = {}
        self._by_bucket: dict[str, set[Watcher]] = {}
        self._looking: set[Watcher] = set()
        self._recent: dict[str, _Recent] = {}
        self.last_op_id = 0
        self.ended = False
        """Whether the streams of this feed are to end."""
        changes.when_closed(self.end)

    async def start(self) -> None:
        """Begin at the present end of the log. Raises sqlite3.Error if it cannot be read."""
        self.last_op_id = await self._database.read(self._log.last_op_id)

    async def run(self) -> None:
        """Follow the log until cancelled; a database that cannot be read is tried again."""
        users: set[str] = set()
        while True:
            users |= await self._changes.committed()
            try:
                tail, written = await self._look(users)
            except sqlite3.Error as error:
                _log.warning("The open streams wait: the database cannot be read: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._changes.notify("")
                continue
            self._take(tail)
            for owner, checkpoint in written.items():
                for watcher in self._watchers.get(owner, ()):
                    if watcher.write_checkpoint != checkpoint:
                        watcher.write_checkpoint = checkpoint
                        watcher.last_op_id = tail.last_op_id
                        watcher.changed.set()
            users.clear()
            await _let_others_run()

    def end(self) -> None:
        """Tell the streams of this feed to end. May be called again."""
        self.ended = True
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.changed.set()

    @contextmanager
    def watch(self, user_id: str, client_id: str) -> Generator[Watcher]:
        """What changes for one stream from now on."""
        watcher = Watcher(self.last_op_id)
        owner = (user_id, client_id)
        self._watchers.setdefault(owner, set()).add(watcher)
        try:
            yield watcher
        finally:
            _discard(self._watchers, owner, watcher)
            self._looking.discard(watcher)
            self._follow(watcher, ())

    def begin_look(self, watcher: Watcher) -> None:
        """The stream is about to look at the database itself: all that happens meanwhile is noted for it."""
        watcher.must_look = False
        watcher.states.clear()
        self._looking.add(watcher)

    def end_look(
        self, watcher: Watcher, buckets: Iterable[str], last_op_id: int, write_checkpoint: WriteCheckpoint
    ) -> None:
        """The stream has seen the database as it was at `last_op_id`, and syncs `buckets` now."""
        self._looking.discard(watcher)
        if write_checkpoint.requests > watcher.write_checkpoint.requests:
            watcher.write_checkpoint = write_checkpoint
        self._follow(watcher, buckets)
        watcher.last_op_id = max(watcher.last_op_id, last_op_id)

    def page(self, bucket: str, *, after: int, up_to: int) -> Page | None:
        """What follows `after` in a bucket, if all of it is among the newest operations; else None."""
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

    async def _look(self, users: set[str]) -> tuple[Tail, dict[tuple[str, str], WriteCheckpoint]]:
        def look(connection: sqlite3.Connection) -> tuple[Tail, dict[tuple[str, str], WriteCheckpoint]]:
            tail = self._log.tail(connection, after=self.last_op_id, limit=_TAIL_OPS)
            return tail, checkpoints.of_users(connection, users)

        return await self._database.read(look)

    def _take(self, tail: Tail) -> None:
        for bucket, state in tail.states.items():
            watchers = self._by_bucket.get(bucket)
            if watchers is not None:
                self._keep(bucket, tail)
            for watcher in (*(watchers or ()), *self._looking):
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
    those = watchers.get(key, set())
    those.discard(watcher)
    if not those:
        watchers.pop(key, None)
