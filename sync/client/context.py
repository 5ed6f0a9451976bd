"""What the loops work with, grouped into values.

Owns nothing but the two groups. A `DatabaseContext` lasts as long as the database; `SessionContext` adds what may
differ in the next session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync.client.mailbox import SyncMail
from sync.client.options import SyncOptions
from sync.client.streams_in_use import StreamsInUse
from sync.schema.raw_tables import RawTable
from sync.sqlite.pool import ConnectionPool
from sync.status.status import StatusBoard
from sync.storage.current_schema import CurrentSchema

if TYPE_CHECKING:
    from sync.client.credentials import CredentialsCache
    from sync.client.service import SyncService


@dataclass(frozen=True, slots=True)
class DatabaseContext:
    """What a database shares with the code that syncs it.

    Attributes:
        pool: the database file.
        board: the status.
        schema: the current schema of the file; it changes only while no session runs.
        streams: the subscriptions in use.
        mail: news for the loops.
    """

    pool: ConnectionPool
    board: StatusBoard
    schema: CurrentSchema
    streams: StreamsInUse[Any]
    mail: SyncMail


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What both loops of a session work with.

    Attributes:
        pool: the database file.
        board: the status.
        raw_tables: the schema's raw tables.
        streams: the subscriptions in use.
        mail: news for the loops.
        options: how to sync.
        service: the sync service.
        credentials: the connector's credentials.
    """

    pool: ConnectionPool
    board: StatusBoard
    raw_tables: tuple[RawTable, ...]
    streams: StreamsInUse[Any]
    mail: SyncMail
    options: SyncOptions
    service: SyncService
    credentials: CredentialsCache
