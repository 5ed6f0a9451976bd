"""The current schema of the file.

Owns which one it is, and how its tables map to those in the file. `sync.storage.views` applies it to the file.
"""

from __future__ import annotations

from sync.schema.raw_tables import RawTable
from sync.schema.tables import Schema
from sync.storage.names import data_table


class CurrentSchema:
    """The schema of one open database.

    Attributes:
        value: the schema; `PowerSyncDatabase.update_schema` replaces it.
    """

    def __init__(self, schema: Schema) -> None:
        self.value = schema

    @property
    def raw_tables(self) -> tuple[RawTable, ...]:
        """The raw tables of the schema."""
        return self.value.raw_tables

    @property
    def insert_only_tables(self) -> frozenset[str]:
        """The synced tables that are not stored here: their entries do not come back."""
        raw = (table.name for table in self.raw_tables if table.schema is not None and table.schema.insert_only)
        return frozenset([*(table.name for table in self.value.tables if table.insert_only), *raw])

    def app_tables(self, changed: frozenset[str] | None) -> frozenset[str]:
        """The app's names of the tables that a commit changed; None means any table may have changed.

        Includes tables that the app created itself, but not the engine's own.
        """
        names = {data_table(table): table.name for table in self.value.tables}
        if changed is None:
            return frozenset(names.values())
        return frozenset(
            names.get(table, table) for table in changed if table in names or not table.startswith(("ps_", "sqlite_"))
        )

    def table_behind(self, name: str) -> str:
        """The name of a table in the file: the one behind a view, or the app's own table."""
        return next((data_table(table) for table in self.value.tables if table.name == name), name)
