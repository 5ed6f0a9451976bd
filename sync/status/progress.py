"""Download progress: operations received, out of those that the checkpoint needs.

Owns the arithmetic, per priority and per stream, as values without I/O. `sync.storage.progress` counts what the file
already contains, and `sync.client.stream_connection` counts the lines. As in PowerSync's own clients, an operation
counts when it has been received, and a checkpoint needs as many as its buckets have gained since they were last
published: a good approximation, exact unless the service compacted a bucket meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sync.protocol.lines import BucketChecksum


@dataclass(frozen=True, slots=True)
class ProgressWithOperations:
    """A part of a download.

    Attributes:
        downloaded_operations: operations received, 0 … `total_operations`.
        total_operations: operations that the checkpoint needs beyond what was published before.
    """

    downloaded_operations: int
    total_operations: int

    @property
    def downloaded_fraction(self) -> float:
        """0.0 … 1.0; 0.0 if there is nothing to download."""
        return self.downloaded_operations / self.total_operations if self.total_operations else 0.0


@dataclass(frozen=True, slots=True)
class SyncProgress(ProgressWithOperations):
    """A whole download: its total, and its parts by priority.

    Attributes:
        priorities: each priority of the checkpoint with its own part, the highest (lowest number) first.
    """

    priorities: tuple[tuple[int, ProgressWithOperations], ...] = ()

    def until_priority(self, priority: int) -> ProgressWithOperations:
        """The part of `priority` and all higher ones (numerically not greater), which becomes visible together."""
        parts = [part for number, part in self.priorities if number <= priority]
        return ProgressWithOperations(
            sum(part.downloaded_operations for part in parts), sum(part.total_operations for part in parts)
        )


@dataclass(frozen=True, slots=True)
class BucketCounts:
    """What the file contains of a bucket: operations when last published, and received since."""

    at_last: int
    since_last: int


@dataclass(frozen=True, slots=True)
class SubscriptionInTarget:
    """What a checkpoint says about one subscription.

    Attributes:
        id: the id of its row in the file.
        offered: whether the service knows the stream.
        error: why the service could not resolve it, or None.
        buckets: its buckets.
    """

    id: int
    offered: bool
    error: str | None
    buckets: tuple[BucketChecksum, ...]


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What a connection has learned about one subscription, as shown in `SyncStreamStatus`."""

    offered: bool
    error: str | None
    priority: int | None
    progress: ProgressWithOperations


@dataclass(slots=True)
class _Count:
    downloaded: int = 0
    total: int = 0

    def value(self) -> ProgressWithOperations:
        return ProgressWithOperations(self.downloaded, self.total)


class TargetProgress:
    """Counts the operations towards one checkpoint.

    Args:
        buckets: the checkpoint's buckets.
        counts: what the file contains of them.
        subscriptions: what the checkpoint says about each.
    """

    def __init__(
        self,
        buckets: Collection[BucketChecksum],
        counts: Mapping[str, BucketCounts],
        subscriptions: Iterable[SubscriptionInTarget],
    ) -> None:
        self._missing: dict[str, int] = {}
        self._counted_by: dict[str, list[_Count]] = {}
        self._all = _Count()
        self._by_priority: dict[int, _Count] = {}
        self._subscriptions = tuple((subscription, _Count()) for subscription in subscriptions)
        for bucket in buckets:
            self._counted_by[bucket.bucket] = [self._all, self._by_priority.setdefault(bucket.priority, _Count())]
        for subscription, count in self._subscriptions:
            for name in {bucket.bucket for bucket in subscription.buckets}:
                self._counted_by[name].append(count)
        for bucket in buckets:
            known = counts.get(bucket.bucket, BucketCounts(0, 0))
            total = max(0, bucket.count - known.at_last)
            self._missing[bucket.bucket] = total
            for count in self._counted_by[bucket.bucket]:
                count.total += total
            self.received(bucket.bucket, known.since_last)

    def received(self, bucket: str, operations: int) -> None:
        """Count operations of a bucket, as far as the checkpoint needs them."""
        missing = self._missing.get(bucket, 0)
        counted = min(operations, missing)
        if counted:
            self._missing[bucket] = missing - counted
            for count in self._counted_by[bucket]:
                count.downloaded += counted

    @property
    def is_complete(self) -> bool:
        """Whether every operation has been received."""
        return self._all.downloaded == self._all.total

    def progress(self) -> SyncProgress:
        """The current progress, as a value."""
        return SyncProgress(
            self._all.downloaded,
            self._all.total,
            tuple((priority, self._by_priority[priority].value()) for priority in sorted(self._by_priority)),
        )

    def streams(self) -> dict[int, StreamReport]:
        """What is known about each subscription, by the id of its row."""
        return {
            subscription.id: StreamReport(
                subscription.offered,
                subscription.error,
                min((bucket.priority for bucket in subscription.buckets), default=None),
                count.value(),
            )
            for subscription, count in self._subscriptions
        }
