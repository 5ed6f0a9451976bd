"""What an app implements to connect the engine to its backend.

Owns the `BackendConnector` interface and the credentials it gives. Must not know how the engine schedules the calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from sync.errors import ConnectorError

if TYPE_CHECKING:
    from sync.database import PowerSyncDatabase


@dataclass(frozen=True, slots=True)
class PowerSyncCredentials:
    """Where the sync service is, and the token to use there.

    Attributes:
        endpoint: base URL of the service, http or https, without a path of its own.
        token: a JWT; it is never shown in logs or in `repr`.
        expires_at: when the token expires, if known (UTC).
        user_id: whose credentials they are; None takes the token's `sub` claim, if it has one. A file with changes of
            one user is not synced as another (`AccountMismatchError`).

    Raises:
        ConnectorError: the endpoint is not an http(s) URL, or the token has characters that no token has.
    """

    endpoint: str
    token: str = field(repr=False)
    expires_at: datetime | None = None
    user_id: str | None = None

    def __post_init__(self) -> None:
        if not self.endpoint.startswith(("http://", "https://")):
            raise ConnectorError(f"The sync service's address {self.endpoint!r} is not an http:// or https:// URL.")
        if not self.token or not all("!" <= character <= "~" for character in self.token):
            raise ConnectorError("The token is empty or has a space, a line end or the like in it.")


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
