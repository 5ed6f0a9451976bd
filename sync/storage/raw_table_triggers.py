"""Triggers on raw tables: they queue local writes of the app's own tables for upload.

Owns their SQL, which is plain: any SQLite client that edits the table queues the edit. They keep still while the engine
itself writes (`raw_tables` sets the mark for it).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from sync.errors import RawTableError, SchemaError
from sync.raw_tables import RawTable, RawTableSchema
from sync.statements import Statements
from sync.storage.names import (
    IN_SYNC_OPERATION,
    LAST_APPLIED,
    LAST_SEEN,
    TARGET,
    TARGET_UNKNOWN,
    literal,
    quoted,
)
from sync.storage.raw_tables import synced_columns

_OF_THE_CORE_EXTENSION = "powersync_in_sync_operation"
"""A function of PowerSync's SQLite extension, by which the triggers are known that it makes."""


def create_triggers(statements: Statements, table: RawTable) -> None:
    """Make the three triggers of a raw table as its columns are now, in place of older ones.

    They are called as the examples of PowerSync's documentation call them, so that a program on an official SDK that
    makes its own replaces them. Triggers that the official extension has made on the table are dropped: without the
    extension they would make every write fail.

    Raises:
        SchemaError: the raw table has no schema.
        RawTableError: the app has not made its table yet, or it has no column `id` or lacks a synced one.
    """
    if table.schema is None or table.table_name is None:
        raise SchemaError(f"Raw table {table.name!r} has no schema, which triggers are inferred from.")
    columns = synced_columns(statements, table)
    if columns is None:
        raise RawTableError(f"The table {table.table_name!r} of raw table {table.name!r} is not there; make it first.")
    wanted = {
        f"{table.table_name}_{event.lower()}": _trigger(table, table.table_name, table.schema, event, columns)
        for event in ("INSERT", "UPDATE", "DELETE")
    }
    existing = statements.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = lower(?)",
        (table.table_name,),
    )
    for row in existing:
        if wanted.get(row["name"]) == row["sql"]:
            del wanted[row["name"]]
        elif row["name"] in wanted or _OF_THE_CORE_EXTENSION in row["sql"]:
            statements.execute(f"DROP TRIGGER {quoted(row['name'])}")
    for sql in wanted.values():
        try:
            statements.execute(sql)
        except sqlite3.Error as error:
            raise RawTableError(f"The triggers of raw table {table.name!r} cannot be made: {error}") from error


def _trigger(table: RawTable, table_name: str, schema: RawTableSchema, event: str, columns: Sequence[str]) -> str:
    condition = f"NOT EXISTS (SELECT 1 FROM ps_kv WHERE key = {literal(IN_SYNC_OPERATION)})"
    if event == "UPDATE" and (schema.synced_columns is not None or schema.ignore_empty_updates):
        condition += f" AND EXISTS (SELECT 1 FROM {_values(('id', *columns))} WHERE {_CHANGED})"
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
    yield _CHECK_ID
    yield from _record(name, "PUT", "NEW.id", data=_non_null(columns))


def _update(name: str, schema: RawTableSchema, columns: Sequence[str]) -> Iterator[str]:
    yield "SELECT CASE WHEN NEW.id IS NOT OLD.id THEN RAISE(ABORT, 'the id of a row cannot be changed') END"
    old = _previous_values(schema, columns, is_update=True)
    yield from _record(name, "PATCH", "NEW.id", data=_object("new_value", columns, _CHANGED), old=old)


def _delete(name: str, schema: RawTableSchema, columns: Sequence[str]) -> Iterator[str]:
    yield from _record(name, "DELETE", "OLD.id", old=_previous_values(schema, columns, is_update=False))


def _insert_only(name: str, event: str, columns: Sequence[str]) -> Iterator[str]:
    if event == "INSERT":
        yield _CHECK_ID
        yield from _queue(name, "PUT", "NEW.id", data=_non_null(columns))
    else:
        yield f"SELECT RAISE(ABORT, {literal(f'raw table {name} is insert-only')})"


_CHECK_ID = (
    "SELECT CASE WHEN NEW.id IS NULL THEN RAISE(ABORT, 'id is required')"
    " WHEN typeof(NEW.id) <> 'text' THEN RAISE(ABORT, 'id should be text') END"
)

# The table's own collation may take different texts for equal.
_CHANGED = "new_value COLLATE BINARY IS NOT old_value"


def _non_null(columns: Sequence[str]) -> str:
    return _object("new_value", columns, "new_value IS NOT NULL", rows=("NEW",))


def _previous_values(schema: RawTableSchema, columns: Sequence[str], *, is_update: bool) -> str | None:
    tracked = schema.track_previous_values
    if isinstance(tracked, bool):
        if not tracked:
            return None
        chosen, only_when_changed = columns, False
    else:
        chosen = columns if tracked.columns is None else [name for name in columns if name in tracked.columns]
        only_when_changed = tracked.only_when_changed
    if is_update and only_when_changed:
        return _object("old_value", chosen, _CHANGED)
    return _object("old_value", chosen, "TRUE", rows=("NEW", "OLD") if is_update else ("OLD",))


def _object(value: str, columns: Sequence[str], condition: str, *, rows: Sequence[str] = ("NEW", "OLD")) -> str:
    """A JSON object of those columns that meet a condition, in their order."""
    if not columns:
        return "json('{}')"
    json_value = (
        f"CASE typeof({value}) WHEN 'text' THEN {value} || '' WHEN 'real' THEN json(printf('%!.17g', {value}))"
        f" ELSE {value} END"
    )
    return f"(SELECT json_group_object(name, {json_value}) FROM {_values(columns, rows)} WHERE {condition})"


def _values(columns: Iterable[str], rows: Sequence[str] = ("NEW", "OLD")) -> str:
    """A table of the columns: name, new_value, old_value.

    Rows of VALUES have no limit to their number, as the arguments of json_object and the parts of a UNION have.
    """
    places = ", ".join(
        f"({literal(name)}, {', '.join(f'{row}.{quoted(name)}' if row in rows else 'NULL' for row in ('NEW', 'OLD'))})"
        for name in columns
    )
    return f"(SELECT NULL AS name, NULL AS new_value, NULL AS old_value WHERE FALSE UNION ALL VALUES {places})"


def _record(name: str, op: str, row_id: str, *, data: str | None = None, old: str | None = None) -> Iterator[str]:
    """Queue one entry and close the gate.

    As with the triggers of views, none of these statements may meet a conflict: the OR clause of the app's own
    statement would decide it.
    """
    yield from _queue(name, op, row_id, data=data, old=old)
    yield (
        f"INSERT INTO ps_updated_rows(row_type, row_id) SELECT {literal(name)}, {row_id} WHERE NOT EXISTS"
        f" (SELECT 1 FROM ps_updated_rows WHERE row_type = {literal(name)} AND row_id = {row_id})"
    )
    yield f"DELETE FROM ps_kv WHERE key IN ({literal(TARGET)}, {literal(LAST_SEEN)}, {literal(LAST_APPLIED)})"
    yield f"INSERT INTO ps_kv(key, value) VALUES ({literal(TARGET)}, {TARGET_UNKNOWN})"


def _queue(name: str, op: str, row_id: str, *, data: str | None = None, old: str | None = None) -> Iterator[str]:
    yield "UPDATE ps_tx SET current_tx = next_tx, next_tx = next_tx + 1 WHERE id = 1 AND current_tx IS NULL"
    entry = f"'op', {literal(op)}, 'id', {row_id}, 'type', {literal(name)}"
    if data is not None:
        entry += f", 'data', json({data})"
    if old is not None:
        entry += f", 'old', json({old})"
    yield f"INSERT INTO ps_crud(tx_id, data) SELECT current_tx, json_object({entry}) FROM ps_tx WHERE id = 1"
