"""Integers kept in `ps_kv`. Owns their reading and writing; what the keys mean is for those who name them."""

from __future__ import annotations

from sync.statements import Statements


def get_integer(statements: Statements, key: str) -> int | None:
    """The value of a key, or None."""
    return statements.value("SELECT CAST(value AS INTEGER) FROM ps_kv WHERE key = ?", (key,))


def put_integer(statements: Statements, key: str, value: int) -> None:
    """Set the value of a key."""
    statements.execute("INSERT OR REPLACE INTO ps_kv(key, value) VALUES (?, ?)", (key, value))
