"""An embedded sync engine for asyncio: local SQLite that keeps itself in step with a PowerSync Service.

Everything public is exported here. The engine knows nothing of any particular app and imports nothing from one.
"""

from sync.client.options import SyncOptions
from sync.connector import BackendConnector, PowerSyncCredentials
from sync.database import CrudTransaction, PowerSyncDatabase
from sync.errors import (
    AuthError,
    ChecksumError,
    ConnectedError,
    ConnectorError,
    DatabaseClosedError,
    DatabaseOpenError,
    NestedUseError,
    NetworkError,
    NoRowError,
    NotConnectedError,
    PowerSyncError,
    ProtocolError,
    RawTableError,
    RowKeyError,
    RowTypeError,
    SchemaError,
    ServiceError,
    SyncTimeoutError,
    TokenExpiredError,
    UploadStalledError,
)
from sync.explain import SyncExplanation
from sync.progress import ProgressWithOperations, SyncProgress
from sync.raw_tables import PendingStatement, PendingStatementParameter, RawTable, RawTableSchema
from sync.row_diff import RowDiff
from sync.schema import Column, Index, IndexedColumn, Schema, Table, TrackPreviousValues
from sync.statements import Row
from sync.status import SyncPriorityStatus, SyncStatus, SyncStreamStatus
from sync.storage.checkpoint_requests import SyncGate
from sync.storage.upload_queue import CrudEntry
from sync.streams import SyncStream, SyncStreamSubscription
from sync.transaction import ReadTransaction, Transaction
from sync.waiting import CheckpointRequest
from sync.watch import TableChanges, Watch
from sync.window import RowWindow, WindowWatch

__all__ = [
    "AuthError",
    "BackendConnector",
    "CheckpointRequest",
    "ChecksumError",
    "Column",
    "ConnectedError",
    "ConnectorError",
    "CrudEntry",
    "CrudTransaction",
    "DatabaseClosedError",
    "DatabaseOpenError",
    "Index",
    "IndexedColumn",
    "NestedUseError",
    "NetworkError",
    "NoRowError",
    "NotConnectedError",
    "PendingStatement",
    "PendingStatementParameter",
    "PowerSyncCredentials",
    "PowerSyncDatabase",
    "PowerSyncError",
    "ProgressWithOperations",
    "ProtocolError",
    "RawTable",
    "RawTableError",
    "RawTableSchema",
    "ReadTransaction",
    "Row",
    "RowDiff",
    "RowKeyError",
    "RowTypeError",
    "RowWindow",
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
    "TableChanges",
    "TokenExpiredError",
    "TrackPreviousValues",
    "Transaction",
    "UploadStalledError",
    "Watch",
    "WindowWatch",
]
