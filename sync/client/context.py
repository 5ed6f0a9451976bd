"""What the loops work with, as values that are passed whole.

Owns nothing but the two groups. What lasts as long as the database is a `DatabaseContext`; what may be another in the
next session is added by `SessionContext`.
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
    """What a database shares with those that sync it.

    Attributes:
        pool: the database file.
        board: the status.
        schema: the schema that the file has now; it changes only while no session runs.
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
    """What both loops of one session work with.

    Attributes:
        pool: the database file.
        board: the status.
        raw_tables: of the schema.
        streams: the subscriptions in use.
        mail: news for the loops.
        options: how to sync.
        service: the sync service.
        credentials: of the connector's user.
    """

    pool: ConnectionPool
    board: StatusBoard
    raw_tables: tuple[RawTable, ...]
    streams: StreamsInUse[Any]
    mail: SyncMail
    options: SyncOptions
    service: SyncService
    credentials: CredentialsCache
