"""The app's schema in the database file: data tables, indexes, views, and the triggers that record local writes.

Owns the SQL of all of them, and brings a file from whatever schema it had to the app's, changing only what differs.
The triggers are plain SQL: any SQLite client that edits a view queues the edit for upload. Must not touch the oplog.
"""

from __future__ import annotations

from collections.abc import Iterator

from sync.schema import Schema, Table
from sync.statements import Statements
from sync.storage import raw_tables
from sync.storage.names import (
    DATA_PREFIX,
    LAST_APPLIED,
    LAST_SEEN,
    LOCAL_DATA_PREFIX,
    TARGET,
    TARGET_UNKNOWN,
    data_table,
    index_name,
    literal,
    quoted,
)

_GENERATED = "-- powersync-auto-generated"

# Under INSERT OR IGNORE a conflict leaves the row as it was: then there is nothing to upload.
_UNLESS_IGNORED = "SELECT RAISE(IGNORE) WHERE changes() = 0"


def replace_schema(statements: Statements, schema: Schema) -> None:
    """Create, alter and drop what differs from `schema`; rows move between `ps_untyped` and the data tables."""
    _drop_outdated_views(statements, schema)
    _replace_tables(statements, schema)
    _replace_indexes(statements, schema)
    for table in schema.tables:
        for kind, name, sql in _view_and_triggers(table):
            if _sql_of(statements, kind, name) is None:
                statements.execute(sql)
    raw_tables.take_over_waiting_rows(statements, schema.raw_tables)


def _drop_outdated_views(statements: Statements, schema: Schema) -> None:
    """Drop each view that is not wanted exactly as it is; its triggers go with it."""
    wanted = {table.name: {name: sql for _, name, sql in _view_and_triggers(table)} for table in schema.tables}
    for row in statements.execute(
        "SELECT name FROM sqlite_master WHERE type = 'view' AND sql GLOB ?", (f"*{_GENERATED}",)
    ):
        existing = {
            found["name"]: found["sql"]
            for found in statements.execute(
                "SELECT name, sql FROM sqlite_master WHERE type IN ('view', 'trigger') AND tbl_name = ?"
                " AND (type = 'view' OR name GLOB 'ps_view_*')",
                (row["name"],),
            )
        }
        if existing != wanted.get(row["name"]):
            statements.execute(f"DROP VIEW {quoted(row['name'])}")


def _replace_tables(statements: Statements, schema: Schema) -> None:
    existing = set(_data_tables(statements))
    wanted = {data_table(table) for table in schema.tables}
    for name in sorted(existing - wanted):
        if name.startswith(DATA_PREFIX):
            statements.execute(
                f"INSERT OR REPLACE INTO ps_untyped(type, id, data) SELECT ?, id, data FROM {quoted(name)}",
                (name.removeprefix(DATA_PREFIX),),
            )
        statements.execute(f"DROP TABLE {quoted(name)}")
    for table in schema.tables:
        name = data_table(table)
        if name in existing:
            continue
        statements.execute(f"CREATE TABLE {quoted(name)}(id TEXT PRIMARY KEY NOT NULL, data TEXT)")
        if not table.local_only:
            statements.execute(
                f"INSERT INTO {quoted(name)}(id, data) SELECT id, data FROM ps_untyped WHERE type = ?", (table.name,)
            )
            statements.execute("DELETE FROM ps_untyped WHERE type = ?", (table.name,))
            raw_tables.note_rows_missing_from(statements, name, table.name)


def _replace_indexes(statements: Statements, schema: Schema) -> None:
    wanted: dict[str, str] = {}
    for table in schema.tables:
        types = {column.name: column.type for column in table.columns}
        for index in table.indexes:
            name = index_name(table, index.name)
            columns = ", ".join(_extract(column, types[column]) for column in index.columns)
            wanted[name] = f"CREATE INDEX {quoted(name)} ON {quoted(data_table(table))}({columns})"
    for row in statements.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND name GLOB 'ps_data_*' AND sql IS NOT NULL"
    ):
        if wanted.get(row["name"]) == row["sql"]:
            del wanted[row["name"]]
        else:
            statements.execute(f"DROP INDEX {quoted(row['name'])}")
    for sql in wanted.values():
        statements.execute(sql)


def _data_tables(statements: Statements) -> list[str]:
    rows = statements.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'ps_data_*'")
    return [row["name"] for row in rows if row["name"].startswith((DATA_PREFIX, LOCAL_DATA_PREFIX))]


def synced_tables(statements: Statements) -> set[str]:
    """The names (as the service knows them) of the synced tables that have a data table."""
    names = _data_tables(statements)
    return {name.removeprefix(DATA_PREFIX) for name in names if name.startswith(DATA_PREFIX)}


def _sql_of(statements: Statements, kind: str, name: str) -> str | None:
    return statements.value("SELECT sql FROM sqlite_master WHERE type = ? AND name = ?", (kind, name))


def _view_and_triggers(table: Table) -> Iterator[tuple[str, str, str]]:
    yield "view", table.name, _view(table)
    for event, body in (("insert", _insert(table)), ("update", _update(table)), ("delete", _delete(table))):
        name = f"ps_view_{event}_{table.name}"
        statements = "\n".join(f"{statement};" for statement in body)
        yield (
            "trigger",
            name,
            (
                f"CREATE TRIGGER {quoted(name)} INSTEAD OF {event.upper()} ON {quoted(table.name)}"
                f" FOR EACH ROW BEGIN\n{statements}\nEND"
            ),
        )


def _view(table: Table) -> str:
    names = ", ".join(quoted(name) for name in ("id", *(column.name for column in table.columns)))
    values = ", ".join(("id", *(_extract(column.name, column.type) for column in table.columns)))
    return f"CREATE VIEW {quoted(table.name)}({names}) AS SELECT {values} FROM {quoted(data_table(table))} {_GENERATED}"


def _extract(column: str, type_name: str) -> str:
    return f"CAST(json_extract(data, {literal('$.' + column)}) as {type_name})"


def _insert(table: Table) -> Iterator[str]:
    yield (
        "SELECT CASE WHEN NEW.id IS NULL THEN RAISE(ABORT, 'id is required')"
        " WHEN typeof(NEW.id) <> 'text' THEN RAISE(ABORT, 'id should be text') END"
    )
    row = _json_object(table, "NEW")
    yield f"INSERT INTO {quoted(data_table(table))}(id, data) SELECT NEW.id, {row}"
    yield _UNLESS_IGNORED
    if not table.local_only:
        # A merge patch into an empty object leaves out the columns that are null.
        yield from _record(table, "PUT", "NEW.id", f"json_patch('{{}}', {row})")


def _update(table: Table) -> Iterator[str]:
    yield "SELECT CASE WHEN NEW.id IS NOT OLD.id THEN RAISE(ABORT, 'the id of a row cannot be changed') END"
    yield f"UPDATE {quoted(data_table(table))} SET data = {_json_object(table, 'NEW')} WHERE id = NEW.id"
    yield _UNLESS_IGNORED
    if not table.local_only:
        columns = " UNION ALL ".join(
            f"SELECT {literal(column.name)} AS name, NEW.{quoted(column.name)} AS value"
            f" WHERE NEW.{quoted(column.name)} IS NOT OLD.{quoted(column.name)}"
            for column in table.columns
        )
        changed = f"(SELECT json_group_object(name, {_json_value('value')}) FROM ({columns}))" if columns else "'{}'"
        yield from _record(table, "PATCH", "NEW.id", f"json({changed})")


def _delete(table: Table) -> Iterator[str]:
    yield f"DELETE FROM {quoted(data_table(table))} WHERE id = OLD.id"
    if not table.local_only:
        yield from _record(table, "DELETE", "OLD.id")


def _record(table: Table, op: str, row_id: str, data: str | None = None) -> Iterator[str]:
    """Queue one entry and close the gate: no older checkpoint may take back or acknowledge this write.

    All entries of one SQLite transaction share a transaction id: the first one draws it, and the engine's own
    connections put it back at the end of their transactions (see `upload_queue`). None of these statements may meet a
    conflict: the OR clause of the app's own statement (OR IGNORE, say) would decide it, whatever stands here.
    """
    yield "UPDATE ps_tx SET current_tx = next_tx, next_tx = next_tx + 1 WHERE id = 1 AND current_tx IS NULL"
    entry = f"'op', {literal(op)}, 'id', {row_id}, 'type', {literal(table.name)}"
    if data is not None:
        entry += f", 'data', {data}"
    yield f"INSERT INTO ps_crud(tx_id, data) SELECT current_tx, json_object({entry}) FROM ps_tx WHERE id = 1"
    yield (
        f"INSERT INTO ps_updated_rows(row_type, row_id) SELECT {literal(table.name)}, {row_id} WHERE NOT EXISTS"
        f" (SELECT 1 FROM ps_updated_rows WHERE row_type = {literal(table.name)} AND row_id = {row_id})"
    )
    yield f"DELETE FROM ps_kv WHERE key IN ({literal(TARGET)}, {literal(LAST_SEEN)}, {literal(LAST_APPLIED)})"
    yield f"INSERT INTO ps_kv(key, value) VALUES ({literal(TARGET)}, {TARGET_UNKNOWN})"


def _json_object(table: Table, row: str) -> str:
    pairs = ", ".join(
        f"{literal(column.name)}, {_json_value(f'{row}.{quoted(column.name)}')}" for column in table.columns
    )
    return f"json_object({pairs})"


def _json_value(value: str) -> str:
    """Text stays text, also when a JSON function made it; reals keep all their digits."""
    return (
        f"CASE typeof({value}) WHEN 'text' THEN {value} || ''"
        f" WHEN 'real' THEN json(printf('%!.17g', {value})) ELSE {value} END"
    )
