"""The internal tables of the database file: version 14, the migrations to it, and how to undo each version.

Owns the SQL of PowerSync's schema versions 1 to 14, as data. When it is run, and what happens if it fails, is decided
elsewhere (`migrations`).
"""

from __future__ import annotations

VERSION = 14

_LOCAL = "'$local'"

_OPLOG = """CREATE TABLE ps_oplog(
        bucket INTEGER NOT NULL,
        op_id INTEGER NOT NULL,
        row_type TEXT,
        row_id TEXT,
        key TEXT,
        data TEXT,
        hash INTEGER NOT NULL
    ) STRICT"""

_OPLOG_INDEXES = (
    "CREATE INDEX ps_oplog_row ON ps_oplog (row_type, row_id)",
    "CREATE INDEX ps_oplog_opid ON ps_oplog (bucket, op_id)",
    "CREATE INDEX ps_oplog_key ON ps_oplog (bucket, key)",
)

_BUCKETS_NAME = "CREATE UNIQUE INDEX ps_buckets_name ON ps_buckets (name)"

_UPDATED_ROWS = (
    "CREATE TABLE ps_updated_rows(row_type TEXT, row_id TEXT, PRIMARY KEY (row_type, row_id)) STRICT, WITHOUT ROWID"
)

_TX = (
    "CREATE TABLE ps_tx(id INTEGER PRIMARY KEY NOT NULL, current_tx INTEGER, next_tx INTEGER)",
    "INSERT INTO ps_tx(id, current_tx, next_tx) VALUES (1, NULL, 1)",
)

_KV = "CREATE TABLE ps_kv(key TEXT PRIMARY KEY NOT NULL, value BLOB)"

_SYNC_STATE = (
    "CREATE TABLE ps_sync_state(priority INTEGER NOT NULL PRIMARY KEY, last_synced_at INTEGER NOT NULL) STRICT"
)

_SYNC_STATE_8 = "CREATE TABLE ps_sync_state(priority INTEGER NOT NULL PRIMARY KEY, last_synced_at TEXT NOT NULL) STRICT"

_SYNC_STATE_7 = "CREATE TABLE ps_sync_state(priority INTEGER NOT NULL, last_synced_at TEXT NOT NULL) STRICT"

_STREAM_SUBSCRIPTIONS = """CREATE TABLE ps_stream_subscriptions(
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
    ) STRICT"""

_BUCKETS = """CREATE TABLE ps_buckets(
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
    ) STRICT"""

_BUCKETS_COLUMNS = (
    "id, name, last_applied_op, last_op, add_checksum, op_checksum, pending_delete,"
    " count_at_last, count_since_last, downloaded_size"
)

_BUCKETS_5 = """CREATE TABLE ps_buckets(
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        last_applied_op INTEGER NOT NULL DEFAULT 0,
        last_op INTEGER NOT NULL DEFAULT 0,
        target_op INTEGER NOT NULL DEFAULT 0,
        add_checksum INTEGER NOT NULL DEFAULT 0,
        op_checksum INTEGER NOT NULL DEFAULT 0,
        pending_delete INTEGER NOT NULL DEFAULT 0
    ) STRICT"""

_BUCKETS_12_ADDITIONS = (
    "ALTER TABLE ps_buckets ADD COLUMN count_at_last INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE ps_buckets ADD COLUMN count_since_last INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE ps_buckets ADD COLUMN downloaded_size INTEGER NOT NULL DEFAULT 0",
)

TABLES = (
    "CREATE TABLE IF NOT EXISTS ps_migration(id INTEGER PRIMARY KEY, down_migrations TEXT)",
    _KV,
    _BUCKETS,
    _BUCKETS_NAME,
    _OPLOG,
    *_OPLOG_INDEXES,
    _UPDATED_ROWS,
    "CREATE TABLE ps_untyped(type TEXT NOT NULL, id TEXT NOT NULL, data TEXT, PRIMARY KEY (type, id))",
    "CREATE TABLE ps_crud(id INTEGER PRIMARY KEY AUTOINCREMENT, data TEXT, tx_id INTEGER)",
    *_TX,
    _SYNC_STATE,
    _STREAM_SUBSCRIPTIONS,
)
"""Creates a new file's tables, as of `VERSION`."""

# Version 4 kept every operation, including superseded ones; op 3 is PUT. From version 5 on, only the current PUT of
# each key is kept, and the checksums of the others move to add_checksum.
_NOT_KEPT = "FROM ps_oplog_4 o WHERE o.bucket = ps_buckets.name AND (o.superseded = 1 OR o.op <> 3)"

UP: dict[int, tuple[str, ...]] = {
    2: (*_TX, "ALTER TABLE ps_crud ADD COLUMN tx_id INTEGER"),
    3: (_KV,),  # the client id is generated, see `migrations`
    4: (
        "ALTER TABLE ps_buckets ADD COLUMN op_checksum INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE ps_buckets ADD COLUMN remove_operations INTEGER NOT NULL DEFAULT 0",
        (
            "UPDATE ps_buckets SET op_checksum ="
            " (SELECT ifnull(sum(o.hash), 0) & 0xffffffff FROM ps_oplog o WHERE o.bucket = ps_buckets.name)"
        ),
    ),
    5: (
        "ALTER TABLE ps_buckets RENAME TO ps_buckets_4",
        "ALTER TABLE ps_oplog RENAME TO ps_oplog_4",
        _BUCKETS_5,
        _BUCKETS_NAME,
        _OPLOG,
        _UPDATED_ROWS,
        (
            "INSERT INTO ps_buckets(name, last_applied_op, last_op, target_op, add_checksum, op_checksum,"
            " pending_delete) SELECT name, last_applied_op, last_op, target_op, add_checksum, op_checksum,"
            " pending_delete FROM ps_buckets_4 ORDER BY rowid"
        ),
        (
            "INSERT INTO ps_oplog(bucket, op_id, row_type, row_id, key, data, hash)"
            " SELECT b.id, o.op_id, o.row_type, o.row_id, o.key, o.data, o.hash"
            " FROM ps_buckets b JOIN ps_oplog_4 o ON o.bucket = b.name WHERE o.op = 3 AND o.superseded = 0"
            " ORDER BY b.id, o.op_id"
        ),
        *_OPLOG_INDEXES,
        (
            "INSERT OR IGNORE INTO ps_updated_rows(row_type, row_id) SELECT row_type, row_id FROM ps_oplog_4"
            " WHERE op <> 3 AND row_type IS NOT NULL AND row_id IS NOT NULL"
        ),
        (
            f"UPDATE ps_buckets SET add_checksum = (add_checksum + (SELECT ifnull(sum(o.hash), 0) {_NOT_KEPT}))"
            f" & 0xffffffff, op_checksum = (op_checksum - (SELECT ifnull(sum(o.hash), 0) {_NOT_KEPT})) & 0xffffffff"
        ),
        "DROP TABLE ps_oplog_4",
        "DROP TABLE ps_buckets_4",
    ),
    6: (),  # rows that are in no bucket are noted, see `migrations`
    7: (
        _SYNC_STATE_7,
        (
            "INSERT INTO ps_sync_state(priority, last_synced_at)"
            " SELECT 2147483647, value FROM ps_kv WHERE key = 'last_synced_at' AND value IS NOT NULL"
        ),
    ),
    8: (
        "ALTER TABLE ps_sync_state RENAME TO ps_sync_state_7",
        _SYNC_STATE_8,
        (
            "INSERT INTO ps_sync_state(priority, last_synced_at)"
            " SELECT priority, max(last_synced_at) FROM ps_sync_state_7 GROUP BY priority"
        ),
        "DROP TABLE ps_sync_state_7",
    ),
    9: _BUCKETS_12_ADDITIONS[:2],
    10: (),  # the views are recreated, which every opening does with views of another client
    11: (_STREAM_SUBSCRIPTIONS,),
    12: _BUCKETS_12_ADDITIONS[2:],
    13: (
        (
            "UPDATE ps_stream_subscriptions"
            " SET expires_at = expires_at * 1000000, last_synced_at = last_synced_at * 1000000"
        ),
        "ALTER TABLE ps_sync_state RENAME TO ps_sync_state_12",
        _SYNC_STATE,
        (
            "INSERT INTO ps_sync_state(priority, last_synced_at)"
            " SELECT priority, unixepoch(last_synced_at) * 1000000 FROM ps_sync_state_12"
            " WHERE unixepoch(last_synced_at) IS NOT NULL"
        ),
        "DROP TABLE ps_sync_state_12",
    ),
    # The gate was a bucket row named $local. A client that went back to version 13 left the keys in place and may have
    # updated the row: the row counts.
    14: (
        (
            "DELETE FROM ps_kv WHERE key IN ('target_checkpoint_request_id', 'last_seen_checkpoint_request_id',"
            " 'last_applied_checkpoint_request_id')"
        ),
        (
            "WITH gate(key, value) AS ("
            f"SELECT 'target_checkpoint_request_id', target_op FROM ps_buckets WHERE name = {_LOCAL}"
            f" UNION ALL SELECT 'last_seen_checkpoint_request_id', last_op FROM ps_buckets WHERE name = {_LOCAL}"
            " UNION ALL SELECT 'last_applied_checkpoint_request_id', last_applied_op FROM ps_buckets"
            f" WHERE name = {_LOCAL}) INSERT INTO ps_kv(key, value) SELECT key, value FROM gate WHERE value > 0"
        ),
        # DROP COLUMN would fail with triggers of other clients, which use modules that exist only there.
        "DROP INDEX ps_buckets_name",
        "ALTER TABLE ps_buckets RENAME TO ps_buckets_13",
        _BUCKETS,
        _BUCKETS_NAME,
        (
            f"INSERT INTO ps_buckets({_BUCKETS_COLUMNS})"
            f" SELECT {_BUCKETS_COLUMNS} FROM ps_buckets_13 WHERE name <> {_LOCAL}"
        ),
        "DROP TABLE ps_buckets_13",
    ),
}
"""Migrates a file of the previous version to each version."""

_GENERATED = "FROM sqlite_master WHERE type = 'view' AND sql GLOB '*-- powersync-auto-generated'"

GENERATED_VIEWS = f"SELECT name {_GENERATED}"
"""The views that PowerSync's clients create for the app's schema."""

_DROP_VIEWS = f"SELECT powersync_drop_view(name) {_GENERATED}"


def _forget(version: int) -> str:
    return f"DELETE FROM ps_migration WHERE id >= {version}"


# These statements are stored in the file and run by other clients; only those have the function powersync_drop_view.
DOWN: dict[int, tuple[str, ...]] = {
    2: ("DROP TABLE ps_tx", "ALTER TABLE ps_crud DROP COLUMN tx_id", _forget(2)),
    3: ("DROP TABLE ps_kv", _forget(3)),
    4: (
        "ALTER TABLE ps_buckets DROP COLUMN remove_operations",
        "ALTER TABLE ps_buckets DROP COLUMN op_checksum",
        _forget(4),
    ),
    # Version 4 has no ps_updated_rows: it is represented by removals in a bucket $local, with a gate that only the next
    # write checkpoint opens.
    5: (
        _DROP_VIEWS,
        "DROP INDEX ps_buckets_name",
        "DROP INDEX ps_oplog_row",
        "DROP INDEX ps_oplog_opid",
        "DROP INDEX ps_oplog_key",
        "ALTER TABLE ps_buckets RENAME TO ps_buckets_above_4",
        "ALTER TABLE ps_oplog RENAME TO ps_oplog_above_4",
        (
            "CREATE TABLE ps_buckets(name TEXT PRIMARY KEY, last_applied_op INTEGER NOT NULL DEFAULT 0,"
            " last_op INTEGER NOT NULL DEFAULT 0, target_op INTEGER NOT NULL DEFAULT 0,"
            " add_checksum INTEGER NOT NULL DEFAULT 0, pending_delete INTEGER NOT NULL DEFAULT 0,"
            " op_checksum INTEGER NOT NULL DEFAULT 0, remove_operations INTEGER NOT NULL DEFAULT 0)"
        ),
        (
            "CREATE TABLE ps_oplog(bucket TEXT NOT NULL, op_id INTEGER NOT NULL, op INTEGER NOT NULL, row_type TEXT,"
            " row_id TEXT, key TEXT, data TEXT, hash INTEGER NOT NULL, superseded INTEGER NOT NULL)"
        ),
        "CREATE INDEX ps_oplog_by_row ON ps_oplog (row_type, row_id) WHERE superseded = 0",
        "CREATE INDEX ps_oplog_by_opid ON ps_oplog (bucket, op_id)",
        "CREATE INDEX ps_oplog_by_key ON ps_oplog (bucket, key) WHERE superseded = 0",
        (
            "INSERT INTO ps_buckets(name, last_applied_op, last_op, target_op, add_checksum, op_checksum,"
            " pending_delete) SELECT name, last_applied_op, last_op, target_op, add_checksum, op_checksum,"
            " pending_delete FROM ps_buckets_above_4"
        ),
        (
            "INSERT INTO ps_oplog(bucket, op_id, op, row_type, row_id, key, data, hash, superseded)"
            " SELECT b.name, o.op_id, 3, o.row_type, o.row_id, o.key, o.data, o.hash, 0"
            " FROM ps_oplog_above_4 o JOIN ps_buckets_above_4 b ON b.id = o.bucket"
        ),
        (
            "INSERT INTO ps_oplog(bucket, op_id, op, row_type, row_id, hash, superseded)"
            f" SELECT {_LOCAL}, 1, 4, row_type, row_id, 0, 0 FROM ps_updated_rows"
        ),
        (
            "INSERT OR REPLACE INTO ps_buckets(name, pending_delete, last_op, target_op)"
            f" VALUES ({_LOCAL}, 1, 0, 9223372036854775807)"
        ),
        "DROP TABLE ps_oplog_above_4",
        "DROP TABLE ps_buckets_above_4",
        "DROP TABLE ps_updated_rows",
        _forget(5),
    ),
    6: (_forget(6),),
    7: (
        (
            "INSERT OR REPLACE INTO ps_kv(key, value)"
            " SELECT 'last_synced_at', last_synced_at FROM ps_sync_state WHERE priority = 2147483647"
        ),
        "DROP TABLE ps_sync_state",
        _forget(7),
    ),
    8: (
        "ALTER TABLE ps_sync_state RENAME TO ps_sync_state_above_7",
        _SYNC_STATE_7,
        (
            "INSERT INTO ps_sync_state(priority, last_synced_at)"
            " SELECT priority, last_synced_at FROM ps_sync_state_above_7"
        ),
        "DROP TABLE ps_sync_state_above_7",
        _forget(8),
    ),
    9: (
        "ALTER TABLE ps_buckets DROP COLUMN count_since_last",
        "ALTER TABLE ps_buckets DROP COLUMN count_at_last",
        _forget(9),
    ),
    10: (_DROP_VIEWS, _forget(10)),
    11: ("DROP TABLE ps_stream_subscriptions", _forget(11)),
    12: ("ALTER TABLE ps_buckets DROP COLUMN downloaded_size", _forget(12)),
    13: (
        (
            "UPDATE ps_stream_subscriptions"
            " SET expires_at = expires_at / 1000000, last_synced_at = last_synced_at / 1000000"
        ),
        "ALTER TABLE ps_sync_state RENAME TO ps_sync_state_above_12",
        _SYNC_STATE_8,
        (
            "INSERT INTO ps_sync_state(priority, last_synced_at)"
            " SELECT priority, datetime(last_synced_at / 1000000, 'unixepoch') FROM ps_sync_state_above_12"
        ),
        "DROP TABLE ps_sync_state_above_12",
        _forget(13),
    ),
    14: (
        "DROP INDEX ps_buckets_name",
        "ALTER TABLE ps_buckets RENAME TO ps_buckets_above_13",
        _BUCKETS_5,
        *_BUCKETS_12_ADDITIONS,
        _BUCKETS_NAME,
        (f"INSERT INTO ps_buckets({_BUCKETS_COLUMNS}) SELECT {_BUCKETS_COLUMNS} FROM ps_buckets_above_13"),
        "DROP TABLE ps_buckets_above_13",
        (
            "INSERT INTO ps_buckets(name, pending_delete, target_op, last_op, last_applied_op)"
            f" SELECT {_LOCAL}, 1, CAST(value AS INTEGER),"
            " ifnull((SELECT CAST(value AS INTEGER) FROM ps_kv WHERE key = 'last_seen_checkpoint_request_id'), 0),"
            " ifnull((SELECT CAST(value AS INTEGER) FROM ps_kv WHERE key = 'last_applied_checkpoint_request_id'), 0)"
            " FROM ps_kv WHERE key = 'target_checkpoint_request_id'"
        ),
        _forget(14),
    ),
}
"""Migrates a file of each version to the previous one; clients of an older version run it when they open the file."""
