"""Subscriptions of sync streams, kept in the file so that they outlive the program.

Owns `ps_stream_subscriptions`: what the app asked for, what the service offers, when each was last complete. A
subscription was made by the app if and only if it has a time to live.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from sync.protocol.checkpoints import TrackedCheckpoint
from sync.protocol.lines import StreamDescription
from sync.protocol.requests import StreamSubscriptionRequest, SubscriptionsRequest
from sync.statements import Row, Statements
from sync.status import SyncStreamStatus
from sync.storage.key_values import now_microseconds, optional_time

_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class StreamKey:
    """A stream with parameters: what a subscription is counted by.

    `parameters` is JSON text, `null` for none.
    """

    name: str
    parameters: str

    @classmethod
    def of(cls, name: str, parameters: dict[str, Any] | None) -> StreamKey:
        """The key of a stream with parameters.

        Raises:
            TypeError: the parameters are not JSON.
        """
        return cls(name, json.dumps(parameters, ensure_ascii=False, separators=(", ", ": ")))

    @property
    def decoded_parameters(self) -> dict[str, Any] | None:
        """The parameters as JSON gives them back."""
        return cast("dict[str, Any] | None", json.loads(self.parameters))


@dataclass(frozen=True, slots=True)
class RequestedSubscriptions:
    """The explicit subscriptions as they were sent, and the row of each in the file, in the same order."""

    request: SubscriptionsRequest
    ids: tuple[int, ...] = field(compare=False)


def subscribe(statements: Statements, key: StreamKey, ttl: timedelta, priority: int | None) -> None:
    """Keep a subscription until `ttl` after its last use. Of several priorities the highest (lowest number) holds."""
    seconds = int(ttl.total_seconds())
    statements.execute(
        "INSERT INTO ps_stream_subscriptions(stream_name, local_priority, local_params, ttl, expires_at)"
        " VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (stream_name, local_params) DO UPDATE SET"
        " local_priority = ifnull(min(local_priority, ?2), ifnull(local_priority, ?2)), ttl = ?4, expires_at = ?5",
        (key.name, priority, key.parameters, seconds, now_microseconds() + seconds * _MICROSECONDS),
    )


def renew(statements: Statements, keys: Iterable[StreamKey]) -> None:
    """Put off the expiry of subscriptions that are in use."""
    now = now_microseconds()
    statements.execute_many(
        "UPDATE ps_stream_subscriptions SET expires_at = ? + ttl * 1000000"
        " WHERE stream_name = ? AND local_params = ? AND ttl IS NOT NULL",
        ((now, key.name, key.parameters) for key in keys),
    )


def requested_subscriptions(statements: Statements, *, include_defaults: bool) -> RequestedSubscriptions:
    """Drop what has expired, and collect what to ask the service for."""
    statements.execute(
        "DELETE FROM ps_stream_subscriptions WHERE expires_at < ? OR (ttl IS NULL AND NOT active)",
        (now_microseconds(),),
    )
    rows = statements.execute("SELECT * FROM ps_stream_subscriptions WHERE ttl IS NOT NULL ORDER BY id")
    return RequestedSubscriptions(
        SubscriptionsRequest(
            include_defaults,
            tuple(
                StreamSubscriptionRequest(row["stream_name"], _parameters(row), row["local_priority"]) for row in rows
            ),
        ),
        tuple(row["id"] for row in rows),
    )


def note_offered_streams(statements: Statements, offered: Iterable[StreamDescription]) -> None:
    """Mark which subscriptions the service knows, as of a full checkpoint, and keep one for each default stream."""
    by_name = {stream.name: stream for stream in offered}
    rows = statements.execute("SELECT id, stream_name, ttl FROM ps_stream_subscriptions")
    for row in rows:
        stream = by_name.get(row["stream_name"])
        if stream is None and row["ttl"] is None:
            statements.execute("DELETE FROM ps_stream_subscriptions WHERE id = ?", (row["id"],))
        else:
            statements.execute(
                "UPDATE ps_stream_subscriptions SET active = ?, is_default = ? WHERE id = ?",
                (stream is not None, stream is not None and stream.is_default, row["id"]),
            )
    present = {row["stream_name"] for row in rows}
    statements.execute_many(
        "INSERT INTO ps_stream_subscriptions(stream_name, active, is_default) VALUES (?, TRUE, TRUE)",
        ((stream.name,) for stream in by_name.values() if stream.is_default and stream.name not in present),
    )


def mark_synced(
    statements: Statements,
    checkpoint: TrackedCheckpoint,
    requested: RequestedSubscriptions,
    priority: int | None,
    at: int,
) -> None:
    """Note when (µs since the epoch) subscriptions were last complete.

    A complete checkpoint covers all that the connection asked for, and the default ones; with `priority`, those whose
    buckets are all of that priority or above.
    """
    rows = statements.execute("SELECT id, stream_name FROM ps_stream_subscriptions WHERE ttl IS NULL")
    default_ids = {row["stream_name"]: row["id"] for row in rows}
    ids = {*requested.ids, *default_ids.values()}
    if priority is not None:
        lowest = _lowest_priorities(checkpoint, requested, default_ids)
        ids &= {subscription for subscription, number in lowest.items() if number <= priority}
    statements.execute_many(
        "UPDATE ps_stream_subscriptions SET last_synced_at = ? WHERE id = ?", ((at, number) for number in ids)
    )


def _lowest_priorities(
    checkpoint: TrackedCheckpoint, requested: RequestedSubscriptions, default_ids: dict[str, int]
) -> dict[int, int]:
    """For each subscription that has buckets, the numerically greatest priority among them."""
    lowest: dict[int, int] = {}
    for bucket in checkpoint.buckets.values():
        for reason in bucket.subscriptions:
            subscription: int | None = None
            if reason.sub is not None and reason.sub < len(requested.ids):
                subscription = requested.ids[reason.sub]
            elif reason.default is not None and reason.default < len(checkpoint.streams):
                subscription = default_ids.get(checkpoint.streams[reason.default].name)
            if subscription is not None:
                lowest[subscription] = max(lowest.get(subscription, 0), bucket.priority)
    return lowest


def stream_statuses(statements: Statements) -> tuple[SyncStreamStatus, ...]:
    """All subscriptions, for the status."""
    return tuple(
        SyncStreamStatus(
            row["stream_name"],
            _parameters(row),
            bool(row["active"]),
            bool(row["is_default"]),
            optional_time(row["last_synced_at"]),
        )
        for row in statements.execute("SELECT * FROM ps_stream_subscriptions ORDER BY id")
    )


def _parameters(row: Row) -> dict[str, Any] | None:
    return cast("dict[str, Any] | None", json.loads(row["local_params"]))
