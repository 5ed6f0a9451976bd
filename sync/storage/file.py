"""Bringing a file to what this engine works with: the format's tables, the engine's own, and the app's schema.

Owns the order of these steps, and nothing else; each is another room's.
"""

from __future__ import annotations

from sync.schema.tables import Schema
from sync.sqlite.sql_connection import SqlConnection
from sync.storage import conflicts, migrations, rejected_writes, upload_queue, views
from sync.storage.key_values import get_integer
from sync.storage.names import KEEPS_RECORDS


def prepare(connection: SqlConnection, schema: Schema) -> None:
    """Create, migrate and alter what is missing or differs, in one transaction with nothing else in it.

    Raises:
        DatabaseOpenError: the file cannot be brought to the version of this program; roll the transaction back.
    """
    migrations.migrate(connection)
    for room in (upload_queue, rejected_writes, conflicts):
        room.create_tables(connection)
    if get_integer(connection, KEEPS_RECORDS) is None:
        # Another client has cleared the file: what its user wrote is not the next one's.
        for room in (rejected_writes, conflicts):
            if room.holds_any(connection):
                room.clear(connection)
    views.replace_schema(connection, schema)
    upload_queue.end_transaction_id(connection)
