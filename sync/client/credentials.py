"""Credentials for the service: fetched from the connector, kept until they expire or are refused.

Owns the cache and the deadline of the connector's `fetch_credentials`. Tokens never reach a log.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from datetime import UTC, datetime
from typing import Any, cast

from sync.connector import BackendConnector, PowerSyncCredentials
from sync.errors import ConnectorError

RENEW_BEFORE_EXPIRY_SECONDS = 30.0


class CredentialsCache:
    """The newest credentials of one connector."""

    def __init__(self, connector: BackendConnector, timeout: float) -> None:
        self._connector = connector
        self._timeout = timeout
        self._credentials: PowerSyncCredentials | None = None
        self._fetching = asyncio.Lock()

    async def get(self) -> PowerSyncCredentials:
        """Credentials that are valid for a while yet, fetched if need be.

        Raises:
            ConnectorError: the connector did not answer in time.
            Exception: whatever the connector raises.
        """
        async with self._fetching:
            if self._credentials is None or _expires_soon(self._credentials):
                self._credentials = await self._fetch()
            return self._credentials

    async def renew(self) -> None:
        """Fetch new credentials; the old ones stay in use until the new ones are there."""
        async with self._fetching:
            self._credentials = await self._fetch()

    def discard(self) -> None:
        """Forget the credentials: the service refused them."""
        self._credentials = None

    async def _fetch(self) -> PowerSyncCredentials:
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                return await self._connector.fetch_credentials()
        except TimeoutError as error:
            if deadline.expired():
                raise ConnectorError(f"No credentials came within {self._timeout:g} seconds.") from error
            raise


def credentials_expiry(credentials: PowerSyncCredentials) -> datetime | None:
    """When (UTC) credentials expire, as given or as the token itself says; None if neither does."""
    expiry = _expiry(credentials)
    try:
        return None if expiry is None else datetime.fromtimestamp(expiry, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _expires_soon(credentials: PowerSyncCredentials) -> bool:
    expiry = _expiry(credentials)
    return expiry is not None and expiry - time.time() < RENEW_BEFORE_EXPIRY_SECONDS


def _expiry(credentials: PowerSyncCredentials) -> float | None:
    """Seconds since the epoch, as given or as the token itself says; None if neither does."""
    if credentials.expires_at is not None:
        return credentials.expires_at.timestamp()
    parts = credentials.token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    expiry = cast("dict[str, Any]", payload).get("exp") if isinstance(payload, dict) else None
    return float(expiry) if isinstance(expiry, int | float) else None
