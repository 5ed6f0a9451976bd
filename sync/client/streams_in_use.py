"""Which stream subscriptions the app is using, and through which handles.

The only module that knows: the file stores subscriptions, but not what uses them in this process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from sync.storage.subscriptions import StreamKey

UseT = TypeVar("UseT")


class StreamsInUse(Generic[UseT]):
    """The uses of subscriptions of one database."""

    def __init__(self) -> None:
        self._uses: dict[StreamKey, set[UseT]] = {}

    def add(self, key: StreamKey, use: UseT) -> None:
        """Add a use of a subscription."""
        self._uses.setdefault(key, set()).add(use)

    def remove(self, key: StreamKey, use: UseT) -> None:
        """End a use; the subscription itself lasts for its time to live."""
        uses = self._uses[key]
        uses.remove(use)
        if not uses:
            del self._uses[key]

    def of(self, key: StreamKey) -> tuple[UseT, ...]:
        """All uses of one subscription."""
        return tuple(self._uses.get(key, ()))

    def __iter__(self) -> Iterator[UseT]:
        """All uses."""
        return iter([use for uses in self._uses.values() for use in uses])

    @property
    def keys(self) -> tuple[StreamKey, ...]:
        """The subscriptions that are in use."""
        return tuple(self._uses)
