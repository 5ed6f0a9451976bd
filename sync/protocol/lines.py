"""The lines of a sync stream, as typed values.

Owns their decoding from JSON. A line is one JSON object with one key that names its kind; unknown kinds are accepted as
such, because the service may add new ones.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sync.errors import ProtocolError


class SubscriptionReason(msgspec.Struct, frozen=True):
    """Why a bucket is in a checkpoint: an index into its `streams`, or into the request's `subscriptions`."""

    default: int | None = None
    sub: int | None = None


class BucketChecksum(msgspec.Struct, frozen=True):
    """A bucket of a checkpoint.

    `checksum` is 32 bits, signed or unsigned: compare modulo 2³². `count` is the bucket's number of operations.
    """

    bucket: str
    checksum: int
    priority: int = 3
    count: int = 0
    subscriptions: tuple[SubscriptionReason, ...] = ()


class StreamError(msgspec.Struct, frozen=True):
    """A subscription that the service could not resolve: its index in the request, or "default"."""

    message: str
    subscription: int | str = "default"


class StreamDescription(msgspec.Struct, frozen=True):
    """A stream that the service knows and this connection uses."""

    name: str
    is_default: bool
    errors: tuple[StreamError, ...] = ()


class Checkpoint(msgspec.Struct, frozen=True):
    """The full target of this connection. Buckets that it does not name are to be deleted."""

    last_op_id: int
    buckets: tuple[BucketChecksum, ...]
    write_checkpoint: int | None = None
    streams: tuple[StreamDescription, ...] = ()


class CheckpointDiff(msgspec.Struct, frozen=True):
    """A change to the target. An absent `write_checkpoint` means there is none."""

    last_op_id: int
    updated_buckets: tuple[BucketChecksum, ...] = ()
    removed_buckets: tuple[str, ...] = ()
    write_checkpoint: int | None = None


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One operation of a bucket's log. MOVE and CLEAR carry a checksum and nothing else."""

    op_id: int
    op: Literal["PUT", "REMOVE", "MOVE", "CLEAR"]
    checksum: int
    object_type: str | None = None
    object_id: str | None = None
    subkey: str | None = None
    data: str | None = None


class DataLine(msgspec.Struct, frozen=True):
    """Operations of one bucket, in the order of their ids."""

    bucket: str
    data: tuple[Operation, ...]
    after: int | None = None
    next_after: int | None = None
    has_more: bool = False

    def last_after(self, last: int) -> int:
        """The id of the last operation, given that the bucket was received up to the operation `last`.

        Raises:
            ProtocolError: the ids do not increase: something was sent twice, or out of order.
        """
        for operation in self.data:
            if operation.op_id <= last:
                raise ProtocolError(
                    f"The service sent operation {operation.op_id} of bucket {self.bucket} after operation {last}."
                )
            last = operation.op_id
        return last


class CheckpointComplete(msgspec.Struct, frozen=True):
    """The whole target has been sent."""

    last_op_id: int


class PartialCheckpointComplete(msgspec.Struct, frozen=True):
    """All buckets of this and higher priorities (numerically not greater) have been sent."""

    last_op_id: int
    priority: int


class KeepAlive(msgspec.Struct, frozen=True):
    """The connection is alive; the token expires in this many seconds (0: it has expired)."""

    token_expires_in: int


class UnknownLine(msgspec.Struct, frozen=True):
    """A kind of line that this client does not know."""

    kinds: tuple[str, ...]


Line = Checkpoint | CheckpointDiff | DataLine | CheckpointComplete | PartialCheckpointComplete | KeepAlive | UnknownLine


class _Envelope(msgspec.Struct):
    checkpoint: Checkpoint | None = None
    checkpoint_diff: CheckpointDiff | None = None
    data: DataLine | None = None
    checkpoint_complete: CheckpointComplete | None = None
    partial_checkpoint_complete: PartialCheckpointComplete | None = None
    token_expires_in: int | None = None


# Ids are decimal strings of 64-bit integers: lax decoding takes them as integers.
_decoder = msgspec.json.Decoder(_Envelope, strict=False)


def decode_line(text: bytes | bytearray | memoryview) -> Line:
    """Decode one line (without its newline).

    Raises:
        ProtocolError: it is not valid JSON, or a known kind with invalid contents.
    """
    try:
        envelope = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"The service sent an invalid line: {error}.") from error
    if envelope.data is not None:
        return envelope.data
    if envelope.token_expires_in is not None:
        return KeepAlive(envelope.token_expires_in)
    line = (
        envelope.checkpoint
        or envelope.checkpoint_diff
        or envelope.checkpoint_complete
        or envelope.partial_checkpoint_complete
    )
    if line is not None:
        return line
    try:
        return UnknownLine(tuple(msgspec.json.decode(text, type=dict[str, msgspec.Raw])))
    except UnicodeDecodeError as error:  # in a key, which the other decoder skips without decoding
        raise ProtocolError(f"The service sent an invalid line: {error}.") from error
