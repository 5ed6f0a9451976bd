"""Watched queries: changed tables → queries that run again.

Owns which query depends on which tables, and when it runs. Bursts of commits coalesce, a slow reader gets only the
newest result, and a result that did not change is not delivered. Must not know HTTP or the sync protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from weakref import WeakSet

from sync.connection import ConnectionPool
from sync.errors import DatabaseClosedError
from sync.statements import SCHEMA_TABLE, Parameters, Row


class WatchedQueries:
    """All watches of one database. A watch that nobody holds any more is forgotten by itself."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._watches: WeakSet[Watch] = WeakSet()
        pool.listen(self._on_commit)

    def watch(self, sql: str, parameters: Parameters, throttle: float) -> Watch:
        """See `PowerSyncDatabase.watch`."""
        watch = Watch(self._pool, sql, parameters, throttle)
        self._watches.add(watch)
        return watch

    def close(self) -> None:
        """End all watches."""
        for watch in list(self._watches):
            watch.end()

    def _on_commit(self, changed: frozenset[str] | None) -> None:
        for watch in list(self._watches):
            watch.on_commit(changed)


class Watch(AsyncIterator[list[Row]]):
    """The results of a watched query, one after the other. Made by `PowerSyncDatabase.watch`; for one reader.

    Ends when it is closed, or when the database is. May be dropped at any point; nothing has to be cleaned up.
    """

    def __init__(self, pool: ConnectionPool, sql: str, parameters: Parameters, throttle: float) -> None:
        self._pool = pool
        self._sql = sql
        self._parameters = parameters
        self._throttle = throttle
        self._tables: frozenset[str] | None = None
        self._schema_changes = 0
        self._wake = asyncio.Event()
        self._wake.set()
        self._ended = False
        self._last: list[Row] | None = None
        self._not_before = 0.0

    async def __anext__(self) -> list[Row]:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            if (wait := self._not_before - loop.time()) > 0:
                await asyncio.sleep(wait)
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            try:
                rows = await self._query()
            except DatabaseClosedError:
                raise StopAsyncIteration from None
            except BaseException:
                self._wake.set()
                raise
            self._not_before = loop.time() + self._throttle
            if self._ended:
                raise StopAsyncIteration
            if rows != self._last:
                self._last = rows
                return rows

    async def aclose(self) -> None:
        """End the watch; a reader that waits for the next result gets the end of the iteration."""
        self.end()

    def end(self) -> None:
        self._ended = True
        self._wake.set()

    def on_commit(self, changed: frozenset[str] | None) -> None:
        if changed is None or SCHEMA_TABLE in changed:
            self._tables = None
            self._schema_changes += 1
        if changed is None or self._tables is None or not self._tables.isdisjoint(changed):
            self._wake.set()

    async def _query(self) -> list[Row]:
        # The functions must not hold this watch: a thread keeps its last one until the next, and with it the watch.
        sql, parameters = self._sql, self._parameters
        if self._tables is None:
            before = self._schema_changes
            tables = await self._pool.read(lambda reader: reader.tables_read_by(sql, parameters))
            if before == self._schema_changes:
                self._tables = tables
        return await self._pool.read(lambda reader: reader.execute(sql, parameters))
