"""Connects the sync engine to the backend: tokens, and the upload of what the user wrote.

Owns the HTTP of the backend's `/api` and its error sentences. Must not know what a to-do is, nor decide that a write is
given up: a transaction is completed only when the backend has accepted it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import urlsplit

import httpx

from sync import BackendConnector, CrudEntry, PowerSyncCredentials, PowerSyncDatabase

_MAX_SENTENCE = 300


class BackendUnreachableError(Exception):
    """The backend did not answer, or not in time. What was to be sent is kept and sent later."""


class BackendRefusedError(Exception):
    """The backend answered, but not with what was asked for.

    Attributes:
        status: its HTTP status; 200 if the answer itself was not understood.
    """

    def __init__(self, status: int, sentence: str) -> None:
        self.status = status
        super().__init__(sentence)


class DemoConnector(BackendConnector):
    """Talks to a backend with the interface of the official Node demo. Close it with `aclose`.

    Args:
        backend_url: base URL of the backend.
        user_id: whose token is asked for.
        service_url: base URL of the sync service; None takes what the backend says, or else the backend itself.
        verify: called before and after each request for a token; if it raises, no token is asked for or used.
        claim: called when the backend has given a token, before that is used, with the id of its data if it tells one
            (the demo backend does, others need not); if it raises, the token is not used.
        timeout: seconds that one request may take, with its answer.
    """

    def __init__(
        self,
        backend_url: str,
        user_id: str,
        service_url: str | None = None,
        *,
        verify: Callable[[], Awaitable[None]] | None = None,
        claim: Callable[[str | None], Awaitable[None]] | None = None,
        timeout: float = 20.0,
    ) -> None:
        self._backend_url = backend_url.rstrip("/")
        self._user_id = user_id
        self._service_url = service_url
        self._verify = verify
        self._claim = claim
        self._timeout = timeout
        self._token: str | None = None
        self._client: httpx.AsyncClient | None = None

    async def aclose(self) -> None:
        """Close the HTTP client. May be called again."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def fetch_credentials(self) -> PowerSyncCredentials:
        """A new token, valid at the sync service and at the backend.

        Raises:
            BackendUnreachableError: the backend did not answer in time.
            BackendRefusedError: it gave no token.
            Exception: whatever `verify` or `claim` raises.
        """
        if self._verify is not None:
            await self._verify()
        response = await self._request("GET", "/api/auth/token", params={"user_id": self._user_id})
        if not response.is_success:
            raise BackendRefusedError(response.status_code, f"The backend gave no token: {_sentence_of(response)}")
        answer = _json_object(response)
        token = answer.get("token")
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise BackendRefusedError(
                response.status_code, f"{self._backend_url} answered without a token; it may not be a to-do backend."
            )
        if self._verify is not None:
            # Once more: another backend may have taken the address in between, and this be its token.
            await self._verify()
        if self._claim is not None:
            await self._claim(await self._told_id())
        self._token = token
        # The service may be behind another address than the backend believes: what the user set comes first.
        said = answer.get("powersync_url")
        endpoint = self._service_url or (_http_url(said) if isinstance(said, str) else None) or self._backend_url
        return PowerSyncCredentials(endpoint, token, _expiry(token))

    async def _told_id(self) -> str | None:
        response = await self._request("GET", "/probes/liveness")
        answer = _json_object(response) if response.is_success else {}
        backend_id = answer.get("backend_id")
        return backend_id if isinstance(backend_id, str) and answer.get("name") == "todo-tui backend" else None

    async def upload_data(self, database: PowerSyncDatabase) -> None:
        """Send each waiting transaction as one batch, in order, and complete it once the backend accepted it.

        Raises:
            BackendUnreachableError: no answer in time; the transaction stays in the queue.
            BackendRefusedError: the backend refused it; the transaction stays in the queue.
        """
        async for transaction in database.crud_transactions():
            await self._post(transaction.crud)
            await transaction.complete()

    async def _post(self, entries: Sequence[CrudEntry]) -> None:
        body = {"batch": [_operation(entry) for entry in entries]}
        token = self._token or (await self.fetch_credentials()).token
        response = await self._send(body, token)
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            # The token has expired, or is one of another backend that had this address before.
            response = await self._send(body, (await self.fetch_credentials()).token)
        if not response.is_success:
            raise BackendRefusedError(
                response.status_code, f"The backend did not accept a change: {_sentence_of(response)}"
            )

    async def _send(self, body: dict[str, Any], token: str) -> httpx.Response:
        return await self._request("POST", "/api/data", json=body, headers={"Authorization": f"Bearer {token}"})

    async def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        if self._client is None:
            self._client = _new_client(self._backend_url, self._timeout)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._client.request(method, self._backend_url + path, **arguments)
        except (TimeoutError, httpx.TimeoutException):
            raise BackendUnreachableError(f"The backend {self._backend_url} did not answer in time.") from None
        except httpx.DecodingError:
            raise BackendUnreachableError(f"The answer of the backend {self._backend_url} cannot be read.") from None
        except httpx.HTTPError as error:
            reason = str(error).rstrip(".") or "the connection broke"
            raise BackendUnreachableError(f"The backend {self._backend_url} cannot be reached: {reason}.") from error


def _new_client(backend_url: str, timeout: float) -> httpx.AsyncClient:
    parts = urlsplit(backend_url)
    return httpx.AsyncClient(
        timeout=timeout,
        # Without TLS no certificates are needed, and loading them takes longer than the first request.
        verify=True if parts.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        # A proxy set in the environment cannot reach this machine's own loopback interface.
        trust_env=not _is_loopback(parts.hostname or ""),
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _operation(entry: CrudEntry) -> dict[str, Any]:
    operation: dict[str, Any] = {"op": entry.op, "table": entry.table, "id": entry.id}
    if entry.data is not None:
        operation["data"] = entry.data
    return operation


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        value: Any = response.json()
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _sentence_of(response: httpx.Response) -> str:
    """What the server said about a refusal, as one line of bounded length."""
    answer = _json_object(response)
    error = answer.get("error")
    if isinstance(error, dict):
        said = cast("dict[str, Any]", error).get("description")
    else:
        said = error or answer.get("message")
    text = " ".join(said.split()) if isinstance(said, str) else response.reason_phrase
    return f"{text[:_MAX_SENTENCE].rstrip('.') or 'no reason given'} (HTTP {response.status_code})."


def _http_url(text: str) -> str | None:
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    return text.rstrip("/") if parts.scheme in ("http", "https") and parts.hostname else None


def _expiry(token: str) -> datetime | None:
    """When a JWT expires, as it says itself; the signature is for the servers to check."""
    try:
        payload = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, OSError, RecursionError):
        return None
