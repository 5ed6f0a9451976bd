"""Identifiers and strings as parts of SQL text.

Owns quoting and nothing else. Values are bound as parameters; this is for what cannot be bound.
"""

from __future__ import annotations


def quoted(name: str) -> str:
    """`name` as an SQL identifier, in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def sql_string(text: str) -> str:
    """`text` as an SQL string literal, in single quotes."""
    return "'" + text.replace("'", "''") + "'"
