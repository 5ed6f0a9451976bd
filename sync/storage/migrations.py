"""Migrating the internal tables of a database file to the version that this program reads.

Owns the way there from any version: creating, migrating, and undoing a newer client's changes with the statements that
it left in the file. The versions themselves are in `schema_versions`. Must not know the app's own tables.
"""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import cast

from sync.errors import DatabaseOpenError
from sync.sqlite.sql_connection import SqlConnection
from sync.sqlite.sql_text import quoted
from sync.storage.names import CLIENT_ID, DATA_PREFIX
from sync.storage.schema_versions import DOWN, GENERATED_VIEWS, TABLES, UP, VERSION

_COMMENTS = re.compile(r"\s+|--[^\n]*(\n|$)|/\*.*?\*/", re.DOTALL)

# Statements whose effects stay inside the transaction that they run in, and inside this file.
_UNDOING = {"ALTER", "CREATE", "DELETE", "DROP", "INSERT", "REPLACE", "SELECT", "UPDATE", "WITH"}

# Errors that say nothing about the file's contents.
_CIRCUMSTANCES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}


def check_version(connection: SqlConnection) -> None:
    """Check, without changing anything, that the file is new or can be migrated to this program's version.

    Raises:
        DatabaseOpenError: it has lost the record of its version, or is newer and does not say how to undo that.
    """
    version = _version(connection)
    if version > VERSION:
        _undoing(connection, version)


def migrate(connection: SqlConnection) -> None:
    """Migrate the internal tables to this program's version, or create them. Must run in one transaction.

    Raises:
        DatabaseOpenError: as `check_version`, or the migration from the file's version failed; roll back.
    """
    if _version(connection) == VERSION:
        return
    with _references_left_alone(connection):
        while (version := _version(connection)) > VERSION:
            _undo(connection, version)
        if version == 0:
            create_tables(connection)
        else:
            _upgrade(connection, version)


def create_tables(connection: SqlConnection) -> None:
    """Create the internal tables of a new file. Must run in one transaction."""
    for sql in TABLES:
        connection.execute(sql)
    _draw_client_id(connection)
    for version in range(1, VERSION + 1):
        _record(connection, version)


def _version(connection: SqlConnection) -> int:
    """The file's version; 0 if it is new, or not a PowerSync database yet."""
    if _exists(connection, "ps_migration"):
        version = connection.value("SELECT max(id) FROM ps_migration")
        if version is not None:
            return cast("int", version)
    if _exists(connection, "ps_crud"):
        raise DatabaseOpenError("The database lacks its version record (ps_migration); it was left as it is.")
    return 0


def _exists(connection: SqlConnection, table: str) -> bool:
    return connection.first("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)) is not None


@contextmanager
def _references_left_alone(connection: SqlConnection) -> Generator[None]:
    """Allow rebuilding tables under their names although views and triggers refer to them.

    Otherwise SQLite would check all of these with each ALTER TABLE, and those of other clients use modules that exist
    only there.
    """
    connection.execute("PRAGMA legacy_alter_table = ON")
    try:
        yield
    finally:
        connection.execute("PRAGMA legacy_alter_table = OFF")


def _upgrade(connection: SqlConnection, version: int) -> None:
    try:
        for step in range(version + 1, VERSION + 1):
            for sql in UP[step]:
                connection.execute(sql)
            if step == 3:
                _draw_client_id(connection)
            if step == 6:
                _note_rows_of_no_bucket(connection)
            _record(connection, step)
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF in _CIRCUMSTANCES:
            raise
        raise _refusal(version, f"migrating it failed: {error}") from error


def _draw_client_id(connection: SqlConnection) -> None:
    connection.execute("INSERT INTO ps_kv(key, value) VALUES (?, ?)", (CLIENT_ID, str(uuid.uuid4())))


def _record(connection: SqlConnection, version: int) -> None:
    down = DOWN.get(version)
    connection.execute(
        "INSERT INTO ps_migration(id, down_migrations) VALUES (?, ?)",
        (version, None if down is None else json.dumps([{"sql": sql} for sql in down])),
    )


def _note_rows_of_no_bucket(connection: SqlConnection) -> None:
    """Clients of version 5 missed some removals: make the next checkpoint check all rows that are in no bucket.

    Source: the fix of PowerSync's core 0.3.5.
    """
    for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'ps_data__*'"):
        connection.execute(
            "INSERT OR IGNORE INTO ps_updated_rows(row_type, row_id)"
            f" SELECT ?1, d.id FROM {quoted(row['name'])} d WHERE NOT EXISTS"
            " (SELECT 1 FROM ps_oplog o WHERE o.row_type = ?1 AND o.row_id = d.id)",
            (row["name"].removeprefix(DATA_PREFIX),),
        )


def _undo(connection: SqlConnection, version: int) -> None:
    """Run the file's own statements that undo its newest version, as intended by the client that wrote them.

    The views are dropped first, as they are recreated anyway: their triggers may call what only that client has.
    """
    _drop_views(connection, [row["name"] for row in connection.execute(GENERATED_VIEWS)])
    to_drop: list[object] = []
    try:
        with connection.function("powersync_drop_view", 1, to_drop.append):
            for sql in _undoing(connection, version):
                connection.execute(sql)
                _drop_views(connection, to_drop)
    except (sqlite3.Error, ValueError) as error:
        raise _refusal(version, f"undoing that version failed: {error}") from error
    if _version(connection) >= version:
        raise _refusal(version, "undoing that version left it in place")


def _drop_views(connection: SqlConnection, names: list[object]) -> None:
    while names:
        connection.execute(f"DROP VIEW IF EXISTS {quoted(str(names.pop()))}")


def _undoing(connection: SqlConnection, version: int) -> list[str]:
    """The statements that undo a version, one by one, checked before any of them runs."""
    stored = connection.value("SELECT down_migrations FROM ps_migration WHERE id = ?", (version,))
    if stored is None:
        raise _refusal(version, "it does not say how to undo that version")
    try:
        texts = [step["sql"] for step in json.loads(stored)]
        single = [sql for text in texts for sql in _single_statements(text)]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _refusal(version, "its record of how to undo that version cannot be read") from error
    for sql in single:
        keyword = re.match(r"\w*", sql)
        if keyword is None or keyword.group().upper() not in _UNDOING:
            raise _refusal(version, f"undoing that version requires a statement that is not allowed: {sql[:40]}")
    return single


def _single_statements(text: str) -> Iterator[str]:
    """The statements of a text, each without leading comments."""
    rest = _without_comments(text)
    while rest:
        end = rest.find(";")
        while end >= 0 and not sqlite3.complete_statement(rest[: end + 1]):
            end = rest.find(";", end + 1)
        end = len(rest) if end < 0 else end + 1
        yield rest[:end]
        rest = _without_comments(rest[end:])


def _without_comments(text: str) -> str:
    while match := _COMMENTS.match(text):
        text = text[match.end() :]
    return text


def _refusal(version: int, reason: str) -> DatabaseOpenError:
    return DatabaseOpenError(
        f"The database has schema version {version}; this program reads version {VERSION}, and {reason}. "
        "It was left as it is: open it with the program that wrote it, or choose another file."
    )
