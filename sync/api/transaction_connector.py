"""A connector that answers for each transaction with a verdict, and leaves the queue to the engine.

Owns what a verdict does to the queue. Must not know HTTP: how a backend's answer becomes a verdict is the connector's,
with `sync.api.verdicts` to help.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sync.api.connector import BackendConnector
from sync.api.verdicts import Accepted, Hold, Rejected, Retry, Verdict
from sync.errors import ConnectorError, UploadHeldError, UploadRetryError
from sync.storage.upload_queue import BatchLimits

if TYPE_CHECKING:
    from sync.api.database import PowerSyncDatabase
    from sync.api.upload_queue import CrudTransaction

logger = logging.getLogger("sync.upload")


class TransactionConnector(BackendConnector):
    """Uploads batches of whole transactions; no write is lost, and none blocks the queue for ever.

    Attributes:
        limits: how much `upload_transactions` gets at once.
        attempts: a transaction whose rejection is not final is rejected at the attempt of this number.
    """

    limits: BatchLimits = BatchLimits()
    attempts: int = 3
    _refused: tuple[int, int] = (0, 0)

    @abstractmethod
    async def upload_transactions(self, transactions: Sequence[CrudTransaction]) -> Sequence[Verdict]:
        """Upload transactions in their order, and answer for each that was tried.

        Called with at least one. The first verdict is for the first transaction, and so on; the answer may be shorter
        than the question: what was not tried comes again. After a verdict other than accepted or (finally) rejected
        nothing that follows is looked at. An exception is as good as a retry.
        """

    async def upload_data(self, database: PowerSyncDatabase) -> None:
        """Empty the queue, as far as the verdicts allow.

        Raises:
            UploadRetryError: the backend could not carry out a transaction now.
            UploadHeldError: a transaction has to wait for something else.
            ConnectorError: there are more verdicts than transactions, or none.
        """
        while batch := await database.crud_transaction_batch(self.limits):
            verdicts = await self.upload_transactions(batch)
            if not 0 < len(verdicts) <= len(batch):
                raise ConnectorError(
                    f"The connector gave {len(verdicts)} verdicts for {len(batch)} transactions; nothing was changed."
                )
            await self._carry_out(batch, verdicts)

    async def _carry_out(self, batch: Sequence[CrudTransaction], verdicts: Sequence[Verdict]) -> None:
        accepted: CrudTransaction | None = None
        checkpoint: int | None = None
        for transaction, verdict in zip(batch, verdicts, strict=False):
            if isinstance(verdict, Accepted):
                accepted, checkpoint = transaction, verdict.checkpoint
                continue
            if accepted is not None:
                await accepted.complete(checkpoint)
                accepted = None
            await self._refuse(transaction, verdict)
        if accepted is not None:
            await accepted.complete(checkpoint)

    async def _refuse(self, transaction: CrudTransaction, verdict: Retry | Rejected | Hold) -> None:
        match verdict:
            case Retry():
                raise UploadRetryError(verdict.reason, verdict.after, renew_credentials=verdict.renew_credentials)
            case Hold():
                raise UploadHeldError(verdict.reason)
            case Rejected():
                if not verdict.final and self._refusals_of(transaction) < self.attempts:
                    raise UploadRetryError(verdict.reason)
                logger.warning("a change was rejected and is kept apart: %s", verdict.reason)
                await transaction.reject(verdict.reason, code=verdict.code, operation_index=verdict.operation_index)

    def _refusals_of(self, transaction: CrudTransaction) -> int:
        """How often the transaction was refused, this time included. Only the first of the queue can be."""
        number = transaction.crud[0].client_id
        refused_before, count = self._refused
        count = count + 1 if number == refused_before else 1
        self._refused = (number, count)
        return count
