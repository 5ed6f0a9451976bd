"""The tables that clients may write: their columns, and which values each column accepts.

Only validates values and must not know SQL or ownership. The names defined here are the only identifiers that are ever
put into a statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from app.backend.errors import RequestError

Value = str | int | None
Row = dict[str, Value]


def _text(value: Any) -> Value:
    if isinstance(value, str):
        return value
    raise TypeError("a string")


def _timestamp(value: Any) -> Value:
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            return value
    raise TypeError("an ISO 8601 timestamp")


def _boolean(value: Any) -> Value:
    if isinstance(value, int) and value in (0, 1):
        return int(value)
    raise TypeError("true or false")


@dataclass(frozen=True)
class Column:
    """A column: its name, a check that also normalizes values, whether it is required, and its PostgreSQL type."""

    name: str
    check: Callable[[Any], Value]
    required: bool = False
    sql_type: Literal["text", "uuid", "timestamptz", "boolean"] = "text"


@dataclass(frozen=True)
class Table:
    """A table: its name, and its columns in the order in which they are synced after `id`."""

    name: str
    columns: tuple[Column, ...]

    def row_names(self) -> tuple[str, ...]:
        """All column names, `id` first."""
        return ("id", *(column.name for column in self.columns))

    def values(self, row_id: str, data: Mapping[str, Any]) -> Row:
        """The columns in `data`, checked and normalized; null is accepted for all of them.

        A boolean becomes 0 or 1; the text of a timestamp is kept as it is.

        Raises RequestError 400 for an unknown column, a value of the wrong type, or an `id` in `data` that differs
        from `row_id`.
        """
        if "id" in data and data["id"] != row_id:
            raise RequestError(400, "wrong_type", f"The id in the data for {self.name} does not match the row's id.")
        columns = {column.name: column for column in self.columns}
        values: Row = {}
        for name, value in data.items():
            if name == "id":
                continue
            column = columns.get(name)
            if column is None:
                known = ", ".join(columns)
                description = f"Unknown column {name[:60]!r} in {self.name}; expected one of: {known}."
                raise RequestError(400, "unknown_column", description)
            try:
                values[name] = None if value is None else column.check(value)
            except TypeError as error:
                raise RequestError(400, "wrong_type", f"{self.name}.{name} must be {error}.") from None
        return values

    def require(self, row: Mapping[str, Value]) -> None:
        """Raises RequestError 400 if a required column of `row` is missing or null."""
        for column in self.columns:
            if column.required and row.get(column.name) is None:
                raise RequestError(400, "missing_field", f"{self.name}.{column.name} is required and must not be null.")


LISTS = Table(
    "lists",
    (
        Column("created_at", _timestamp, sql_type="timestamptz"),
        Column("name", _text, required=True),
        Column("owner_id", _text, required=True, sql_type="uuid"),
    ),
)
TODOS = Table(
    "todos",
    (
        Column("created_at", _timestamp, sql_type="timestamptz"),
        Column("completed_at", _timestamp, sql_type="timestamptz"),
        Column("description", _text, required=True),
        Column("completed", _boolean, sql_type="boolean"),
        Column("created_by", _text, sql_type="uuid"),
        Column("completed_by", _text, sql_type="uuid"),
        Column("list_id", _text, required=True, sql_type="uuid"),
        Column("photo_id", _text, sql_type="uuid"),
    ),
)
_TABLES = {table.name: table for table in (LISTS, TODOS)}


def table_named(name: str) -> Table:
    """The table called `name`. Raises RequestError 400 if it does not exist."""
    table = _TABLES.get(name)
    if table is None:
        description = f"Unknown table {name[:60]!r}; expected one of: {', '.join(_TABLES)}."
        raise RequestError(400, "unknown_table", description)
    return table


def now() -> str:
    """The current time in the format of the tables: UTC with microseconds and a trailing Z."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
