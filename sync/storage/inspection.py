"""What a database file says of itself, as far as it can be read: of any version, damaged or not.

Owns the questions. How they are asked of a file in use, or a damaged one, is `sync.sqlite.damaged_file`'s.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sync.sqlite.sql_connection import SqlConnection
from sync.storage import account, checkpoint_requests, publish, upload_queue
from sync.storage.checkpoint_requests import SyncGate
from sync.storage.conflicts import CONFLICTS
from sync.storage.key_values import optional_time
from sync.storage.rejected_writes import REJECTED_TRANSACTIONS

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredFacts:
    """What was read. None: it could not be, or is not there. See `FileInspection`."""

    schema_version: int | None = None
    queue_length: int | None = None
    queue_oldest_at: datetime | None = None
    rejected_writes: int | None = None
    conflicts: int | None = None
    gate: SyncGate | None = None
    bucket_count: int | None = None
    last_synced_at: datetime | None = None
    client_id: str | None = None
    user_id: str | None = None


def stored_facts(connection: SqlConnection) -> StoredFacts:
    """Read each by itself, so that damage in one place does not hide the others."""

    def read(function: Callable[[SqlConnection], T]) -> T | None:
        try:
            return function(connection)
        except (sqlite3.DatabaseError, OverflowError, TypeError, ValueError):
            return None

    return StoredFacts(
        schema_version=read(lambda connection: connection.value("SELECT max(id) FROM ps_migration")),
        queue_length=read(lambda connection: connection.value("SELECT count(*) FROM ps_crud")),
        queue_oldest_at=read(upload_queue.oldest_at),
        rejected_writes=read(lambda connection: _count(connection, REJECTED_TRANSACTIONS)),
        conflicts=read(lambda connection: _count(connection, CONFLICTS)),
        gate=read(checkpoint_requests.gate),
        bucket_count=read(
            lambda connection: connection.value("SELECT count(*) FROM ps_buckets WHERE NOT pending_delete")
        ),
        last_synced_at=read(lambda connection: optional_time(publish.last_synced_at(connection))),
        client_id=read(upload_queue.client_id),
        user_id=read(account.owner),
    )


def _count(connection: SqlConnection, table: str) -> int:
    """How many rows a table has that only this engine makes: other clients' files lack it."""
    if connection.value("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)) is None:
        return 0
    return connection.value(f"SELECT count(*) FROM {table}")
