"""The app's schema: its tables, validated when they are created.

Owns the public value types `Schema` and `Table`. Must not know SQL connections: `sync.storage.views` turns a schema
into views and triggers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

from sync.errors import SchemaError
from sync.schema.columns import Column, Index, TrackPreviousValues, check_name
from sync.schema.raw_tables import RawTable, validate_raw_tables

MAX_COLUMNS = 1999
"""A view has at most 2,000 columns, one of which is the id (SQLite's SQLITE_MAX_COLUMN)."""

METADATA_COLUMN = "_metadata"
DELETED_COLUMN = "_deleted"
_HIDDEN_COLUMNS = (METADATA_COLUMN, DELETED_COLUMN)


class TableOptions(TypedDict, total=False):
    """The options of a `Table`, as keyword arguments of its constructor."""

    indexes: Iterable[Index]
    local_only: bool
    insert_only: bool
    view_name: str | None
    track_previous_values: bool | TrackPreviousValues
    track_metadata: bool
    ignore_empty_updates: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the app. The text column `id` always exists and is not declared.

    Args:
        name: the name of the synced table (the `object_type` of its rows).
        columns: at most 1,999; 1,997 with `track_metadata`.
        indexes: created on the local copy.
        local_only: rows stay on this device; nothing is queued for upload.
        insert_only: inserts are queued for upload and not stored; such writes do not hold back downloaded data.
        view_name: the table's name in SQL, if not `name`. Entries of the upload queue carry `name`.
        track_previous_values: entries for updates and deletes carry the previous values (True: of all columns).
        track_metadata: the table has a hidden column `_metadata`, whose text is sent along in the entry and not
            stored; and an update that sets `_deleted = TRUE, _metadata = …` is a delete that carries metadata.
        ignore_empty_updates: an update that changes nothing queues nothing.

    More than five parameters: the options are those of the PowerSync SDKs, each with a default.

    Raises:
        SchemaError: a name is not allowed or used twice, an index or `track_previous_values` names an unknown
            column, or options contradict each other.
    """

    name: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    local_only: bool
    insert_only: bool
    view_name: str
    track_previous_values: TrackPreviousValues | None
    track_metadata: bool
    ignore_empty_updates: bool

    def __init__(
        self,
        name: str,
        columns: Iterable[Column],
        *,
        indexes: Iterable[Index] = (),
        local_only: bool = False,
        insert_only: bool = False,
        view_name: str | None = None,
        track_previous_values: bool | TrackPreviousValues = False,
        track_metadata: bool = False,
        ignore_empty_updates: bool = False,
    ) -> None:
        if isinstance(track_previous_values, bool):
            previous = TrackPreviousValues() if track_previous_values else None
        else:
            previous = track_previous_values
        for attribute, value in (
            ("name", name),
            ("columns", tuple(columns)),
            ("indexes", tuple(indexes)),
            ("local_only", local_only),
            ("insert_only", insert_only),
            ("view_name", name if view_name is None else view_name),
            ("track_previous_values", previous),
            ("track_metadata", track_metadata),
            ("ignore_empty_updates", ignore_empty_updates),
        ):
            object.__setattr__(self, attribute, value)
        for given, what in ((self.name, "table"), (self.view_name, "view")):
            check_name(given, f"{what} {given!r}")
            if given.lower().startswith(("ps_", "sqlite_")):
                raise SchemaError(f"The name of {what} {given!r} begins with a prefix that is reserved for the engine.")
        self._check_options()
        self._check_columns()
        self._check_indexes()

    @classmethod
    def from_model(cls, model: type, *, name: str, **options: Unpack[TableOptions]) -> Table:
        """A table with a column for each field of a class, which must have an `id: str`.

        Args:
            model: a dataclass, msgspec Struct, pydantic model, TypedDict or named tuple. Dates, times, UUID, Decimal
                and nested values become TEXT, a bool becomes INTEGER; None is NULL.
            name: the table's name.
            options: the options of `Table` itself.

        Raises:
            SchemaError: no column can store a field's type, or the table is invalid; the message names the field.
        """
        from sync.schema.from_class import columns_of  # most schemas are not declared by classes

        return cls(name, columns_of(model), **options)

    def _check_options(self) -> None:
        if not self.local_only:
            return
        for option, is_set in (
            ("insert_only", self.insert_only),
            ("track_previous_values", self.track_previous_values is not None),
            ("track_metadata", self.track_metadata),
        ):
            if is_set:
                raise SchemaError(f"Table {self.name!r} is local_only and uploads nothing: {option} has no effect.")

    def _check_columns(self) -> None:
        hidden = _HIDDEN_COLUMNS if self.track_metadata else ()
        most = MAX_COLUMNS - len(hidden)
        if len(self.columns) > most:
            raise SchemaError(f"Table {self.name!r} has {len(self.columns)} columns; at most {most} are allowed.")
        seen: set[str] = set()
        for column in self.columns:
            check_name(column.name, f"column {column.name!r} of table {self.name!r}")
            name = column.name.lower()
            if name == "id":
                raise SchemaError(f"Table {self.name!r} declares a column 'id'; leave it out, it always exists.")
            if name in hidden:
                raise SchemaError(f"Table {self.name!r} declares {column.name!r}, a hidden column of track_metadata.")
            if name in seen:
                raise SchemaError(f"Table {self.name!r} declares the column {column.name!r} twice.")
            seen.add(name)
        if self.track_previous_values is not None and self.track_previous_values.columns is not None:
            known = {column.name for column in self.columns}
            for tracked in self.track_previous_values.columns:
                if tracked not in known:
                    raise SchemaError(f"Table {self.name!r} tracks previous values of the unknown column {tracked!r}.")

    def _check_indexes(self) -> None:
        known = {column.name for column in self.columns}
        seen: set[str] = set()
        for index in self.indexes:
            what = f"index {index.name!r} of table {self.name!r}"
            check_name(index.name, what)
            if index.name.lower() in seen:
                raise SchemaError(f"Table {self.name!r} declares the index {index.name!r} twice.")
            seen.add(index.name.lower())
            if not index.columns:
                raise SchemaError(f"The {what} has no columns.")
            named: set[str] = set()
            for column in index.columns:
                if column.name not in known:
                    raise SchemaError(f"The {what} names the unknown column {column.name!r}.")
                if column.name in named:
                    raise SchemaError(f"The {what} names the column {column.name!r} twice.")
                named.add(column.name)


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables that the app knows. Rows of other tables are kept until a schema names them.

    Args:
        tables: shown as views on the engine's own tables.
        raw_tables: written to the app's own tables.

    Raises:
        SchemaError: two tables share a name or a view name (SQLite does not distinguish `A` from `a`), or would share
            the name of an index inside the file.
    """

    tables: tuple[Table, ...]
    raw_tables: tuple[RawTable, ...]

    def __init__(self, tables: Sequence[Table], raw_tables: Iterable[RawTable] = ()) -> None:
        object.__setattr__(self, "tables", tuple(tables))
        object.__setattr__(self, "raw_tables", tuple(raw_tables))
        names: set[str] = set()
        views: dict[str, str] = {}
        for table in self.tables:
            if table.name.lower() in names:
                raise SchemaError(f"The schema declares the table {table.name!r} twice.")
            names.add(table.name.lower())
            if other := views.get(table.view_name.lower()):
                raise SchemaError(f"The tables {other!r} and {table.name!r} share the view name {table.view_name!r}.")
            views[table.view_name.lower()] = table.name
        validate_raw_tables(self.raw_tables, names | set(views))
        for table in self.tables:
            for index in table.indexes:
                inside = f"{table.name}__{index.name}".lower()
                if inside in names:
                    raise SchemaError(
                        f"Index {index.name!r} of table {table.name!r} shares its name {inside!r} inside the file with"
                        " another table or index; rename it."
                    )
                names.add(inside)
