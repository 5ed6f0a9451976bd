"""Columns and indexes of a table, and which previous values are uploaded.

Owns the public value types `Column`, `Index`, `IndexedColumn` and `TrackPreviousValues`, and which names are allowed.
Must not know tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sync.errors import SchemaError

ColumnType = Literal["text", "integer", "real"]

_FORBIDDEN = re.compile(r"[\"'%,.#\[\]\\\s\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: a key of the synced JSON row, cast to an SQLite type when read."""

    name: str
    type: ColumnType

    @classmethod
    def text(cls, name: str) -> Column:
        """A TEXT column."""
        return cls(name, "text")

    @classmethod
    def integer(cls, name: str) -> Column:
        """An INTEGER column (64 bit)."""
        return cls(name, "integer")

    @classmethod
    def real(cls, name: str) -> Column:
        """A REAL column (double)."""
        return cls(name, "real")


@dataclass(frozen=True, slots=True)
class IndexedColumn:
    """A column of an index, in ascending or descending order."""

    name: str
    is_ascending: bool = True

    @classmethod
    def ascending(cls, name: str) -> IndexedColumn:
        """A column in ascending order; a plain name means the same."""
        return cls(name)

    @classmethod
    def descending(cls, name: str) -> IndexedColumn:
        """A column in descending order."""
        return cls(name, is_ascending=False)


@dataclass(frozen=True, slots=True)
class Index:
    """An index on columns of a table: names, for ascending order, or `IndexedColumn`s."""

    name: str
    columns: tuple[IndexedColumn, ...]

    def __init__(self, name: str, columns: Iterable[str | IndexedColumn]) -> None:
        object.__setattr__(self, "name", name)
        indexed = (IndexedColumn(column) if isinstance(column, str) else column for column in columns)
        object.__setattr__(self, "columns", tuple(indexed))


@dataclass(frozen=True, slots=True)
class TrackPreviousValues:
    """Which previous values an entry of the upload queue carries for an update or a delete.

    Attributes:
        columns: only these; None means all columns.
        only_when_changed: updates carry only those that they changed. Deletes carry all.
    """

    columns: tuple[str, ...] | None
    only_when_changed: bool

    def __init__(self, columns: Iterable[str] | None = None, *, only_when_changed: bool = False) -> None:
        object.__setattr__(self, "columns", None if columns is None else tuple(columns))
        object.__setattr__(self, "only_when_changed", only_when_changed)


def check_name(name: str, what: str) -> None:
    """Check that `name` can be the name of a table, view, column or index.

    Args:
        name: the name.
        what: what it names, for the message.

    Raises:
        SchemaError: it is empty, or contains a character that is not allowed.
    """
    if not name:
        raise SchemaError(f"The name of {what} is empty.")
    if match := _FORBIDDEN.search(name):
        raise SchemaError(f"The name of {what} contains {match.group()!r}, which is not allowed.")
