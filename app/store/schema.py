"""The to-do app's tables: those that its backend syncs, and those of this device.

Owns the names of tables and columns. Must not know how they are queried (`app.store`) or shown (`app.tui`).
"""

from __future__ import annotations

from typing import Final

from sync.schema.columns import Column, Index
from sync.schema.tables import Schema, Table

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
        Table("todo_positions", [Column.text("position")], local_only=True),
        Table("arrangements", [Column.text("sort"), Column.integer("shows_done")], local_only=True),
        Table(
            "undo_journal",
            [
                Column.integer("step"),
                Column.integer("part"),
                Column.integer("undone"),
                Column.text("label"),
                Column.text("changes"),
            ],
            local_only=True,
            indexes=[Index("step", ["step"])],
        ),
    ]
)
"""The schema of the official PowerSync to-do demos, so that their clients and backends work with this app, and what is
kept beside it on this device only: the order that was made by hand, how views are arranged, and what can be undone."""
