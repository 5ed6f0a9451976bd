"""What the loops need of an app's connector.

Owns the credentials that it gives, and the calls that are made of it. Must not know the database that uploads are read
from: `Connector` is generic over its type.
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
    """The calls of `sync.BackendConnector`, which says what each of them promises."""

    async def fetch_credentials(self) -> PowerSyncCredentials:
        """Get credentials for the sync service."""
        ...

    async def upload_data(self, database: DatabaseT_contra) -> None:
        """Upload what waits in the queue of `database`."""
        ...
