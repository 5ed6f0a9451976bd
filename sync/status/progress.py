"""How far a download has come: operations that are there, of those that the checkpoint needs.

Owns the arithmetic, per priority and per stream, as values without I/O. What the file already holds is counted by
`sync.storage.progress`; the lines are counted by `sync.client.stream_connection`. As in PowerSync's own clients an
operation counts when it has been received, and a checkpoint needs as many as its buckets have gained since they were
last published: it is a good approximation, exact unless the service compacted a bucket meanwhile.
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
        """0.0 … 1.0; 0.0 if nothing is to be downloaded."""
        return self.downloaded_operations / self.total_operations if self.total_operations else 0.0


@dataclass(frozen=True, slots=True)
class SyncProgress(ProgressWithOperations):
    """A whole download: what it comes to in total, and by priority.

    Attributes:
        priorities: each priority of the checkpoint with its own part, the highest (lowest number) first.
    """

    priorities: tuple[tuple[int, ProgressWithOperations], ...] = ()

    def until_priority(self, priority: int) -> ProgressWithOperations:
        """The part of `priority` and all above it (numerically not greater), which becomes visible together."""
        parts = [part for number, part in self.priorities if number <= priority]
        return ProgressWithOperations(
            sum(part.downloaded_operations for part in parts), sum(part.total_operations for part in parts)
        )


@dataclass(frozen=True, slots=True)
class BucketCounts:
    """What the file holds of a bucket: operations at the last publishing, and received since."""

    at_last: int
    since_last: int


@dataclass(frozen=True, slots=True)
class SubscriptionInTarget:
    """What a checkpoint says of one subscription.

    Attributes:
        id: of its row in the file.
        offered: the service knows the stream.
        error: why the service could not resolve it, or None.
        buckets: those that it brings.
    """

    id: int
    offered: bool
    error: str | None
    buckets: tuple[BucketChecksum, ...]


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What a connection has learnt of one subscription; as `SyncStreamStatus` shows it."""

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
    """Counts the operations on the way to one checkpoint.

    Args:
        buckets: of the checkpoint.
        counts: what the file holds of them.
        subscriptions: what the checkpoint says of each.
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
            held = counts.get(bucket.bucket, BucketCounts(0, 0))
            total = max(0, bucket.count - held.at_last)
            self._missing[bucket.bucket] = total
            for count in self._counted_by[bucket.bucket]:
                count.total += total
            self.received(bucket.bucket, held.since_last)

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
        """How far it is, as a value."""
        return SyncProgress(
            self._all.downloaded,
            self._all.total,
            tuple((priority, self._by_priority[priority].value()) for priority in sorted(self._by_priority)),
        )

    def streams(self) -> dict[int, StreamReport]:
        """What is known of each subscription, by the id of its row."""
        return {
            subscription.id: StreamReport(
                subscription.offered,
                subscription.error,
                min((bucket.priority for bucket in subscription.buckets), default=None),
                count.value(),
            )
            for subscription, count in self._subscriptions
        }
