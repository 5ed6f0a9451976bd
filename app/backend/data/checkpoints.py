"""Write checkpoints: the counter per user and client that tells a client its uploads have arrived.

Owns the table `write_checkpoints`. All ways of asking share one counter. Plain SQL on a
connection whose transaction the caller holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

MAX_CHECKPOINT = 2**63 - 1


class WriteCheckpoint(NamedTuple):
    """The counter's value, and how often it was asked for; (None, 0) if never."""

    value: int | None
    requests: int


def current(connection: sqlite3.Connection, user_id: str, client_id: str) -> WriteCheckpoint:
    """The client's present write checkpoint."""
    row = connection.execute(
        "SELECT checkpoint, requests FROM write_checkpoints WHERE user_id = ? AND client_id = ?",
        [user_id, client_id],
    ).fetchone()
    return WriteCheckpoint(None, 0) if row is None else WriteCheckpoint(*row)


def advance(connection: sqlite3.Connection, user_id: str, client_id: str) -> int:
    """Count the client's write checkpoint up by one and return it."""
    value = current(connection, user_id, client_id).value or 0
    return raise_to(connection, user_id, client_id, min(value + 1, MAX_CHECKPOINT))


def raise_to(connection: sqlite3.Connection, user_id: str, client_id: str, checkpoint: int) -> int:
    """Set the client's write checkpoint to `checkpoint` unless it is higher already, and return it.

    A request that changes nothing still counts: the client waits to see its checkpoint again.
    """
    row = connection.execute(
        "INSERT INTO write_checkpoints VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE"
        " SET checkpoint = max(checkpoint, excluded.checkpoint), requests = requests + 1"
        " RETURNING checkpoint",
        [user_id, client_id, checkpoint],
    ).fetchone()
    return int(row[0])


def of_users(connection: sqlite3.Connection, user_ids: Iterable[str]) -> dict[tuple[str, str], WriteCheckpoint]:
    """The present write checkpoints of all clients of these users, by user and client."""
    rows = connection.execute(
        "SELECT user_id, client_id, checkpoint, requests FROM write_checkpoints"
        " WHERE user_id IN (SELECT value FROM json_each(?))",
        [msgspec.json.encode(list(user_ids)).decode()],
    )
    return {(user_id, client_id): WriteCheckpoint(*values) for user_id, client_id, *values in rows}
