"""Credentials for the service: fetched from the connector, kept until they expire or are rejected.

Owns the cache, when it is renewed, the deadline of the connector's `fetch_credentials`, and the rule that credentials
are used only once the file was claimed for their user. Tokens never reach a log: `redacted` removes them from messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, cast

from sync.client.connector import Connector, PowerSyncCredentials
from sync.client.connector_call import connector_call
from sync.errors import AccountMismatchError, ConnectorError

RENEW_BEFORE_EXPIRY_SECONDS = 30.0

_LOOK_AT_CLOCK_SECONDS = 60.0
"""A clock that was set, or a machine that slept, is noticed within this time."""

_TOKENS_REMEMBERED = 4
_JWT = re.compile(r"\beyJ[\w-]*\.[\w-]+\.[\w-]*")


class CredentialsCache:
    """The newest credentials of one connector, shared by the loops, which wait for the same fetch.

    Args:
        connector: provides them.
        timeout: seconds that it may take.
        claim: assigns the file to the user with this id, or raises AccountMismatchError.
    """

    def __init__(
        self, connector: Connector[Any], timeout: float, claim: Callable[[str], Awaitable[None]] | None = None
    ) -> None:
        self._connector = connector
        self._timeout = timeout
        self._claim = claim
        self._is_user_claimed = False
        self._credentials: PowerSyncCredentials | None = None
        self._fetching = asyncio.Lock()
        self._changed = asyncio.Event()
        self._renewal_requested = False
        self._tokens: deque[str] = deque(maxlen=_TOKENS_REMEMBERED)

    async def get(self) -> PowerSyncCredentials:
        """Credentials that do not expire soon, fetched if necessary.

        Raises:
            ConnectorError: the connector did not return in time, or returned something other than credentials.
            AccountMismatchError: they belong to a user other than the file's. They are not kept: the next call
                fetches again.
            Exception: whatever the connector raises.
        """
        async with self._fetching:
            if self._credentials is None or _seconds_left(self._credentials) < RENEW_BEFORE_EXPIRY_SECONDS:
                self._credentials = await self._fetch()
            return self._credentials

    async def ensure_user_claimed(self) -> None:
        """Return once the file is claimed for the connector's user; raises as `get`.

        Unlike `get`, accepts credentials that have expired: an upload may not need them.
        """
        if not self._is_user_claimed:
            await self.get()

    async def renew(self) -> None:
        """Fetch new credentials; the old ones stay in use until the new ones arrive. Raises as `get`."""
        async with self._fetching:
            self._credentials = await self._fetch()

    def discard(self, refused: PowerSyncCredentials | None = None) -> None:
        """Drop credentials that were rejected, unless they were already replaced; None drops the current ones."""
        if refused is None or self._credentials is refused:
            self._credentials = None

    def request_renewal(self) -> None:
        """Request new credentials: the service says that the current ones expire soon."""
        self._renewal_requested = True
        self._changed.set()

    async def until_renewal_is_due(self) -> None:
        """Wait until the credentials in use expire soon, according to the service or to themselves.

        For credentials that expire soon from the start, only the service counts: either they are short-lived, or
        this machine's clock is wrong, and by the clock they would be renewed again and again.
        """
        while not self._renewal_requested:
            self._changed.clear()
            credentials = self._credentials
            left = 0.0 if credentials is None else _seconds_left(credentials) - RENEW_BEFORE_EXPIRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _LOOK_AT_CLOCK_SECONDS) if left > 0 else None):
                    await self._changed.wait()
            if left > 0 and credentials is not None and credentials is self._credentials:
                self._renewal_requested |= _seconds_left(credentials) <= RENEW_BEFORE_EXPIRY_SECONDS
        self._renewal_requested = False

    def redacted(self, error: Exception) -> str:
        """The message of an error, without tokens."""
        return without_tokens(str(error) or type(error).__name__, self._tokens)

    async def _fetch(self) -> PowerSyncCredentials:
        overdue = ConnectorError(f"fetch_credentials did not return within {self._timeout:g} seconds.")
        async with connector_call(self._timeout, overdue):
            fetched = await cast("Awaitable[object]", self._connector.fetch_credentials())
        if not isinstance(fetched, PowerSyncCredentials):
            raise ConnectorError(f"fetch_credentials returned {type(fetched).__name__}, not PowerSyncCredentials.")
        await self._claim_for_user_of(fetched)
        if fetched.token not in self._tokens:
            self._tokens.append(fetched.token)
        self._renewal_requested = False
        self._changed.set()
        return fetched

    async def _claim_for_user_of(self, credentials: PowerSyncCredentials) -> None:
        user_id = credentials_user(credentials)
        if self._claim is not None and user_id is not None:
            try:
                await self._claim(user_id)
            except AccountMismatchError:
                self._credentials = None
                self._is_user_claimed = False
                raise
        self._is_user_claimed = True


def credentials_user(credentials: PowerSyncCredentials) -> str | None:
    """The user's id, as given or from the token itself; None if unknown."""
    if credentials.user_id is not None:
        return credentials.user_id
    subject = credentials.claims().get("sub")
    return subject if isinstance(subject, str) and subject else None


def without_tokens(text: str, tokens: Iterable[str] = ()) -> str:
    """A text for people, without these tokens and without anything that looks like one."""
    for token in tokens:
        text = text.replace(token, "[token]")
    return _JWT.sub("[token]", text)


def credentials_expiry(credentials: PowerSyncCredentials) -> datetime | None:
    """When (UTC) credentials expire, as given or from the token itself; None if unknown."""
    if credentials.expires_at is not None:
        return credentials.expires_at
    expiry = credentials.claims().get("exp")
    try:
        return datetime.fromtimestamp(expiry, UTC) if isinstance(expiry, int | float) else None
    except (ValueError, OverflowError, OSError):
        return None


def _seconds_left(credentials: PowerSyncCredentials) -> float:
    expiry = credentials_expiry(credentials)
    return float("inf") if expiry is None else expiry.timestamp() - time.time()
