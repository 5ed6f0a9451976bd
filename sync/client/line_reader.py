"""The lines of a stream's body: read ahead while earlier ones are processed, and delivered in batches.

Owns the buffer between the connection and its consumer, and its size. Must not know what a line means.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from sync.errors import ProtocolError
from sync.sqlite.cancellation import end_task

MAX_LINE_BYTES = 256 << 20
"""Longer lines do not occur in this protocol."""

_AHEAD_BYTES = 1 << 20
"""How much is read ahead. Beyond it nothing more is read, and the service waits."""

_AT_ONCE_BYTES = 256 << 10
"""The size of a batch, which may exceed it by one line."""


@asynccontextmanager
async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncGenerator[Lines]:
    """Split a body into lines, without their line breaks. Reading stops at the end of the block.

    Lines received before the body ended or the connection broke are delivered first.

    Args:
        chunks: the body, split anywhere.

    Raises (the steps of the iterator):
        ProtocolError: a line does not end.
        Exception: whatever `chunks` raises.
    """
    ahead = Lines()
    reading = asyncio.create_task(ahead.read(chunks), name="sync: read ahead")
    try:
        yield ahead
    finally:
        await end_task(reading)


class Lines:
    """The lines of a body, as they arrive: an async iterator of batches."""

    def __init__(self) -> None:
        self._are_awaited = False
        self._given = self._give()
        self._lines: deque[bytearray] = deque()
        self._size = 0
        self._error: Exception | None = None
        self._ended = False
        self._came = asyncio.Event()
        self._taken = asyncio.Event()

    async def read(self, chunks: AsyncIterator[bytes]) -> None:
        """Read until the end. A failure is kept for the consumer."""
        rest = bytearray()
        try:
            async for chunk in chunks:
                rest += chunk
                if b"\n" in chunk:
                    *complete, rest = rest.split(b"\n")
                    self._lines += complete
                    self._size += sum(map(len, complete))
                    self._came.set()
                elif len(rest) > MAX_LINE_BYTES:
                    self._error = ProtocolError("The service sent a line that is too long.")
                    return
                while self._size > _AHEAD_BYTES:
                    self._taken.clear()
                    await self._taken.wait()
        except Exception as error:  # noqa: BLE001 - raised where the lines are consumed
            self._error = error
        finally:
            self._ended = True
            self._came.set()

    @property
    def are_all_taken(self) -> bool:
        """Whether the consumer has processed everything received, and is waiting for more."""
        return self._are_awaited and not self._came.is_set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[bytearray]:
        """The next lines, at least one, and not so many that they would block the event loop."""
        return await anext(self._given)

    async def _give(self) -> AsyncGenerator[list[bytearray]]:
        while True:
            self._are_awaited = True
            await self._came.wait()
            self._are_awaited = False
            self._came.clear()
            while self._lines:
                several: list[bytearray] = []
                size = 0
                while self._lines and size < _AT_ONCE_BYTES:
                    several.append(self._lines.popleft())
                    size += len(several[-1])
                self._size -= size
                self._taken.set()
                yield several
            if self._ended:
                if self._error is not None:
                    raise self._error
                return
