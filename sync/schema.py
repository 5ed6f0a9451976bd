"""The app's schema: tables, columns and indexes, validated when they are made.

Owns the public value types `Schema`, `Table`, `Column` and `Index`. Knows nothing of SQL connections: how a schema
becomes views and triggers is `sync.storage.views`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

from sync.errors import SchemaError

ColumnType = Literal["text", "integer", "real"]

MAX_COLUMNS = 50
"""json_object takes at least 100 arguments on every SQLite build: 50 pairs."""

_FORBIDDEN = re.compile(r"[\"'%,.#\[\]\\\s\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: a key of the synced JSON row, cast to a SQLite type when it is read."""

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
class Index:
    """An index over columns of a table, ascending."""

    name: str
    columns: tuple[str, ...]

    def __init__(self, name: str, columns: Iterable[str]) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "columns", tuple(columns))


class TableOptions(TypedDict, total=False):
    """The options of a `Table`, as its constructor takes them by keyword."""

    indexes: Iterable[Index]
    local_only: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the app. The text column `id` is always there and is not declared.

    Args:
        name: the name of the synced table (the `object_type` of its rows).
        columns: at most 50.
        indexes: built over the local copy.
        local_only: rows stay on this device; nothing is queued for upload.

    Raises:
        SchemaError: a name is not allowed or stands twice, or an index names an unknown column.
    """

    name: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    local_only: bool

    def __init__(
        self,
        name: str,
        columns: Iterable[Column],
        *,
        indexes: Iterable[Index] = (),
        local_only: bool = False,
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "columns", tuple(columns))
        object.__setattr__(self, "indexes", tuple(indexes))
        object.__setattr__(self, "local_only", local_only)
        self._validate()

    @classmethod
    def from_model(cls, model: type, *, name: str, **options: Unpack[TableOptions]) -> Table:
        """A table with a column for each field of a class, which must have an `id: str`.

        Args:
            model: a dataclass, msgspec Struct, pydantic model, TypedDict or named tuple. Dates, times, UUID, Decimal
                and what is nested become TEXT, a bool becomes INTEGER; None is NULL.
            name: the table's name.
            options: as of `Table` itself.

        Raises:
            SchemaError: no column can hold a field's type, or the table is not valid; the field is named.
        """
        from sync.typed_schema import columns_of  # it needs the columns of this module

        return cls(name, columns_of(model), **options)

    def _validate(self) -> None:
        _check_name(self.name, f"table {self.name!r}")
        if len(self.columns) > MAX_COLUMNS:
            raise SchemaError(
                f"Table {self.name!r} has {len(self.columns)} columns; at most {MAX_COLUMNS} are allowed."
            )
        seen: set[str] = set()
        for column in self.columns:
            _check_name(column.name, f"column {column.name!r} of table {self.name!r}")
            if column.name.lower() == "id":
                raise SchemaError(f"Table {self.name!r} declares a column 'id'; it is always there, leave it out.")
            if column.name.lower() in seen:
                raise SchemaError(f"Table {self.name!r} declares the column {column.name!r} twice.")
            seen.add(column.name.lower())
        known = {column.name for column in self.columns}
        index_names: set[str] = set()
        for index in self.indexes:
            _check_name(index.name, f"index {index.name!r} of table {self.name!r}")
            if index.name.lower() in index_names:
                raise SchemaError(f"Table {self.name!r} declares the index {index.name!r} twice.")
            index_names.add(index.name.lower())
            if not index.columns:
                raise SchemaError(f"Index {index.name!r} of table {self.name!r} has no columns.")
            for column_name in index.columns:
                if column_name not in known:
                    raise SchemaError(
                        f"Index {index.name!r} of table {self.name!r} names the unknown column {column_name!r}."
                    )


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables that the app knows. Rows of other tables are kept until a schema names them.

    Raises:
        SchemaError: two tables share a name (SQLite does not tell `A` from `a`).
    """

    tables: tuple[Table, ...]

    def __init__(self, tables: Sequence[Table]) -> None:
        object.__setattr__(self, "tables", tuple(tables))
        seen: set[str] = set()
        for table in self.tables:
            if table.name.lower() in seen:
                raise SchemaError(f"The schema declares the table {table.name!r} twice.")
            seen.add(table.name.lower())


def _check_name(name: str, what: str) -> None:
    if not name:
        raise SchemaError(f"The name of {what} is empty.")
    if match := _FORBIDDEN.search(name):
        raise SchemaError(f"The name of {what} contains {match.group()!r}, which is not allowed.")
    if name.lower().startswith(("ps_", "sqlite_")):
        raise SchemaError(f"The name of {what} begins with a prefix that the engine keeps for itself.")
