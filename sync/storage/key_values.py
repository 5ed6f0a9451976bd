"""Small values in the file: integers in `ps_kv`, and times as the file stores them.

Owns reading and writing them; must not know what the keys mean.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from sync.sqlite.sql_connection import SqlConnection

_MICROSECONDS = 1_000_000


def get_integer(connection: SqlConnection, key: str) -> int | None:
    """The value of a key, or None."""
    return connection.value("SELECT CAST(value AS INTEGER) FROM ps_kv WHERE key = ?", (key,))


def put_integer(connection: SqlConnection, key: str, value: int) -> None:
    """Set the value of a key. Writes nothing if it already has this value."""
    connection.execute(
        "INSERT INTO ps_kv(key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE value IS NOT excluded.value",
        (key, value),
    )


def from_microseconds(value: int) -> datetime:
    """A time (UTC) from its form in the file: µs since the epoch."""
    return datetime.fromtimestamp(value / _MICROSECONDS, UTC)


def optional_time(value: int | None) -> datetime | None:
    """Like `from_microseconds`, for a time that may be missing."""
    return None if value is None else from_microseconds(value)


def now_microseconds() -> int:
    """The current time as the file stores it: µs since the epoch."""
    return time.time_ns() // 1000
