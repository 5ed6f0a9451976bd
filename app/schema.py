"""The to-do app's tables, as its backend syncs them.

Owns the names of tables and columns. Must not know how they are queried (`app.store`) or shown (`app.tui`).
"""

from __future__ import annotations

from typing import Final

from sync.schema import Column, Index, Schema, Table

APP_SCHEMA: Final = Schema(
    [
        Table(
            "lists",
            [Column.text("created_at"), Column.text("name"), Column.text("owner_id")],
            # The official Django demo erases the columns of a list that a change does not name.
            track_previous_values=True,
        ),
        Table(
            "todos",
            [
                Column.text("list_id"),
                Column.text("created_at"),
                Column.text("completed_at"),
                Column.text("description"),
                Column.integer("completed"),
                Column.text("created_by"),
                Column.text("completed_by"),
            ],
            indexes=[Index("list", ["list_id"])],
        ),
    ]
)
"""The schema of the official PowerSync to-do demos, so that their clients and backends work with this app."""
