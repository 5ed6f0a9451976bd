"""The wire format of the sync protocol: typed lines, the request body, checksums.

Pure functions and values. Must not do I/O, nor know SQLite or HTTP.
"""

from sync.protocol.checkpoints import TrackedCheckpoint
from sync.protocol.lines import (
    BucketChecksum,
    Checkpoint,
    CheckpointComplete,
    CheckpointDiff,
    DataLine,
    KeepAlive,
    Line,
    Operation,
    PartialCheckpointComplete,
    StreamDescription,
    SubscriptionReason,
    UnknownLine,
    decode_line,
)
from sync.protocol.requests import BucketRequest, StreamRequest, StreamSubscriptionRequest, SubscriptionsRequest

__all__ = [
    "BucketChecksum",
    "BucketRequest",
    "Checkpoint",
    "CheckpointComplete",
    "CheckpointDiff",
    "DataLine",
    "KeepAlive",
    "Line",
    "Operation",
    "PartialCheckpointComplete",
    "StreamDescription",
    "StreamRequest",
    "StreamSubscriptionRequest",
    "SubscriptionReason",
    "SubscriptionsRequest",
    "TrackedCheckpoint",
    "UnknownLine",
    "decode_line",
]
