"""Names inside the database file: internal table names, and the keys of `ps_kv`.

Owns nothing but names. The only module that knows a table's name inside the file, and an operation's key.
"""

from __future__ import annotations

from sync.errors import ProtocolError
from sync.protocol.lines import Operation
from sync.schema.tables import Table

DATA_PREFIX = "ps_data__"
LOCAL_DATA_PREFIX = "ps_data_local__"

CLIENT_ID = "client_id"
LAST_REQUESTED = "last_requested_checkpoint_request_id"
TARGET = "target_checkpoint_request_id"
LAST_SEEN = "last_seen_checkpoint_request_id"
LAST_APPLIED = "last_applied_checkpoint_request_id"

CUSTOM_CHECKPOINT = "custom_checkpoint"
"""The backend's latest custom write checkpoint, if it uses them; only this engine stores it.

Its name must not sort between the two keys above: the triggers delete everything there.
"""

USER_ID = "user_id"
"""The user who owns the file. Only this engine stores it; official clients delete it when they clear the file."""

KEEPS_RECORDS = "keeps_records"
"""Set while tables that only this engine knows may contain a user's writes.

Every client deletes it when clearing the file, even one that leaves these tables as they are.
"""

IN_SYNC_OPERATION = "in_sync_operation"
"""A mark that exists only inside transactions in which the engine writes raw tables, to silence their triggers."""

STATUS_TABLES = frozenset({"ps_crud", "ps_sync_state", "ps_stream_subscriptions"})
"""A commit that changes one of these may change the sync status."""

TARGET_UNKNOWN = 9223372036854775807
"""Stored as the target while no checkpoint was requested yet for a waiting local write."""

COMPLETE_SYNC_PRIORITY = 2147483647
"""The priority in `ps_sync_state` that represents complete checkpoints."""


def data_table(table: Table) -> str:
    """The name of the table that contains the rows behind a view."""
    return (LOCAL_DATA_PREFIX if table.local_only else DATA_PREFIX) + table.name


def index_name(table: Table, index: str) -> str:
    """The name of an app's index on the rows behind a view."""
    return f"{data_table(table)}__{index}"


def operation_key(operation: Operation) -> str:
    """Identifies what an operation puts or removes; in a bucket, a newer operation with the same key supersedes it.

    Raises:
        ProtocolError: the operation lacks a type or an id.
    """
    if operation.object_type is None or operation.object_id is None:
        raise ProtocolError(f"The service sent operation {operation.op_id} ({operation.op}) without a type or an id.")
    subkey = "null" if operation.subkey is None else operation.subkey
    return f"{operation.object_type}/{operation.object_id}/{subkey}"
