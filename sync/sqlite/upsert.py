"""Insert or update through views, which do not support ON CONFLICT. Owns its SQL; triggers queue the change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sync.sqlite.sql_connection import SqlConnection
from sync.sqlite.sql_text import quoted


def upsert(connection: SqlConnection, table: str, values: Mapping[str, Any]) -> None:
    """Update the row whose id is `values["id"]`, or insert it. One entry in the upload queue, or none."""
    target = quoted(table)
    if connection.value(f"SELECT 1 FROM {target} WHERE id = ?", (values["id"],)) is None:
        columns = ", ".join(quoted(column) for column in values)
        placeholders = ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO {target}({columns}) VALUES ({placeholders})", tuple(values.values()))
        return
    changes = {column: value for column, value in values.items() if column != "id"}
    if changes:
        # A row that already has these values is left alone: there is nothing to upload or report.
        settings = ", ".join(f"{quoted(column)} = ?" for column in changes)
        differs = " OR ".join(f"{quoted(column)} IS NOT ?" for column in changes)
        connection.execute(
            f"UPDATE {target} SET {settings} WHERE id = ? AND ({differs})",
            (*changes.values(), values["id"], *changes.values()),
        )
