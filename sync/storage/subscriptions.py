"""Subscriptions to sync streams, stored in the file so that they outlive the program.

Owns `ps_stream_subscriptions`: what the app subscribed to, what the service offers, when each was last complete. A
subscription was made by the app if and only if it has a time to live.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from sync.protocol.checkpoints import TrackedCheckpoint
from sync.protocol.lines import BucketChecksum, StreamDescription, SubscriptionReason
from sync.protocol.requests import StreamSubscriptionRequest, SubscriptionsRequest
from sync.sqlite.sql_connection import Row, SqlConnection
from sync.status.progress import SubscriptionInTarget
from sync.status.status import SyncStreamStatus
from sync.storage.key_values import now_microseconds, optional_time

_MICROSECONDS = 1_000_000

_LEASE_SECONDS = 60
"""A subscription in use is kept at least this long, however short its time to live; it is renewed while in use."""


@dataclass(frozen=True, slots=True)
class StreamKey:
    """A stream with parameters: the identity of a subscription.

    `parameters` is JSON text, `null` for none, formatted as JavaScript does: the file identifies subscriptions by this
    text, and those of the official SDKs must be found again.
    """

    name: str
    parameters: str

    @classmethod
    def of(cls, name: str, parameters: dict[str, Any] | None) -> StreamKey:
        """The key of a stream with parameters.

        Raises:
            TypeError: the parameters cannot be encoded as JSON.
            ValueError: they contain NaN or an infinity, which JSON does not support.
        """
        return cls(name, json.dumps(parameters, ensure_ascii=False, separators=(",", ":"), allow_nan=False))

    @property
    def decoded_parameters(self) -> dict[str, Any] | None:
        """The parameters, decoded from JSON."""
        return cast("dict[str, Any] | None", json.loads(self.parameters))


@dataclass(frozen=True, slots=True)
class RequestedSubscriptions:
    """The explicit subscriptions as they were sent, and the row of each in the file, in the same order."""

    request: SubscriptionsRequest
    ids: tuple[int, ...] = field(compare=False)


def subscribe(connection: SqlConnection, key: StreamKey, ttl: timedelta, priority: int | None) -> StreamKey:
    """Store a subscription until `ttl` after its last use. Of several priorities, the highest (lowest number) applies.

    Returns its key as stored in the file: another SDK may have formatted the same parameters differently.
    """
    key = stored_key(connection, key)
    seconds = int(ttl.total_seconds())
    connection.execute(
        "INSERT INTO ps_stream_subscriptions(stream_name, local_priority, local_params, ttl, expires_at)"
        " VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (stream_name, local_params) DO UPDATE SET"
        " local_priority = ifnull(min(local_priority, ?2), ifnull(local_priority, ?2)), ttl = ?4,"
        " expires_at = max(ifnull(expires_at, 0), ?5)",
        (
            key.name,
            priority,
            key.parameters,
            seconds,
            now_microseconds() + max(seconds, _LEASE_SECONDS) * _MICROSECONDS,
        ),
    )
    return key


def unsubscribe_all(connection: SqlConnection, key: StreamKey) -> None:
    """End a subscription immediately. A default stream stays subscribed as such."""
    connection.execute(
        "DELETE FROM ps_stream_subscriptions WHERE stream_name = ? AND local_params = ?"
        " AND NOT (is_default AND local_params = 'null')",
        (key.name, key.parameters),
    )
    connection.execute(
        "UPDATE ps_stream_subscriptions SET ttl = NULL, expires_at = NULL, local_priority = NULL"
        " WHERE stream_name = ? AND local_params = ?",
        (key.name, key.parameters),
    )


def renew(connection: SqlConnection, keys: Iterable[StreamKey]) -> None:
    """Postpone the expiry of subscriptions in use."""
    now = now_microseconds()
    connection.execute_many(
        "UPDATE ps_stream_subscriptions SET expires_at = max(expires_at, ? + max(ttl, ?) * 1000000)"
        " WHERE stream_name = ? AND local_params = ? AND ttl IS NOT NULL",
        ((now, _LEASE_SECONDS, key.name, key.parameters) for key in keys),
    )


def end_use(connection: SqlConnection, key: StreamKey, ttl: timedelta) -> None:
    """Start the time to live that a use requested, unless another use keeps the subscription longer."""
    now = now_microseconds()
    connection.execute(
        "UPDATE ps_stream_subscriptions SET expires_at = max(iif(expires_at > ?, expires_at, 0), ?)"
        " WHERE stream_name = ? AND local_params = ? AND ttl IS NOT NULL",
        (
            now + _LEASE_SECONDS * _MICROSECONDS,
            now + int(ttl.total_seconds()) * _MICROSECONDS,
            key.name,
            key.parameters,
        ),
    )


def stored_key(connection: SqlConnection, key: StreamKey) -> StreamKey:
    """The key of the same subscription as formatted in the file, or as given if it is not there."""
    rows = connection.execute("SELECT local_params FROM ps_stream_subscriptions WHERE stream_name = ?", (key.name,))
    texts = {row["local_params"] for row in rows}
    if key.parameters in texts:
        return key
    parameters = key.decoded_parameters
    same = (text for text in texts if json.loads(text) == parameters)
    return StreamKey(key.name, next(same, key.parameters))


def delete_all_except(connection: SqlConnection, keys: Iterable[StreamKey]) -> None:
    """Delete all subscriptions except those in `keys` that have a time to live, which are reset as if new."""
    kept = {(key.name, key.parameters) for key in keys}
    for row in connection.execute("SELECT id, stream_name, local_params, ttl FROM ps_stream_subscriptions"):
        if row["ttl"] is not None and (row["stream_name"], row["local_params"]) in kept:
            connection.execute(
                "UPDATE ps_stream_subscriptions SET active = FALSE, is_default = FALSE, last_synced_at = NULL"
                " WHERE id = ?",
                (row["id"],),
            )
        else:
            connection.execute("DELETE FROM ps_stream_subscriptions WHERE id = ?", (row["id"],))


def requested_subscriptions(connection: SqlConnection, *, include_defaults: bool) -> RequestedSubscriptions:
    """Delete expired subscriptions, and collect those to request from the service."""
    connection.execute(
        "DELETE FROM ps_stream_subscriptions WHERE expires_at < ? OR (ttl IS NULL AND NOT active)",
        (now_microseconds(),),
    )
    rows = connection.execute("SELECT * FROM ps_stream_subscriptions WHERE ttl IS NOT NULL ORDER BY id")
    return RequestedSubscriptions(
        SubscriptionsRequest(
            include_defaults,
            tuple(
                StreamSubscriptionRequest(row["stream_name"], _parameters(row), row["local_priority"]) for row in rows
            ),
        ),
        tuple(row["id"] for row in rows),
    )


def note_offered_streams(connection: SqlConnection, offered: Iterable[StreamDescription]) -> None:
    """Mark the subscriptions that the service knows, as of a full checkpoint, and store one for each default stream."""
    by_name = {stream.name: stream for stream in offered}
    rows = connection.execute("SELECT id, stream_name, ttl FROM ps_stream_subscriptions")
    for row in rows:
        stream = by_name.get(row["stream_name"])
        if stream is None and row["ttl"] is None:
            connection.execute("DELETE FROM ps_stream_subscriptions WHERE id = ?", (row["id"],))
        else:
            connection.execute(
                "UPDATE ps_stream_subscriptions SET active = ?, is_default = ? WHERE id = ?",
                (stream is not None, stream is not None and stream.is_default, row["id"]),
            )
    present = {row["stream_name"] for row in rows}
    connection.execute_many(
        "INSERT INTO ps_stream_subscriptions(stream_name, active, is_default) VALUES (?, TRUE, TRUE)",
        ((stream.name,) for stream in by_name.values() if stream.is_default and stream.name not in present),
    )


def mark_synced(
    connection: SqlConnection,
    checkpoint: TrackedCheckpoint,
    requested: RequestedSubscriptions,
    priority: int | None,
    at: int,
) -> None:
    """Record when (µs since the epoch) subscriptions were last complete.

    A complete checkpoint covers all that the connection requested, and the default ones; with `priority`, those whose
    buckets all have that priority or a higher one.
    """
    ids = {*requested.ids, *_default_ids(connection).values()}
    if priority is not None:
        ids &= {
            subscription.id
            for subscription in in_target(connection, checkpoint, requested)
            if subscription.buckets and max(bucket.priority for bucket in subscription.buckets) <= priority
        }
    connection.execute_many(
        "UPDATE ps_stream_subscriptions SET last_synced_at = ? WHERE id = ?", ((at, number) for number in ids)
    )


def in_target(
    connection: SqlConnection, checkpoint: TrackedCheckpoint, requested: RequestedSubscriptions
) -> tuple[SubscriptionInTarget, ...]:
    """What a checkpoint says about each requested subscription, and about the default ones."""
    default_ids = _default_ids(connection)
    names = [subscription.stream for subscription in requested.request.subscriptions]
    subscribed = {**dict(zip(requested.ids, names, strict=True)), **{id_: name for name, id_ in default_ids.items()}}
    buckets: dict[int, list[BucketChecksum]] = {}
    for bucket in checkpoint.buckets.values():
        for reason in bucket.subscriptions:
            subscription = _subscription_of(reason, checkpoint, requested, default_ids)
            if subscription is not None:
                buckets.setdefault(subscription, []).append(bucket)
    errors: dict[int, list[str]] = {}
    for stream in checkpoint.streams:
        for error in stream.errors:
            if isinstance(error.subscription, int):
                subscription = requested.ids[error.subscription] if error.subscription < len(requested.ids) else None
            else:
                subscription = default_ids.get(stream.name)
            if subscription is not None:
                errors.setdefault(subscription, []).append(error.message)
    offered = {stream.name for stream in checkpoint.streams}
    return tuple(
        SubscriptionInTarget(
            subscription,
            name in offered,
            "; ".join(errors.get(subscription, ())) or None,
            tuple(buckets.get(subscription, ())),
        )
        for subscription, name in subscribed.items()
    )


def _default_ids(connection: SqlConnection) -> dict[str, int]:
    rows = connection.execute("SELECT id, stream_name FROM ps_stream_subscriptions WHERE ttl IS NULL")
    return {row["stream_name"]: row["id"] for row in rows}


def _subscription_of(
    reason: SubscriptionReason,
    checkpoint: TrackedCheckpoint,
    requested: RequestedSubscriptions,
    default_ids: dict[str, int],
) -> int | None:
    """The row id of the subscription that a bucket belongs to, or None if the app has ended it meanwhile."""
    if reason.sub is not None:
        return requested.ids[reason.sub] if reason.sub < len(requested.ids) else None
    if reason.default is not None and reason.default < len(checkpoint.streams):
        return default_ids.get(checkpoint.streams[reason.default].name)
    return None


def stream_statuses(connection: SqlConnection) -> tuple[SyncStreamStatus, ...]:
    """All subscriptions, for the status."""
    return tuple(
        SyncStreamStatus(
            name=row["stream_name"],
            parameters=_parameters(row),
            active=bool(row["active"]),
            is_default=bool(row["is_default"]),
            last_synced_at=optional_time(row["last_synced_at"]),
            has_explicit_subscription=row["ttl"] is not None,
            # A stream that was once complete without being active was not offered then.
            offered=True if row["active"] else None if row["last_synced_at"] is None else False,
            subscription_id=row["id"],
        )
        for row in connection.execute("SELECT * FROM ps_stream_subscriptions ORDER BY id")
    )


def _parameters(row: Row) -> dict[str, Any] | None:
    return cast("dict[str, Any] | None", json.loads(row["local_params"]))
