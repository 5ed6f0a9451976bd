"""An embedded sync engine for asyncio: local SQLite that keeps itself in step with a PowerSync Service.

Everything public is exported here. The engine knows nothing of any particular app and imports nothing from one.
"""

from sync.client.options import SyncOptions
from sync.connection import Transaction
from sync.connector import BackendConnector, PowerSyncCredentials
from sync.crud import CrudBatch, CrudTransaction, RejectedWrite
from sync.database import PowerSyncDatabase
from sync.errors import (
    AccountMismatchError,
    AuthError,
    ChecksumError,
    ConnectorError,
    DatabaseClosedError,
    DatabaseOpenError,
    NestedUseError,
    NetworkError,
    NoRowError,
    PowerSyncError,
    ProtocolError,
    SchemaError,
    ServiceError,
    TokenExpiredError,
    UploadHeldError,
    UploadRetryError,
    UploadStalledError,
)
from sync.schema import Column, Index, IndexedColumn, Schema, Table, TrackPreviousValues
from sync.statements import Row
from sync.status import SyncStatus, SyncStreamStatus
from sync.storage.conflicts import Conflict
from sync.storage.crud_entry import CrudEntry
from sync.storage.upload_queue import BatchLimits, UploadQueueStats
from sync.streams import SyncStream, SyncStreamSubscription
from sync.transaction_connector import TransactionConnector
from sync.verdicts import Accepted, Hold, Rejected, Retry, Verdict, verdict_for_status
from sync.watch import Watch

__all__ = [
    "Accepted",
    "AccountMismatchError",
    "AuthError",
    "BackendConnector",
    "BatchLimits",
    "ChecksumError",
    "Column",
    "Conflict",
    "ConnectorError",
    "CrudBatch",
    "CrudEntry",
    "CrudTransaction",
    "DatabaseClosedError",
    "DatabaseOpenError",
    "Hold",
    "Index",
    "IndexedColumn",
    "NestedUseError",
    "NetworkError",
    "NoRowError",
    "PowerSyncCredentials",
    "PowerSyncDatabase",
    "PowerSyncError",
    "ProtocolError",
    "Rejected",
    "RejectedWrite",
    "Retry",
    "Row",
    "Schema",
    "SchemaError",
    "ServiceError",
    "SyncOptions",
    "SyncStatus",
    "SyncStream",
    "SyncStreamStatus",
    "SyncStreamSubscription",
    "Table",
    "TokenExpiredError",
    "TrackPreviousValues",
    "Transaction",
    "TransactionConnector",
    "UploadHeldError",
    "UploadQueueStats",
    "UploadRetryError",
    "UploadStalledError",
    "Verdict",
    "Watch",
    "verdict_for_status",
]
