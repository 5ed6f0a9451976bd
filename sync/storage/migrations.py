"""The internal tables of the database file, at schema version 14 of PowerSync's clients.

Owns their creation and the record of how each version is undone, which clients of an older version run when they open
the file. Must not know the app's own tables.
"""

from __future__ import annotations

import json
import uuid

from sync.errors import DatabaseOpenError
from sync.statements import Statements
from sync.storage.names import CLIENT_ID

VERSION = 14

_TABLES = (
    "CREATE TABLE ps_migration(id INTEGER PRIMARY KEY, down_migrations TEXT)",
    "CREATE TABLE ps_kv(key TEXT PRIMARY KEY NOT NULL, value BLOB)",
    """CREATE TABLE ps_buckets(
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        last_applied_op INTEGER NOT NULL DEFAULT 0,
        last_op INTEGER NOT NULL DEFAULT 0,
        add_checksum INTEGER NOT NULL DEFAULT 0,
        op_checksum INTEGER NOT NULL DEFAULT 0,
        pending_delete INTEGER NOT NULL DEFAULT 0,
        count_at_last INTEGER NOT NULL DEFAULT 0,
        count_since_last INTEGER NOT NULL DEFAULT 0,
        downloaded_size INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    "CREATE UNIQUE INDEX ps_buckets_name ON ps_buckets (name)",
    """CREATE TABLE ps_oplog(
        bucket INTEGER NOT NULL,
        op_id INTEGER NOT NULL,
        row_type TEXT,
        row_id TEXT,
        key TEXT,
        data TEXT,
        hash INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX ps_oplog_row ON ps_oplog (row_type, row_id)",
    "CREATE INDEX ps_oplog_opid ON ps_oplog (bucket, op_id)",
    "CREATE INDEX ps_oplog_key ON ps_oplog (bucket, key)",
    "CREATE TABLE ps_updated_rows(row_type TEXT, row_id TEXT, PRIMARY KEY (row_type, row_id)) STRICT, WITHOUT ROWID",
    "CREATE TABLE ps_untyped(type TEXT NOT NULL, id TEXT NOT NULL, data TEXT, PRIMARY KEY (type, id))",
    "CREATE TABLE ps_crud(id INTEGER PRIMARY KEY AUTOINCREMENT, data TEXT, tx_id INTEGER)",
    "CREATE TABLE ps_tx(id INTEGER PRIMARY KEY NOT NULL, current_tx INTEGER, next_tx INTEGER)",
    "INSERT INTO ps_tx(id, current_tx, next_tx) VALUES (1, NULL, 1)",
    "CREATE TABLE ps_sync_state(priority INTEGER NOT NULL PRIMARY KEY, last_synced_at INTEGER NOT NULL) STRICT",
    """CREATE TABLE ps_stream_subscriptions(
        id INTEGER NOT NULL PRIMARY KEY,
        stream_name TEXT NOT NULL,
        active INTEGER NOT NULL DEFAULT FALSE,
        is_default INTEGER NOT NULL DEFAULT FALSE,
        local_priority INTEGER,
        local_params TEXT NOT NULL DEFAULT 'null',
        ttl INTEGER,
        expires_at INTEGER,
        last_synced_at INTEGER,
        UNIQUE (stream_name, local_params)
    ) STRICT""",
)

_BUCKETS_13 = """CREATE TABLE ps_buckets(
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        last_applied_op INTEGER NOT NULL DEFAULT 0,
        last_op INTEGER NOT NULL DEFAULT 0,
        target_op INTEGER NOT NULL DEFAULT 0,
        add_checksum INTEGER NOT NULL DEFAULT 0,
        op_checksum INTEGER NOT NULL DEFAULT 0,
        pending_delete INTEGER NOT NULL DEFAULT 0,
        count_at_last INTEGER NOT NULL DEFAULT 0,
        count_since_last INTEGER NOT NULL DEFAULT 0,
        downloaded_size INTEGER NOT NULL DEFAULT 0
    ) STRICT"""

# Before version 14 the gate lived in a bucket row named $local; before 13 times were text and seconds. The function
# powersync_drop_view belongs to the clients that run these statements. How to undo versions 2 to 9 is not recorded: a
# client that old refuses the file and leaves it as it is.
_DOWN: dict[int, tuple[str, ...]] = {
    14: (
        "DROP INDEX ps_buckets_name",
        "ALTER TABLE ps_buckets RENAME TO ps_buckets_above_13",
        _BUCKETS_13,
        "CREATE UNIQUE INDEX ps_buckets_name ON ps_buckets (name)",
        (
            "INSERT INTO ps_buckets(id, name, last_applied_op, last_op, add_checksum, op_checksum, pending_delete,"
            " count_at_last, count_since_last, downloaded_size)"
            " SELECT id, name, last_applied_op, last_op, add_checksum, op_checksum, pending_delete,"
            " count_at_last, count_since_last, downloaded_size FROM ps_buckets_above_13"
        ),
        "DROP TABLE ps_buckets_above_13",
        (
            "INSERT INTO ps_buckets(name, pending_delete, target_op, last_op, last_applied_op)"
            " SELECT '$local', 1, CAST(value AS INTEGER),"
            " ifnull((SELECT CAST(value AS INTEGER) FROM ps_kv WHERE key = 'last_seen_checkpoint_request_id'), 0),"
            " ifnull((SELECT CAST(value AS INTEGER) FROM ps_kv WHERE key = 'last_applied_checkpoint_request_id'), 0)"
            " FROM ps_kv WHERE key = 'target_checkpoint_request_id'"
        ),
        "DELETE FROM ps_migration WHERE id >= 14",
    ),
    13: (
        (
            "UPDATE ps_stream_subscriptions SET expires_at = expires_at / 1000000,"
            " last_synced_at = last_synced_at / 1000000"
        ),
        "ALTER TABLE ps_sync_state RENAME TO ps_sync_state_above_12",
        "CREATE TABLE ps_sync_state(priority INTEGER NOT NULL PRIMARY KEY, last_synced_at TEXT NOT NULL) STRICT",
        (
            "INSERT INTO ps_sync_state(priority, last_synced_at)"
            " SELECT priority, datetime(last_synced_at / 1000000, 'unixepoch') FROM ps_sync_state_above_12"
        ),
        "DROP TABLE ps_sync_state_above_12",
        "DELETE FROM ps_migration WHERE id >= 13",
    ),
    12: ("ALTER TABLE ps_buckets DROP COLUMN downloaded_size", "DELETE FROM ps_migration WHERE id >= 12"),
    11: ("DROP TABLE ps_stream_subscriptions", "DELETE FROM ps_migration WHERE id >= 11"),
    10: (
        (
            "SELECT powersync_drop_view(name) FROM sqlite_master"
            " WHERE type = 'view' AND sql GLOB '*-- powersync-auto-generated'"
        ),
        "DELETE FROM ps_migration WHERE id >= 10",
    ),
}


def check_version(statements: Statements) -> None:
    """Check, without changing anything, that the file is new or of the version that this program reads.

    Raises:
        DatabaseOpenError: it is of another version, or has lost the record of its version.
    """
    if not _exists(statements, "ps_migration"):
        if _exists(statements, "ps_crud"):
            raise DatabaseOpenError("The database lacks its version record (ps_migration); it was left as it is.")
        return
    version = statements.value("SELECT max(id) FROM ps_migration")
    if version != VERSION:
        raise DatabaseOpenError(
            f"The database has schema version {version}; this program reads version {VERSION}. "
            "It was left as it is: open it with the program that wrote it, or choose another file."
        )


def create_tables(statements: Statements) -> None:
    """Create the internal tables, if the file is new."""
    if _exists(statements, "ps_migration"):
        return
    for sql in _TABLES:
        statements.execute(sql)
    statements.execute("INSERT INTO ps_kv(key, value) VALUES (?, ?)", (CLIENT_ID, str(uuid.uuid4())))
    for version in range(1, VERSION + 1):
        down = _DOWN.get(version)
        statements.execute(
            "INSERT INTO ps_migration(id, down_migrations) VALUES (?, ?)",
            (version, None if down is None else json.dumps([{"sql": sql} for sql in down])),
        )


def _exists(statements: Statements, table: str) -> bool:
    return statements.first("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)) is not None
