"""Triggers on raw tables: they queue local writes of the app's own tables for upload.

Owns their SQL, which is plain: any SQLite client that changes the table queues the change. They do nothing while the
engine itself writes (`raw_tables` sets the mark for it).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from sync.errors import RawTableError, SchemaError
from sync.schema.raw_tables import RawTable, RawTableSchema
from sync.sqlite.sql_connection import SqlConnection
from sync.sqlite.sql_text import quoted, sql_string
from sync.storage.raw_tables import synced_columns
from sync.storage.recording import (
    CHECK_ID,
    IS_IN_SYNC_OPERATION,
    SAME_ID,
    all_values,
    any_is_changed,
    changed_values,
    close_gate,
    non_null_values,
    queue,
)

_OF_THE_CORE_EXTENSION = "powersync_in_sync_operation"
"""A function of PowerSync's SQLite extension, which identifies the triggers that it creates."""


def create_triggers(connection: SqlConnection, table: RawTable) -> None:
    """Create the three triggers of a raw table for its current columns, replacing older ones.

    They are named as in the examples of PowerSync's documentation, so that a program using an official SDK that creates
    its own replaces them. Triggers that the official extension has created on the table are dropped: without the
    extension they would make every write fail.

    Raises:
        SchemaError: the raw table has no schema.
        RawTableError: the app has not created its table yet, or the table lacks `id` or a synced column.
    """
    if table.schema is None or table.table_name is None:
        raise SchemaError(f"Raw table {table.name!r} has no schema to infer triggers from.")
    columns = synced_columns(connection, table)
    if columns is None:
        raise RawTableError(
            f"The table {table.table_name!r} of raw table {table.name!r} does not exist; create it first."
        )
    wanted = {
        f"{table.table_name}_{event.lower()}": _trigger(table, table.table_name, table.schema, event, columns)
        for event in ("INSERT", "UPDATE", "DELETE")
    }
    existing = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = lower(?)",
        (table.table_name,),
    )
    for row in existing:
        if wanted.get(row["name"]) == row["sql"]:
            del wanted[row["name"]]
        elif row["name"] in wanted or _OF_THE_CORE_EXTENSION in row["sql"]:
            connection.execute(f"DROP TRIGGER {quoted(row['name'])}")
    for sql in wanted.values():
        try:
            connection.execute(sql)
        except sqlite3.Error as error:
            raise RawTableError(f"The triggers of raw table {table.name!r} cannot be created: {error}") from error


def _trigger(table: RawTable, table_name: str, schema: RawTableSchema, event: str, columns: Sequence[str]) -> str:
    condition = f"NOT {IS_IN_SYNC_OPERATION}"
    if event == "UPDATE" and (schema.synced_columns is not None or schema.ignore_empty_updates):
        condition += f" AND ({any_is_changed(('id', *columns))})"
    if schema.insert_only:
        body = _insert_only(table.name, event, columns)
    else:
        body = {"INSERT": _insert, "UPDATE": _update, "DELETE": _delete}[event](table.name, schema, columns)
    statements = "\n".join(f"{statement};" for statement in body)
    name = f"{table_name}_{event.lower()}"
    return (
        f"CREATE TRIGGER {quoted(name)} AFTER {event} ON {quoted(table_name)} FOR EACH ROW WHEN {condition} BEGIN\n"
        f"{statements}\nEND"
    )


def _insert(name: str, _schema: RawTableSchema, columns: Sequence[str]) -> Iterator[str]:
    yield CHECK_ID
    yield from queue(name, "PUT", "NEW", data=non_null_values(columns))
    yield from close_gate(name, "NEW")


def _update(name: str, schema: RawTableSchema, columns: Sequence[str]) -> Iterator[str]:
    yield SAME_ID
    old = _previous_values(schema, columns, is_update=True)
    yield from queue(name, "PATCH", "NEW", data=changed_values(columns, "NEW"), old=old)
    yield from close_gate(name, "NEW")


def _delete(name: str, schema: RawTableSchema, columns: Sequence[str]) -> Iterator[str]:
    yield from queue(name, "DELETE", "OLD", old=_previous_values(schema, columns, is_update=False))
    yield from close_gate(name, "OLD")


def _insert_only(name: str, event: str, columns: Sequence[str]) -> Iterator[str]:
    if event == "INSERT":
        yield CHECK_ID
        yield from queue(name, "PUT", "NEW", data=non_null_values(columns))
    else:
        yield f"SELECT RAISE(ABORT, {sql_string(f'raw table {name} is insert-only')})"


def _previous_values(schema: RawTableSchema, columns: Sequence[str], *, is_update: bool) -> str | None:
    tracked = schema.track_previous_values
    if isinstance(tracked, bool):
        return all_values(columns, "OLD") if tracked else None
    chosen = [name for name in columns if tracked.columns is None or name in tracked.columns]
    return changed_values(chosen, "OLD") if is_update and tracked.only_when_changed else all_values(chosen, "OLD")
