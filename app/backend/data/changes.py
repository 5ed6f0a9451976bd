"""That something was committed: wakes who looks at the database for all streams, and tells all when the backend stops.

Lives on the event loop's thread; other threads reach it through `call_soon_threadsafe`. Carries no data: who wakes
reads the database itself, so missed wakes cannot lose anything and many wakes cost one look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Changes:
    """Which users' clients wrote, since it was last asked, and whether the backend stops."""

    def __init__(self) -> None:
        self._users: set[str] = set()
        self._committed = asyncio.Event()
        self._closed = asyncio.Event()
        self._ends: list[Callable[[], None]] = []

    @property
    def closed(self) -> bool:
        """Whether the backend is stopping; streams end when they see it."""
        return self._closed.is_set()

    def notify(self, user_id: str) -> None:
        """A client of `user_id` has committed something."""
        self._users.add(user_id)
        self._committed.set()

    async def committed(self) -> set[str]:
        """Wait for a commit; the users of all since the last call. One task may wait."""
        await self._committed.wait()
        self._committed.clear()
        users, self._users = self._users, set()
        return users

    def close(self) -> None:
        """Tell every stream to end; streams that start later end at once. May be called again."""
        self._closed.set()
        for end in self._ends:
            end()

    def when_closed(self, end: Callable[[], None]) -> None:
        """Let `close` call `end`, now if it was called before."""
        self._ends.append(end)
        if self.closed:
            end()

    async def wait_closed(self) -> None:
        """Return when `close` has been called."""
        await self._closed.wait()
