"""The body of a stream request.

Owns its format and encoding. Every subscription carries all three of its keys: otherwise the service rejects it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class BucketRequest(msgspec.Struct, frozen=True):
    """A bucket that this client has up to the operation `after`."""

    name: str
    after: str


class StreamSubscriptionRequest(msgspec.Struct, frozen=True):
    """An explicit subscription to a stream."""

    stream: str
    parameters: dict[str, Any] | None = None
    override_priority: int | None = None


class SubscriptionsRequest(msgspec.Struct, frozen=True):
    """All explicit subscriptions, in the order that the checkpoint's `{"sub": i}` refers to."""

    include_defaults: bool
    subscriptions: tuple[StreamSubscriptionRequest, ...]


class StreamRequest(msgspec.Struct, frozen=True):
    """The body of `POST /sync/stream`."""

    buckets: tuple[BucketRequest, ...]
    client_id: str
    streams: SubscriptionsRequest
    parameters: Mapping[str, Any] = {}
    app_metadata: Mapping[str, str] = {}
    include_checksum: bool = True
    raw_data: bool = True
    binary_data: bool = True

    def encode(self) -> bytes:
        """The body as JSON."""
        return msgspec.json.encode(self)
