"""What only a device has, written into a database file, and read from it again with plain SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sync import Column, PowerSyncDatabase, Schema, Table

SCHEMA = Schema(
    [
        Table("lists", [Column.text("name")]),
        Table("notes", [Column.text("text")], local_only=True),
        Table("places", [Column.text("place")], local_only=True),
    ]
)

TABLES = (
    "ps_crud",
    "ps_crud_times",
    "ps_retried_crud",
    "ps_rejected_transactions",
    "ps_rejected_crud",
    "ps_conflicts",
    "ps_data_local__notes",
    "ps_data_local__places",
)


async def fill(database: PowerSyncDatabase) -> None:
    """Transactions that wait, one rejected, one that was and waits again, a conflict, rows of local-only tables."""
    for name in ("refused", "refused at first"):
        async with database.write_transaction() as transaction:
            await transaction.execute("INSERT INTO lists(id, name) VALUES (uuid(), ?)", [name])
            await transaction.execute("INSERT INTO lists(id, name) VALUES (uuid(), ?)", [f"{name} too"])
    for reason in ("no", "not now"):
        transaction = await database.next_crud_transaction()
        assert transaction is not None
        await transaction.reject(reason, code="X1", operation_index=1)
    await (await database.rejected_writes())[1].retry()
    async with database.write_transaction() as transaction:
        await transaction.execute("INSERT INTO lists(id, name) VALUES ('a', 'A'), ('b', 'B')")
        await transaction.execute("INSERT INTO notes(id, text) VALUES ('n', 'Nota bene')")
    await database.execute("UPDATE lists SET name = 'AA' WHERE id = 'a'")
    await database.execute("DELETE FROM lists WHERE id = 'b'")
    await database.execute("INSERT INTO places(id, place) VALUES ('a', '1'), ('b', '2')")
    await database.execute(
        "INSERT INTO ps_conflicts(row_type, row_id, column_name, mine, theirs, found_at)"
        " VALUES ('lists', 'a', 'name', '\"mine\"', '\"theirs\"', 1)"
    )
    await database.execute("INSERT INTO ps_kv(key, value) VALUES ('user_id', 'user-1')")


def device_data(path: Path) -> dict[str, list[Any]]:
    """All of it, as it is stored, and whose it is."""
    with closing(sqlite3.connect(path)) as connection:
        found = {table: connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in TABLES}
        owner = connection.execute("SELECT value FROM ps_kv WHERE key = 'user_id'").fetchall()
        return {**found, "user": owner}


def client_id(path: Path) -> str:
    """It tells the old file from the new one."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT value FROM ps_kv WHERE key = 'client_id'").fetchone()[0]
