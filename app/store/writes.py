"""Writes on their way to the local database: how much goes into one, and that each runs to its end.

Owns the limits of a transaction, and the tasks in which writes run. Must not know what is written.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, Final, TypeVar

from app.store.failures import StoreError

T = TypeVar("T")

MAX_CHARACTERS: Final = 10_000
"""The longest text that can be typed for one to-do or list; what came from elsewhere may be longer."""

MAX_ROWS: Final = 200
MAX_BYTES: Final = 64_000
"""The most that goes into one transaction: it is uploaded in one request, and backends limit the size of those."""

_ROW_BYTES: Final = 300
"""What a to-do adds to a request besides its text."""


class Writes:
    """Writes that run to their end even if nobody waits for them any more."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, write: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Begin a write at once; cancelling what is returned only stops the wait for its result."""
        task = asyncio.create_task(write)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return asyncio.shield(task)

    async def flush(self, seconds: float) -> int:
        """See `Store.flush`."""
        tasks = set(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return sum(not task.done() or task.cancelled() or task.exception() is not None for task in tasks)


def refuse_long(texts: Sequence[str], failed: str) -> None:
    """Check that each text is short enough to be stored and uploaded.

    Raises:
        StoreError: one is not.
    """
    if any(len(text) > MAX_CHARACTERS for text in texts):
        raise StoreError(f"{failed}: a text is longer than {MAX_CHARACTERS:,} characters; please shorten it.")


def ends_of_chunks(texts: Sequence[str]) -> Generator[int]:
    """Where to divide texts, so that each part is small enough for one transaction."""
    rows = size = 0
    for index, text in enumerate(texts):
        more = _ROW_BYTES + len(json.dumps(text, ensure_ascii=False).encode(errors="replace"))
        if rows and (rows == MAX_ROWS or size + more > MAX_BYTES):
            yield index
            rows = size = 0
        rows += 1
        size += more
    if rows:
        yield len(texts)
