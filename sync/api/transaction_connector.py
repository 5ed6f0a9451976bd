"""A connector that returns a verdict for each transaction, and leaves the queue to the engine.

Owns what a verdict does to the queue. Must not know HTTP: the connector turns a backend's answer into a verdict, with
the help of `sync.api.verdicts`.
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
    """Uploads batches of whole transactions; no write is lost, and none blocks the queue forever.

    Attributes:
        limits: how much `upload_transactions` gets at once.
        attempts: how many attempts a transaction gets before a rejection that is not final counts as final.
    """

    limits: BatchLimits = BatchLimits()
    attempts: int = 3
    _refused: tuple[int, int] = (0, 0)

    @abstractmethod
    async def upload_transactions(self, transactions: Sequence[CrudTransaction]) -> Sequence[Verdict]:
        """Upload transactions in order, and return a verdict for each one that was attempted.

        Called with at least one. The first verdict is for the first transaction, and so on; there may be fewer verdicts
        than transactions: those not attempted are passed again. Verdicts that follow one other than accepted or
        (finally) rejected are ignored. An exception has the effect of a retry.
        """

    async def upload_data(self, database: PowerSyncDatabase) -> None:
        """Empty the queue, as far as the verdicts allow.

        Raises:
            UploadRetryError: the backend could not process a transaction now.
            UploadHeldError: a transaction has to wait for something else.
            ConnectorError: there are more verdicts than transactions, or none.
        """
        while batch := await database.crud_transaction_batch(self.limits):
            verdicts = await self.upload_transactions(batch)
            if not 0 < len(verdicts) <= len(batch):
                raise ConnectorError(
                    f"The connector returned {len(verdicts)} verdicts for {len(batch)} transactions; "
                    "nothing was changed."
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
                logger.warning("a change was rejected and moved to the rejected writes: %s", verdict.reason)
                await transaction.reject(verdict.reason, code=verdict.code, operation_index=verdict.operation_index)

    def _refusals_of(self, transaction: CrudTransaction) -> int:
        """How often the transaction was refused, including this time. Only the first in the queue can be."""
        number = transaction.crud[0].client_id
        refused_before, count = self._refused
        count = count + 1 if number == refused_before else 1
        self._refused = (number, count)
        return count
