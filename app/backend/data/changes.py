"""Notifications of commits, for the task that reads the database on behalf of all streams, and of the shutdown.

Not thread-safe: use it on the event loop's thread, and from other threads through `call_soon_threadsafe`. Carries no
data: the woken task reads the database itself, so nothing can be lost and several notifications cost one read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Changes:
    """The users whose clients wrote since the last call of `committed`, and whether the backend is stopping."""

    def __init__(self) -> None:
        self._users: set[str] = set()
        self._committed = asyncio.Event()
        self._closed = asyncio.Event()
        self._ends: list[Callable[[], None]] = []

    @property
    def closed(self) -> bool:
        """Whether the backend is stopping; streams end when they see this."""
        return self._closed.is_set()

    def notify(self, user_id: str) -> None:
        """Report that a client of `user_id` has committed something."""
        self._users.add(user_id)
        self._committed.set()

    async def committed(self) -> set[str]:
        """Wait for a commit and return the users of all commits since the last call. Only one task may wait."""
        await self._committed.wait()
        self._committed.clear()
        users, self._users = self._users, set()
        return users

    def close(self) -> None:
        """End all streams; streams that start later end immediately. Can be called more than once."""
        self._closed.set()
        for end in self._ends:
            end()

    def when_closed(self, end: Callable[[], None]) -> None:
        """Register `end` to be called by `close`, or call it now if already closed."""
        self._ends.append(end)
        if self.closed:
            end()

    async def wait_closed(self) -> None:
        """Wait until `close` has been called."""
        await self._closed.wait()
