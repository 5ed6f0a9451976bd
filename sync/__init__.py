"""An embedded sync engine for asyncio: local SQLite that keeps itself in step with a PowerSync Service.

Everything public is exported here. The engine knows nothing of any particular app and imports nothing from one.
"""

from sync.client.options import SyncOptions
from sync.connection import Transaction
from sync.connector import BackendConnector, PowerSyncCredentials
from sync.database import CrudTransaction, PowerSyncDatabase
from sync.errors import (
    AuthError,
    ChecksumError,
    ConnectorError,
    DatabaseClosedError,
    DatabaseOpenError,
    NestedUseError,
    NetworkError,
    NoRowError,
    NotConnectedError,
    PowerSyncError,
    ProtocolError,
    SchemaError,
    ServiceError,
    SyncTimeoutError,
    TokenExpiredError,
    UploadStalledError,
)
from sync.explain import SyncExplanation
from sync.progress import ProgressWithOperations, SyncProgress
from sync.schema import Column, Index, Schema, Table
from sync.statements import Row
from sync.status import SyncPriorityStatus, SyncStatus, SyncStreamStatus
from sync.storage.checkpoint_requests import SyncGate
from sync.storage.upload_queue import CrudEntry
from sync.streams import SyncStream, SyncStreamSubscription
from sync.waiting import CheckpointRequest
from sync.watch import Watch

__all__ = [
    "AuthError",
    "BackendConnector",
    "CheckpointRequest",
    "ChecksumError",
    "Column",
    "ConnectorError",
    "CrudEntry",
    "CrudTransaction",
    "DatabaseClosedError",
    "DatabaseOpenError",
    "Index",
    "NestedUseError",
    "NetworkError",
    "NoRowError",
    "NotConnectedError",
    "PowerSyncCredentials",
    "PowerSyncDatabase",
    "PowerSyncError",
    "ProgressWithOperations",
    "ProtocolError",
    "Row",
    "Schema",
    "SchemaError",
    "ServiceError",
    "SyncExplanation",
    "SyncGate",
    "SyncOptions",
    "SyncPriorityStatus",
    "SyncProgress",
    "SyncStatus",
    "SyncStream",
    "SyncStreamStatus",
    "SyncStreamSubscription",
    "SyncTimeoutError",
    "Table",
    "TokenExpiredError",
    "Transaction",
    "UploadStalledError",
    "Watch",
]
