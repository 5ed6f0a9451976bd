"""The schema that the file has now.

Owns which one it is, and which of its tables is which inside the file. The file is brought to it by
`sync.storage.views`.
"""

from __future__ import annotations

from sync.schema.raw_tables import RawTable
from sync.schema.tables import Schema
from sync.storage.names import data_table


class CurrentSchema:
    """The schema of one open database.

    Attributes:
        value: the schema; another one after `PowerSyncDatabase.update_schema`.
    """

    def __init__(self, schema: Schema) -> None:
        self.value = schema

    @property
    def raw_tables(self) -> tuple[RawTable, ...]:
        """The raw tables of the schema."""
        return self.value.raw_tables

    @property
    def insert_only_tables(self) -> frozenset[str]:
        """The synced tables of which nothing is kept here: nothing comes back of their entries."""
        raw = (table.name for table in self.raw_tables if table.schema is not None and table.schema.insert_only)
        return frozenset([*(table.name for table in self.value.tables if table.insert_only), *raw])

    def app_tables(self, changed: frozenset[str] | None) -> frozenset[str]:
        """The app's names of the tables among those that a commit changed; None means any table may have.

        Tables that the app made by itself are among them, the engine's own are not.
        """
        names = {data_table(table): table.name for table in self.value.tables}
        if changed is None:
            return frozenset(names.values())
        return frozenset(
            names.get(table, table) for table in changed if table in names or not table.startswith(("ps_", "sqlite_"))
        )

    def table_behind(self, name: str) -> str:
        """What a table is called in the file: the one behind a view, or a table of the app's own."""
        return next((data_table(table) for table in self.value.tables if table.name == name), name)
