"""Who must look again after a commit: wakes the open sync streams of one user.

Lives on the event loop's thread; other threads reach it through `call_soon_threadsafe`. Carries
no data: a stream that wakes reads the database itself, so missed wakes cannot lose anything and
many wakes cost one look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager


class Changes:
    """Wakes streams by user, and all of them when the backend stops."""

    def __init__(self) -> None:
        self._streams: dict[str, set[asyncio.Event]] = {}
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether the backend is stopping; streams end when they see it."""
        return self._closed.is_set()

    @contextmanager
    def subscribe(self, user_id: str) -> Generator[asyncio.Event]:
        """An event that is set after each commit which concerns `user_id`, and when `close` is called."""
        event = asyncio.Event()
        streams = self._streams.setdefault(user_id, set())
        streams.add(event)
        try:
            yield event
        finally:
            streams.discard(event)
            if not streams and self._streams.get(user_id) is streams:
                del self._streams[user_id]

    def notify(self, user_id: str) -> None:
        """Wake every stream of `user_id`."""
        for event in self._streams.get(user_id, ()):
            event.set()

    def close(self) -> None:
        """Tell every stream to end; streams that start later end at once. May be called again."""
        self._closed.set()
        for streams in self._streams.values():
            for event in streams:
                event.set()

    async def wait_closed(self) -> None:
        """Return when `close` has been called."""
        await self._closed.wait()
