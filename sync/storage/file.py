"""Preparing a file for this engine: the format's tables, the engine's own, and the app's schema.

Owns the order of these steps, and nothing else; each belongs to another module.
"""

from __future__ import annotations

from sync.schema.tables import Schema
from sync.sqlite.sql_connection import SqlConnection
from sync.storage import conflicts, migrations, rejected_writes, upload_queue, views
from sync.storage.key_values import get_integer
from sync.storage.names import KEEPS_RECORDS


def prepare(connection: SqlConnection, schema: Schema) -> None:
    """Create, migrate and alter what is missing or differs, in a transaction of its own.

    Raises:
        DatabaseOpenError: the file cannot be migrated to this program's version; roll the transaction back.
    """
    migrations.migrate(connection)
    for module in (upload_queue, rejected_writes, conflicts):
        module.create_tables(connection)
    if get_integer(connection, KEEPS_RECORDS) is None:
        # Another client has cleared the file: what its user wrote must not pass to the next user.
        for module in (rejected_writes, conflicts):
            if module.has_any(connection):
                module.clear(connection)
    views.replace_schema(connection, schema)
    upload_queue.end_transaction_id(connection)
