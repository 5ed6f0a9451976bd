"""Reads that share a hop: after a commit, many watched queries ask at once, and each takes less time than its hop.

Owns which of them go together. What they read, and on which connection, is known elsewhere.
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
"""What takes longer goes by itself: nobody waits for another's slow query."""

_HOP_SECONDS = 0.004


@dataclass(frozen=True, slots=True)
class _Asked:
    function: Callable[[SqlConnection], Any]
    seconds: float
    answer: asyncio.Future[Any]


class SharedReads:
    """Runs quick functions on a reader, several in one hop and on one snapshot, in their order."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._asked: deque[_Asked] = deque()
        self._reading: asyncio.Task[None] | None = None

    async def read(self, function: Callable[[SqlConnection], T], seconds: float | None) -> T:
        """As `ConnectionPool.read`; `seconds` is how long it took the last time, if it ran before.

        Cancelled, it does not wait until a function that shares its hop has ended: it only reads.
        """
        if seconds is None or seconds > QUICK_SECONDS:
            return await self._pool.read(function)
        self._pool.refuse_nested_use()
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked.append(_Asked(function, seconds, answer))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="sync: shared reads")
        return await answer

    async def _read(self) -> None:
        try:
            while self._asked:
                together: list[_Asked] = []
                seconds = 0.0
                while self._asked and seconds < _HOP_SECONDS:
                    together.append(self._asked.popleft())
                    seconds += together[-1].seconds
                await self._read_together(together)
        finally:
            self._reading = None
            for asked in self._asked:
                asked.answer.cancel()
            self._asked.clear()

    async def _read_together(self, together: list[_Asked]) -> None:
        def read(connection: SqlConnection) -> list[tuple[Any, Exception | None]]:
            return [_outcome(asked.function, connection) for asked in together]

        waiting = [asked.answer for asked in together]
        try:
            outcomes = await self._pool.read(read)
        except Exception as error:  # noqa: BLE001 -- it is raised where the answers are waited for
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
    except Exception as error:  # noqa: BLE001 -- of one of several; it is raised where its answer is waited for
        return None, error
