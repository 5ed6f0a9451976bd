"""What an app implements to connect the engine to its backend.

Owns the `BackendConnector` interface. Must not know how the engine schedules the calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sync.client.connector import PowerSyncCredentials

if TYPE_CHECKING:
    from sync.api.database import PowerSyncDatabase


class BackendConnector(ABC):
    """Connects the engine to one backend. Both methods may raise anything: the engine reports it and retries."""

    @abstractmethod
    async def fetch_credentials(self) -> PowerSyncCredentials:
        """Get credentials for the sync service. Called on connect, before they expire, and after a rejection.

        They also identify the user, so nothing is uploaded until they have been returned once.

        The call is cancelled after 30 seconds, and when the app disconnects.
        """

    @abstractmethod
    async def upload_data(self, database: PowerSyncDatabase) -> None:
        """Upload what is in the queue, completing each transaction once the backend has answered for it.

        Called while the queue is not empty, never concurrently. A transaction that is not completed stays in the
        queue and is retried. The call is cancelled after 60 seconds without a completed transaction, and when
        the app disconnects; a transaction whose answer was lost that way is uploaded again.
        """
