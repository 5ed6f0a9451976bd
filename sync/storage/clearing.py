"""Clearing the file: a user's data is removed from this device, the file itself stays usable.

Owns which tables are emptied. Disconnecting before and connecting after is up to the caller.
"""

from __future__ import annotations

from collections.abc import Iterable

from sync.schema.tables import Schema
from sync.sqlite.sql_connection import SqlConnection
from sync.sqlite.sql_text import quoted
from sync.storage import conflicts, raw_tables, rejected_writes, staging, subscriptions, upload_queue
from sync.storage.names import CLIENT_ID, DATA_PREFIX, LOCAL_DATA_PREFIX
from sync.storage.subscriptions import StreamKey


def clear(
    connection: SqlConnection,
    schema: Schema,
    *,
    soft: bool,
    clear_local: bool,
    streams_in_use: Iterable[StreamKey] = (),
) -> None:
    """Delete the upload queue, all synced rows and the entire sync state.

    Args:
        soft: keep the downloaded operations, but hidden, so that the same user's next sync is quick.
        clear_local: empty local-only tables too.
        streams_in_use: subscriptions that stay, as if they were new.

    Raises:
        RawTableError: a raw table could not be emptied. The transaction must be rolled back.
    """
    for table in schema.raw_tables:
        raw_tables.clear(connection, table)
    staging.discard(connection)
    if soft:
        connection.execute("UPDATE ps_buckets SET last_applied_op = 0")
    else:
        connection.execute("DELETE FROM ps_oplog")
        connection.execute("DELETE FROM ps_buckets")
    for name in ("ps_crud", "ps_untyped", "ps_updated_rows", "ps_sync_state"):
        connection.execute(f"DELETE FROM {name}")
    for module in (upload_queue, rejected_writes, conflicts):
        module.clear(connection)
    connection.execute("DELETE FROM ps_kv WHERE key <> ?", (CLIENT_ID,))
    subscriptions.delete_all_except(connection, streams_in_use)
    prefixes = (DATA_PREFIX, LOCAL_DATA_PREFIX) if clear_local else (DATA_PREFIX,)
    with raw_tables.sync_operation(connection):
        for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'ps_data_*'"):
            if row["name"].startswith(prefixes):
                connection.execute(f"DELETE FROM {quoted(row['name'])}")
