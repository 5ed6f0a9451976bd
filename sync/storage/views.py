"""The app's schema in the database file: data tables, indexes, views and their triggers.

Migrates a file from any schema to the app's, changing only what differs, and leaving alone what the engine did not
create. The SQL of the triggers belongs to `sync.storage.triggers`. Must not touch the oplog.
"""

from __future__ import annotations

from sync.schema.tables import DELETED_COLUMN, METADATA_COLUMN, Schema, Table
from sync.sqlite.sql_connection import SqlConnection
from sync.sqlite.sql_text import quoted, sql_string
from sync.storage import raw_tables
from sync.storage.names import DATA_PREFIX, LOCAL_DATA_PREFIX, data_table, index_name
from sync.storage.triggers import PREFIX, triggers

_GENERATED = "-- powersync-auto-generated"


def replace_schema(connection: SqlConnection, schema: Schema) -> None:
    """Create, alter and drop what differs from `schema`; rows move between `ps_untyped` and the data tables."""
    app_triggers = _drop_outdated_views(connection, schema)
    _replace_tables(connection, schema)
    _replace_indexes(connection, schema)
    existing = set(_views_and_triggers(connection))
    for table in schema.tables:
        for name, sql in _wanted(table).items():
            if name not in existing:
                connection.execute(sql)
        for sql in app_triggers.get(table.view_name, ()):
            connection.execute(sql)
    raw_tables.take_over_waiting_rows(connection, schema.raw_tables)


def _drop_outdated_views(connection: SqlConnection, schema: Schema) -> dict[str, list[str]]:
    """Drop the engine's views and triggers that differ from the wanted ones.

    Returns the SQL of the app's own triggers on the dropped views, which are dropped with them, by view.
    """
    wanted = {name: sql for table in schema.tables for name, sql in _wanted(table).items()}
    existing = _views_and_triggers(connection)
    dropped: dict[str, list[str]] = {}
    for name, (kind, _, sql) in existing.items():
        if kind == "view" and sql.endswith(_GENERATED) and wanted.get(name) != sql:
            connection.execute(f"DROP VIEW {quoted(name)}")
            dropped[name] = []
    for name, (kind, view, sql) in existing.items():
        if kind != "trigger":
            continue
        is_ours = name.startswith(PREFIX)
        if view in dropped and not is_ours:
            dropped[view].append(sql)
        elif view not in dropped and is_ours and wanted.get(name) != sql:
            connection.execute(f"DROP TRIGGER {quoted(name)}")
    return dropped


def _replace_tables(connection: SqlConnection, schema: Schema) -> None:
    existing = set(_data_tables(connection))
    wanted = {data_table(table) for table in schema.tables}
    for name in sorted(existing - wanted):
        if name.startswith(DATA_PREFIX):
            connection.execute(
                f"INSERT OR REPLACE INTO ps_untyped(type, id, data) SELECT ?, id, data FROM {quoted(name)}",
                (name.removeprefix(DATA_PREFIX),),
            )
        connection.execute(f"DROP TABLE {quoted(name)}")
    for table in schema.tables:
        name = data_table(table)
        if name in existing:
            continue
        connection.execute(f"CREATE TABLE {quoted(name)}(id TEXT PRIMARY KEY NOT NULL, data TEXT)")
        if not table.local_only:
            connection.execute(
                f"INSERT INTO {quoted(name)}(id, data) SELECT id, data FROM ps_untyped WHERE type = ?",
                (table.name,),
            )
            connection.execute("DELETE FROM ps_untyped WHERE type = ?", (table.name,))
            raw_tables.note_rows_missing_from(connection, name, table.name)


def _replace_indexes(connection: SqlConnection, schema: Schema) -> None:
    wanted: dict[str, str] = {}
    for table in schema.tables:
        types = {column.name: column.type for column in table.columns}
        for index in table.indexes:
            name = index_name(table, index.name)
            columns = ", ".join(
                _extract(column.name, types[column.name]) + ("" if column.is_ascending else " DESC")
                for column in index.columns
            )
            wanted[name] = f"CREATE INDEX {quoted(name)} ON {quoted(data_table(table))}({columns})"
    for row in connection.execute(
        "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'index' AND name GLOB 'ps_data_*'"
        " AND sql IS NOT NULL"
    ):
        if wanted.get(row["name"]) == row["sql"]:
            del wanted[row["name"]]
        elif row["name"].startswith(f"{row['tbl_name']}__"):
            connection.execute(f"DROP INDEX {quoted(row['name'])}")
    for sql in wanted.values():
        connection.execute(sql)


def _data_tables(connection: SqlConnection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'ps_data_*'")
    return [row["name"] for row in rows if row["name"].startswith((DATA_PREFIX, LOCAL_DATA_PREFIX))]


def synced_tables(connection: SqlConnection) -> set[str]:
    """The names (those of the service) of the synced tables that have a data table."""
    names = _data_tables(connection)
    return {name.removeprefix(DATA_PREFIX) for name in names if name.startswith(DATA_PREFIX)}


def _views_and_triggers(connection: SqlConnection) -> dict[str, tuple[str, str, str]]:
    """Kind, table and SQL of every view, and of every trigger on a view created by the engine, by name."""
    rows = connection.execute(
        "SELECT name, type, tbl_name, sql FROM sqlite_master WHERE type = 'view' OR type = 'trigger' AND tbl_name IN"
        " (SELECT name FROM sqlite_master WHERE type = 'view' AND sql GLOB ?)",
        (f"*{_GENERATED}",),
    )
    return {row["name"]: (row["type"], row["tbl_name"], row["sql"]) for row in rows}


def _wanted(table: Table) -> dict[str, str]:
    """The SQL of the table's view and triggers, by name, in the order in which they are created."""
    return {table.view_name: _view(table), **dict(triggers(table))}


def _view(table: Table) -> str:
    hidden = (METADATA_COLUMN, DELETED_COLUMN) if table.track_metadata else ()
    names = ", ".join(quoted(name) for name in ("id", *(column.name for column in table.columns), *hidden))
    values = ("id", *(_extract(column.name, column.type) for column in table.columns), *("NULL" for _ in hidden))
    return (
        f"CREATE VIEW {quoted(table.view_name)}({names}) AS SELECT {', '.join(values)}"
        f" FROM {quoted(data_table(table))} {_GENERATED}"
    )


def _extract(column: str, type_name: str) -> str:
    return f"CAST(json_extract(data, {sql_string('$.' + column)}) as {type_name})"
