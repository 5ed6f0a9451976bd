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
    """Connects the engine to one backend. Both calls may raise anything: the engine reports it and tries again."""

    @abstractmethod
    async def fetch_credentials(self) -> PowerSyncCredentials:
        """Get credentials for the sync service. Called on connect, ahead of expiry, and after a refusal.

        They also tell who the user is, so nothing is uploaded before they were given once.

        The call is cancelled after 30 seconds, and when the app disconnects.
        """

    @abstractmethod
    async def upload_data(self, database: PowerSyncDatabase) -> None:
        """Upload what waits in the queue, completing each transaction once the backend has answered for it.

        Called while the queue is not empty, never twice at once. A transaction that is not completed stays in the
        queue and is tried again. The call is cancelled after 60 seconds without a completed transaction, and when
        the app disconnects; a transaction whose answer was lost that way is uploaded once more.
        """
