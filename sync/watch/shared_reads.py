"""Reads that share a hop: after a commit, many watched queries run at once, and each takes less time than its hop.

Owns which of them run together. Must not know what they read, nor on which connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sync.sqlite.pool import ConnectionPool
from sync.sqlite.sql_connection import SqlConnection

T = TypeVar("T")

QUICK_SECONDS = 0.001
"""Slower queries run alone, so that no query waits for another's slow one."""

_HOP_SECONDS = 0.004


@dataclass(frozen=True, slots=True)
class _Request:
    function: Callable[[SqlConnection], Any]
    seconds: float
    answer: asyncio.Future[Any]


class SharedReads:
    """Runs quick functions on a reader, several in one hop and on one snapshot, in order."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._pending: deque[_Request] = deque()
        self._reading: asyncio.Task[None] | None = None

    async def read(self, function: Callable[[SqlConnection], T], seconds: float | None) -> T:
        """Like `ConnectionPool.read`; `seconds` is how long the function took the last time, if it ran before.

        If cancelled, does not wait for functions that share its hop to end: they only read.
        """
        if seconds is None or seconds > QUICK_SECONDS:
            return await self._pool.read(function)
        self._pool.refuse_nested_use()
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append(_Request(function, seconds, answer))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="sync: shared reads")
        return await answer

    async def _read(self) -> None:
        try:
            while self._pending:
                together: list[_Request] = []
                seconds = 0.0
                while self._pending and seconds < _HOP_SECONDS:
                    together.append(self._pending.popleft())
                    seconds += together[-1].seconds
                await self._read_together(together)
        finally:
            self._reading = None
            for request in self._pending:
                request.answer.cancel()
            self._pending.clear()

    async def _read_together(self, together: list[_Request]) -> None:
        def read(connection: SqlConnection) -> list[tuple[Any, Exception | None]]:
            return [_outcome(request.function, connection) for request in together]

        waiting = [request.answer for request in together]
        try:
            outcomes = await self._pool.read(read)
        except Exception as error:  # noqa: BLE001 -- raised where the results are awaited
            outcomes = [(None, error)] * len(waiting)
        except BaseException:
            for answer in waiting:
                answer.cancel()
            raise
        for answer, (value, error) in zip(waiting, outcomes, strict=True):
            if answer.cancelled():
                continue
            if error is None:
                answer.set_result(value)
            else:
                answer.set_exception(error)


def _outcome(function: Callable[[SqlConnection], Any], connection: SqlConnection) -> tuple[Any, Exception | None]:
    try:
        return function(connection), None
    except Exception as error:  # noqa: BLE001 -- affects one of several; raised where its result is awaited
        return None, error
