"""The streams that this backend offers, and the buckets between rows and subscriptions.

Both directions live here, so that they cannot drift apart: which bucket a row belongs to, and
which buckets a request asks for. Pure; no SQL, no HTTP.

Every bucket name carries the user whom it is for. What one user's bucket holds is therefore out
of reach for any other token, even if a deleted list's id is used again by somebody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from app.backend.errors import RequestError

MAX_BUCKETS = 1000
_DEFAULT_PRIORITY = 3


class Subscription(msgspec.Struct):
    """One explicit stream subscription of a request; all three keys are needed."""

    stream: str
    parameters: dict[str, Any] | None
    override_priority: Annotated[int, msgspec.Meta(ge=0, le=3)] | None


class StreamSelection(msgspec.Struct):
    """The streams that a request selects."""

    include_defaults: bool = True
    subscriptions: list[Subscription] = []


class BucketPosition(msgspec.Struct):
    """How far the client has a bucket: the op id after which to go on."""

    name: str
    after: Annotated[str, msgspec.Meta(pattern="^[0-9]{1,19}$")]


class SyncRequest(msgspec.Struct):
    """The body of a stream request; keys that this backend does not need are ignored."""

    buckets: list[BucketPosition] | None = None
    client_id: str | None = None
    raw_data: bool | None = None
    streams: StreamSelection | None = None


@dataclass
class BucketDescription:
    """A bucket of a connection: priority (0 first) and the subscriptions that it serves."""

    name: str
    priority: int
    subscriptions: list[dict[str, int]] = field(default_factory=list[dict[str, int]])


@dataclass(frozen=True)
class Target:
    """What a connection syncs: its buckets in the order of their streams, and those streams."""

    buckets: tuple[BucketDescription, ...]
    streams: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class _Stream:
    name: str
    is_default: bool
    parameters: tuple[str, ...]


_STREAMS = (_Stream("lists", is_default=True, parameters=()), _Stream("todos", is_default=False, parameters=("list",)))


def _bucket_name(prefix: str, stream: str, *parameters: Any) -> str:
    return f"{prefix}#{stream}|0{msgspec.json.encode(parameters).decode()}"


def lists_bucket(prefix: str, user_id: str) -> str:
    """The bucket of all lists that `user_id` owns."""
    return _bucket_name(prefix, "lists", user_id)


def todos_bucket(prefix: str, list_id: str, user_id: str) -> str:
    """The bucket of the to-dos in `list_id`, which `user_id` owns."""
    return _bucket_name(prefix, "todos", list_id, user_id)


def _subscribed_bucket(prefix: str, stream: _Stream, parameters: Mapping[str, Any] | None, user_id: str) -> str:
    # A parameter that is missing or no text equals no row's value: null names a bucket that stays empty.
    given = [(parameters or {}).get(name) for name in stream.parameters]
    texts = [value if isinstance(value, str) else None for value in given]
    return _bucket_name(prefix, stream.name, *texts, user_id)


def resolve(request: SyncRequest, *, prefix: str, user_id: str) -> Target:
    """The buckets and streams that `request` selects for `user_id`; unknown streams are left out.

    Raises RequestError 500 PSYNC_S2305 for more than 1,000 buckets, as the service does.
    """
    selection = request.streams or StreamSelection()
    buckets: dict[str, BucketDescription] = {}
    streams: list[dict[str, Any]] = []
    for stream in _STREAMS:
        by_default = stream.is_default and selection.include_defaults
        subscribed = [
            (index, subscription)
            for index, subscription in enumerate(selection.subscriptions)
            if subscription.stream == stream.name
        ]
        if not by_default and not subscribed:
            continue
        for index, subscription in subscribed:
            name = _subscribed_bucket(prefix, stream, subscription.parameters, user_id)
            priority = subscription.override_priority
            _serve(buckets, name, _DEFAULT_PRIORITY if priority is None else priority, {"sub": index})
        if by_default:
            name = _subscribed_bucket(prefix, stream, None, user_id)
            _serve(buckets, name, _DEFAULT_PRIORITY, {"default": len(streams)})
        streams.append({"name": stream.name, "is_default": stream.is_default, "errors": []})
    if len(buckets) > MAX_BUCKETS:
        description = f"Too many buckets on one connection: {len(buckets)}, at most {MAX_BUCKETS}."
        raise RequestError(500, "PSYNC_S2305", description, name="ServiceError")
    return Target(tuple(buckets.values()), tuple(streams))


def _serve(buckets: dict[str, BucketDescription], name: str, priority: int, source: dict[str, int]) -> None:
    bucket = buckets.setdefault(name, BucketDescription(name, priority))
    bucket.priority = min(bucket.priority, priority)
    bucket.subscriptions.append(source)
