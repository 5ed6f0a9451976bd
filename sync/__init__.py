"""An embedded sync engine for asyncio: a local SQLite database that stays in sync with a PowerSync Service.

Everything public is exported here. The engine knows nothing about any particular app and imports nothing from one.
"""

from sync.api.connector import BackendConnector
from sync.api.database import PowerSyncDatabase
from sync.api.explain import SyncExplanation
from sync.api.inspection import FileInspection, inspect
from sync.api.rescue import Rescued, rescue
from sync.api.streams import SyncStream, SyncStreamSubscription
from sync.api.transaction_connector import TransactionConnector
from sync.api.upload_queue import CrudBatch, CrudTransaction, RejectedWrite
from sync.api.verdicts import Accepted, Hold, Rejected, Retry, Verdict, verdict_for_status
from sync.api.waiting import CheckpointRequest
from sync.client.connector import PowerSyncCredentials
from sync.client.options import SyncOptions
from sync.errors import (
    AccountMismatchError,
    AuthError,
    ChecksumError,
    ConnectedError,
    ConnectorError,
    DatabaseClosedError,
    DatabaseInUseError,
    DatabaseOpenError,
    NestedUseError,
    NetworkError,
    NoRowError,
    NotConnectedError,
    PowerSyncError,
    ProtocolError,
    RawTableError,
    RescueError,
    RowKeyError,
    RowTypeError,
    SchemaError,
    ServiceError,
    SyncTimeoutError,
    TokenExpiredError,
    UploadHeldError,
    UploadRetryError,
    UploadStalledError,
    WriteRejectedError,
)
from sync.schema.columns import Column, Index, IndexedColumn, TrackPreviousValues
from sync.schema.raw_tables import PendingStatement, PendingStatementParameter, RawTable, RawTableSchema
from sync.schema.tables import Schema, Table
from sync.sqlite.openers import OpenProcess
from sync.sqlite.sql_connection import Row
from sync.sqlite.transaction import ReadTransaction, Transaction
from sync.status.progress import ProgressWithOperations, SyncProgress
from sync.status.status import SyncPriorityStatus, SyncStatus, SyncStreamStatus
from sync.storage.checkpoint_requests import SyncGate
from sync.storage.conflicts import Conflict
from sync.storage.crud_entry import CrudEntry
from sync.storage.upload_queue import BatchLimits, UploadQueueStats
from sync.watch.row_diff import RowDiff
from sync.watch.watched_queries import RowChanges, TableChanges, Watch
from sync.watch.window import RowWindow, WindowWatch

__version__ = "0.1.0"

__all__ = [
    "Accepted",
    "AccountMismatchError",
    "AuthError",
    "BackendConnector",
    "BatchLimits",
    "CheckpointRequest",
    "ChecksumError",
    "Column",
    "Conflict",
    "ConnectedError",
    "ConnectorError",
    "CrudBatch",
    "CrudEntry",
    "CrudTransaction",
    "DatabaseClosedError",
    "DatabaseInUseError",
    "DatabaseOpenError",
    "FileInspection",
    "Hold",
    "Index",
    "IndexedColumn",
    "NestedUseError",
    "NetworkError",
    "NoRowError",
    "NotConnectedError",
    "OpenProcess",
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
    "Rejected",
    "RejectedWrite",
    "RescueError",
    "Rescued",
    "Retry",
    "Row",
    "RowChanges",
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
    "TransactionConnector",
    "UploadHeldError",
    "UploadQueueStats",
    "UploadRetryError",
    "UploadStalledError",
    "Verdict",
    "Watch",
    "WindowWatch",
    "WriteRejectedError",
    "inspect",
    "rescue",
    "verdict_for_status",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
