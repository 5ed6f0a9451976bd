"""Raw tables: SQLite tables that the app creates and migrates itself, and to which the engine writes synced rows.

Owns the public value types `RawTable`, `RawTableSchema`, `PendingStatement` and `PendingStatementParameter`. Must not
know SQL connections: `sync.storage.raw_tables` writes rows, and the triggers of `sync.storage.raw_table_triggers`
record local writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sync.errors import SchemaError
from sync.schema.columns import TrackPreviousValues


@dataclass(frozen=True, slots=True)
class PendingStatementParameter:
    """Where a parameter of a `PendingStatement` takes its value from. Made by `id`, `column` and `rest`."""

    kind: Literal["id", "column", "rest"]
    column_name: str | None = None

    @classmethod
    def id(cls) -> PendingStatementParameter:
        """The id of the synced row."""
        return cls("id")

    @classmethod
    def column(cls, name: str) -> PendingStatementParameter:
        """The value of a column of the synced row; NULL if the row lacks it.

        true and false become 1 and 0, objects and lists their JSON text.
        """
        return cls("column", name)

    @classmethod
    def rest(cls) -> PendingStatementParameter:
        """JSON text of all columns that no other parameter of the statement names; NULL if there are none."""
        return cls("rest")


@dataclass(frozen=True, slots=True)
class PendingStatement:
    """A statement that writes or deletes one synced row.

    Args:
        sql: one SQL statement with `?` parameters.
        params: where the parameters take their values from, in order.
    """

    sql: str
    params: tuple[PendingStatementParameter, ...]

    def __init__(self, sql: str, params: Iterable[PendingStatementParameter]) -> None:
        object.__setattr__(self, "sql", sql)
        object.__setattr__(self, "params", tuple(params))


@dataclass(frozen=True, slots=True)
class RawTableSchema:
    """The app's table behind a raw table, from which statements and triggers are inferred.

    It needs a text column `id` that is its primary key, or unique.

    Args:
        table_name: the name of the SQLite table; None if it is that of the synced table.
        synced_columns: the columns that are synced, others are the app's own; None for all.
        insert_only: local inserts are uploaded, but not kept in sync; updates and deletes are rejected.
        track_previous_values: which previous values an entry of the upload queue carries; True for all columns.
        ignore_empty_updates: updates that change no synced column are not uploaded.
    """

    table_name: str | None = None
    synced_columns: tuple[str, ...] | None = None
    insert_only: bool = False
    track_previous_values: TrackPreviousValues | bool = False
    ignore_empty_updates: bool = False

    def __init__(
        self,
        table_name: str | None = None,
        *,
        synced_columns: Iterable[str] | None = None,
        insert_only: bool = False,
        track_previous_values: TrackPreviousValues | bool = False,
        ignore_empty_updates: bool = False,
    ) -> None:
        object.__setattr__(self, "table_name", table_name)
        object.__setattr__(self, "synced_columns", None if synced_columns is None else tuple(synced_columns))
        object.__setattr__(self, "insert_only", insert_only)
        object.__setattr__(self, "track_previous_values", track_previous_values)
        object.__setattr__(self, "ignore_empty_updates", ignore_empty_updates)


@dataclass(frozen=True, slots=True)
class RawTable:
    """A synced table whose rows the engine writes to a table of the app.

    Args:
        name: the name of the synced table (the `object_type` of its rows).
        schema: the app's table. Statements that are not given are inferred from its columns.
        put: inserts or updates one row.
        delete: deletes one row; its only parameters are ids.
        clear: one SQL statement that empties the table when the database is cleared. If None, the table of `schema` is
            emptied; without a schema, each known row is deleted by `delete`.

    Raises:
        SchemaError: there is neither a schema nor both statements, or a statement or a name is invalid.
    """

    name: str
    schema: RawTableSchema | None = None
    put: PendingStatement | None = None
    delete: PendingStatement | None = None
    clear: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise SchemaError("The name of a raw table is empty.")
        if self.schema is None and (self.put is None or self.delete is None):
            raise SchemaError(f"Raw table {self.name!r} has no schema; it needs both a put and a delete statement.")
        if self.delete is not None and any(parameter.kind != "id" for parameter in self.delete.params):
            raise SchemaError(f"The delete statement of raw table {self.name!r} may only have the id as a parameter.")
        if self.schema is not None:
            self._validate_schema(self.schema)

    def _validate_schema(self, schema: RawTableSchema) -> None:
        table_name = self.name if schema.table_name is None else schema.table_name
        if not table_name or "\0" in table_name or table_name.lower().startswith(("ps_", "sqlite_")):
            raise SchemaError(
                f"Raw table {self.name!r} cannot be stored in the table {table_name!r}: the name is empty, not allowed "
                "or begins with a reserved prefix."
            )
        seen: set[str] = set()
        for column in schema.synced_columns or ():
            if column.lower() == "id":
                raise SchemaError(f"Raw table {self.name!r} declares a column 'id'; leave it out, it is always synced.")
            if not column or column.lower() in seen:
                raise SchemaError(
                    f"Raw table {self.name!r} declares the synced column {column!r} twice, or it is empty."
                )
            seen.add(column.lower())

    @property
    def table_name(self) -> str | None:
        """The name of the app's table, or None if there is no schema."""
        if self.schema is None:
            return None
        return self.name if self.schema.table_name is None else self.schema.table_name


def validate_raw_tables(raw_tables: Iterable[RawTable], table_names: Iterable[str]) -> None:
    """Check that no raw table shares a name with another one or with the view of a table.

    Raises:
        SchemaError: one does (SQLite does not distinguish `A` from `a`).
    """
    taken = {name.lower() for name in table_names}
    local = set(taken)
    for table in raw_tables:
        if table.name.lower() in taken:
            raise SchemaError(f"The schema declares the table {table.name!r} twice.")
        taken.add(table.name.lower())
        if table.table_name is not None:
            if table.table_name.lower() in local:
                raise SchemaError(
                    f"Raw table {table.name!r} is stored in {table.table_name!r}, which another table of the schema "
                    "uses."
                )
            local.add(table.table_name.lower())
