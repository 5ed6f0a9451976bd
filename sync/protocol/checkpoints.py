"""The checkpoint that a connection works towards: a full checkpoint, updated by diffs.

Owns how lines change it, as values. Must not know how it is validated or published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sync.protocol.lines import BucketChecksum, Checkpoint, CheckpointDiff, StreamDescription


@dataclass(frozen=True, slots=True)
class TrackedCheckpoint:
    """A target of the connection.

    Attributes:
        last_op_id: the operation at which all its buckets are consistent.
        write_checkpoint: the newest checkpoint request that it includes, or None.
        buckets: its buckets, by name.
        streams: those of the last full checkpoint; diffs never carry them.
    """

    last_op_id: int
    write_checkpoint: int | None
    buckets: Mapping[str, BucketChecksum]
    streams: tuple[StreamDescription, ...]

    @classmethod
    def begin(cls, checkpoint: Checkpoint) -> TrackedCheckpoint:
        """The target that a full checkpoint names."""
        return cls(
            checkpoint.last_op_id,
            checkpoint.write_checkpoint,
            {bucket.bucket: bucket for bucket in checkpoint.buckets},
            checkpoint.streams,
        )

    def changed_by(self, diff: CheckpointDiff) -> TrackedCheckpoint:
        """The target after a diff."""
        buckets = {name: bucket for name, bucket in self.buckets.items() if name not in diff.removed_buckets}
        buckets.update((bucket.bucket, bucket) for bucket in diff.updated_buckets)
        return TrackedCheckpoint(diff.last_op_id, diff.write_checkpoint, buckets, self.streams)

    def buckets_within(self, priority: int | None) -> tuple[BucketChecksum, ...]:
        """The buckets of a priority and all higher ones (numerically not greater); None for all."""
        return tuple(bucket for bucket in self.buckets.values() if priority is None or bucket.priority <= priority)
