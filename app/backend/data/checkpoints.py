"""Write checkpoints: a counter per user and client, by which clients see that their uploads have arrived.

Owns the table `write_checkpoints`. All endpoints that create write checkpoints share this counter. Plain SQL on a
connection whose transaction belongs to the caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

MAX_CHECKPOINT = 2**63 - 1


class WriteCheckpoint(NamedTuple):
    """The value of the counter, and how often a checkpoint was requested; (None, 0) if never."""

    value: int | None
    requests: int


def current(connection: sqlite3.Connection, user_id: str, client_id: str) -> WriteCheckpoint:
    """The client's current write checkpoint."""
    row = connection.execute(
        "SELECT checkpoint, requests FROM write_checkpoints WHERE user_id = ? AND client_id = ?",
        [user_id, client_id],
    ).fetchone()
    return WriteCheckpoint(None, 0) if row is None else WriteCheckpoint(*row)


def advance(connection: sqlite3.Connection, user_id: str, client_id: str) -> int:
    """Increment the client's write checkpoint and return it."""
    value = current(connection, user_id, client_id).value or 0
    return raise_to(connection, user_id, client_id, min(value + 1, MAX_CHECKPOINT))


def raise_to(connection: sqlite3.Connection, user_id: str, client_id: str, checkpoint: int) -> int:
    """Raise the client's write checkpoint to `checkpoint`, unless it is already higher, and return it.

    A request that does not change the value is still counted, because the client waits for its checkpoint to be sent.
    """
    row = connection.execute(
        "INSERT INTO write_checkpoints VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE"
        " SET checkpoint = max(checkpoint, excluded.checkpoint), requests = requests + 1"
        " RETURNING checkpoint",
        [user_id, client_id, checkpoint],
    ).fetchone()
    return int(row[0])


def of_users(connection: sqlite3.Connection, user_ids: Iterable[str]) -> dict[tuple[str, str], WriteCheckpoint]:
    """The current write checkpoints of all clients of these users, by user and client."""
    rows = connection.execute(
        "SELECT user_id, client_id, checkpoint, requests FROM write_checkpoints"
        " WHERE user_id IN (SELECT value FROM json_each(?))",
        [msgspec.json.encode(list(user_ids)).decode()],
    )
    return {(user_id, client_id): WriteCheckpoint(*values) for user_id, client_id, *values in rows}
