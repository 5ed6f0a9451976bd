"""The upload queue as an app and its connector see it: transactions, batches, and what was rejected.

Owns the handles and what their methods promise. The tables behind them are `sync.storage`'s; when an upload runs is
`sync.client.upload`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from sync.client.mailbox import UploadMailbox
from sync.sqlite.pool import ConnectionPool
from sync.storage import rejected_writes, upload_queue
from sync.storage.crud_entry import CrudEntry
from sync.storage.current_schema import CurrentSchema
from sync.storage.rejected_writes import Rejection, StoredRejection
from sync.storage.upload_queue import BatchLimits, UploadQueueStats


class UploadQueue:
    """The queue of one database.

    Args:
        pool: the database file.
        schema: the app's schema.
        mail: the upload loop's mailbox, notified when something leaves the queue.
    """

    def __init__(self, pool: ConnectionPool, schema: CurrentSchema, mail: UploadMailbox) -> None:
        self._pool = pool
        self._schema = schema
        self._mail = mail
        self._gone_up_to = 0
        self._rejections = 0

    async def transactions(self) -> AsyncIterator[CrudTransaction]:
        """See `PowerSyncDatabase.crud_transactions`. Reads ahead, and again once something was removed mid-queue."""
        after = 0
        while batch := await self.next_transactions(BatchLimits(), after):
            rejections = self._rejections
            for transaction in batch:
                if self._rejections != rejections:
                    break
                after = transaction.crud[-1].client_id
                if after > self._gone_up_to:
                    yield transaction

    async def next_transactions(self, limits: BatchLimits, after: int = 0) -> tuple[CrudTransaction, ...]:
        """The first transactions after the entry `after`, never split, within limits; empty if there are none."""
        found = await self._pool.read(lambda connection: upload_queue.next_transactions(connection, after, limits))
        return tuple(CrudTransaction(entries, self) for entries in found)

    async def batch(self, limit: int) -> CrudBatch | None:
        """See `PowerSyncDatabase.crud_batch`."""
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}.")
        entries = await self._pool.read(lambda connection: upload_queue.next_entries(connection, limit + 1))
        return CrudBatch(entries[:limit], len(entries) > limit, self) if entries else None

    async def stats(self) -> UploadQueueStats:
        """See `PowerSyncDatabase.upload_queue_stats`."""
        return await self._pool.read(upload_queue.stats)

    async def complete(self, up_to: int, checkpoint: int | None) -> None:
        """Remove the entries up to the number `up_to`."""
        insert_only = self._schema.insert_only_tables
        await self._pool.write(lambda connection: upload_queue.complete(connection, up_to, checkpoint, insert_only))
        self._gone_up_to = max(self._gone_up_to, up_to)
        self._mail.progressed.set()

    async def reject(self, first: int, last: int, rejection: Rejection) -> None:
        """Move the entries `first` to `last` to the rejected writes."""
        await self._pool.write(lambda connection: rejected_writes.reject(connection, first, last, rejection))
        self._rejections += 1
        self._mail.progressed.set()

    async def rejected_writes(self) -> list[RejectedWrite]:
        """See `PowerSyncDatabase.rejected_writes`."""
        return [RejectedWrite(stored, self) for stored in await self._pool.read(rejected_writes.rejected_writes)]

    async def retry(self, rejected: int, edited: Sequence[CrudEntry] | None) -> bool:
        """Put a rejected write back into the queue. Returns whether it still existed."""
        insert_only = self._schema.insert_only_tables
        return await self._pool.write(
            lambda connection: rejected_writes.retry(connection, rejected, edited, insert_only)
        )

    async def put_back(self, entries: Sequence[CrudEntry]) -> None:
        """See `PowerSyncDatabase.put_back`."""
        insert_only = self._schema.insert_only_tables
        await self._pool.write(lambda connection: rejected_writes.put_back(connection, entries, insert_only))

    async def discard(self, rejected: int) -> bool:
        """Delete a rejected write. Returns whether it still existed."""
        return await self._pool.write(lambda connection: rejected_writes.discard(connection, rejected))


@dataclass(frozen=True, slots=True)
class CrudTransaction:
    """A local transaction waiting for upload.

    Attributes:
        crud: its entries, in the order in which they were made.
    """

    crud: tuple[CrudEntry, ...]
    _queue: UploadQueue = field(repr=False)

    @property
    def transaction_id(self) -> int | None:
        """Shared by all entries of one SQLite transaction."""
        return self.crud[0].transaction_id

    async def complete(self, checkpoint: int | None = None) -> None:
        """Remove this transaction and all before it from the queue: the backend has answered for them.

        Args:
            checkpoint: a custom write checkpoint from the backend, if the service is configured for them.
        """
        await self._queue.complete(self.crud[-1].client_id, checkpoint)

    async def reject(self, reason: str, *, code: str | None = None, operation_index: int | None = None) -> None:
        """Move this transaction, and no other, to the rejected writes: the backend rejected it permanently.

        It is in the queue or in the rejected writes, never in both or neither. Its rows show the server's values again
        once everything in the queue is uploaded.

        Args:
            reason: the backend's message.
            code: the backend's code.
            operation_index: the index in `crud` of the entry at fault.
        """
        rejection = Rejection(reason, code, operation_index)
        await self._queue.reject(self.crud[0].client_id, self.crud[-1].client_id, rejection)


@dataclass(frozen=True, slots=True)
class CrudBatch:
    """Entries from the front of the queue, regardless of transactions.

    Attributes:
        crud: the entries, in the order in which they were made.
        have_more: whether the queue has more after them.
    """

    crud: tuple[CrudEntry, ...]
    have_more: bool
    _queue: UploadQueue = field(repr=False)

    async def complete(self, checkpoint: int | None = None) -> None:
        """Remove these entries from the queue: the backend has answered for them. See `CrudTransaction.complete`."""
        await self._queue.complete(self.crud[-1].client_id, checkpoint)


@dataclass(frozen=True, slots=True)
class RejectedWrite:
    """A local transaction that the backend rejected permanently, kept until the app retries or discards it."""

    _stored: StoredRejection
    _queue: UploadQueue = field(repr=False, compare=False)

    @property
    def id(self) -> int:
        """Its id among the rejected writes of this file."""
        return self._stored.id

    @property
    def crud(self) -> tuple[CrudEntry, ...]:
        """Its entries, in order."""
        return self._stored.crud

    @property
    def server_rows(self) -> tuple[dict[str, Any] | None, ...]:
        """For each entry, the server's row as this device had it at the rejection, or None if it had none."""
        return self._stored.server_rows

    @property
    def reason(self) -> str:
        """The backend's message."""
        return self._stored.rejection.reason

    @property
    def code(self) -> str | None:
        """The backend's code, or None."""
        return self._stored.rejection.code

    @property
    def operation_index(self) -> int | None:
        """The index in `crud` of the entry at fault, if the backend said."""
        return self._stored.rejection.operation_index

    @property
    def rejected_at(self) -> datetime:
        """When it was last rejected (UTC)."""
        return self._stored.rejected_at

    @property
    def attempts(self) -> int:
        """How often it has been rejected in total."""
        return self._stored.attempts

    async def retry(self) -> bool:
        """Put it back at the end of the upload queue, as one transaction, and show its effect again.

        In a raw table, the effect shows when the service sends it back.

        Returns:
            Whether it still existed: if it was retried or discarded elsewhere, nothing happens.
        """
        return await self._queue.retry(self.id, None)

    async def retry_with(self, edited: Sequence[CrudEntry]) -> bool:
        """Like `retry`, with other entries: `msgspec.structs.replace(entry, data=...)` makes one from another.

        Raises:
            ValueError: `edited` is empty.
        """
        if not edited:
            raise ValueError("There are no entries to upload instead; to drop a rejected write, call discard().")
        return await self._queue.retry(self.id, tuple(edited))

    async def discard(self) -> bool:
        """Delete it permanently. Returns whether it still existed."""
        return await self._queue.discard(self.id)

    def export(self) -> dict[str, Any]:
        """Everything known about it, as values that can be encoded as JSON."""
        return {
            "id": self.id,
            "reason": self.reason,
            "code": self.code,
            "operation_index": self.operation_index,
            "rejected_at": self.rejected_at.isoformat(),
            "attempts": self.attempts,
            "crud": msgspec.to_builtins(self.crud),
            "server_rows": list(self.server_rows),
        }
