"""What the loops need from an app's connector.

Owns the credentials that it returns, and its interface as the loops use it. Must not know the database that uploads
are read from: `Connector` is generic over its type.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar, cast

from sync.errors import ConnectorError

DatabaseT_contra = TypeVar("DatabaseT_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class PowerSyncCredentials:
    """Where the sync service is, and the token to use there.

    Attributes:
        endpoint: base URL of the service, http or https, without the path of an API call.
        token: a JWT; never shown in logs or in `repr`.
        expires_at: when the token expires, if known (UTC).
        user_id: the user's id; None uses the token's `sub` claim, if it has one. A file with changes of one user is
            not synced as another (`AccountMismatchError`).

    Raises:
        ConnectorError: the endpoint is not an http(s) URL, or the token contains invalid characters.
    """

    endpoint: str
    token: str = field(repr=False)
    expires_at: datetime | None = None
    user_id: str | None = None

    def __post_init__(self) -> None:
        if not self.endpoint.startswith(("http://", "https://")):
            raise ConnectorError(f"The sync service's address {self.endpoint!r} is not an http:// or https:// URL.")
        if not self.token or not all("!" <= character <= "~" for character in self.token):
            raise ConnectorError("The token is empty, or contains spaces, line breaks or other invalid characters.")

    def claims(self) -> dict[str, Any]:
        """What the token says (`exp`, `sub`, …); nothing if it is not a JWT. The signature is not checked."""
        parts = self.token.split(".")
        if len(parts) != 3:
            return {}
        try:
            payload: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except (ValueError, RecursionError):
            return {}
        return cast("dict[str, Any]", payload) if isinstance(payload, dict) else {}


class Connector(Protocol[DatabaseT_contra]):
    """The methods of `sync.BackendConnector`, which documents them."""

    async def fetch_credentials(self) -> PowerSyncCredentials:
        """Get credentials for the sync service."""
        ...

    async def upload_data(self, database: DatabaseT_contra) -> None:
        """Upload what is in the queue of `database`."""
        ...
