"""Connects the sync engine to the backend: tokens, and the upload of local changes.

Owns the HTTP client, the tokens and the error messages about them. What is sent, and what the answers mean, is
`app.connection.upload_interfaces`'; what happens to a rejected write is the engine's. Must not know what a to-do is.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Sequence
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx

from app.connection.backend_check import BackendCheck
from app.connection.upload_interfaces import UPLOAD_INTERFACES, UploadInterfaceName, json_object, sentence_of
from app.system.sign_in_keys import ANSWER_HEADER, SignInKey, is_answered, prove
from sync import (
    Accepted,
    CrudTransaction,
    NetworkError,
    PowerSyncCredentials,
    PowerSyncDatabase,
    TransactionConnector,
    Verdict,
)

_GREATEST_CHECKPOINT = 2**63 - 1


class BackendUnreachableError(NetworkError):
    """The backend did not answer, or not in time. Nothing is lost: what was to be sent is sent later."""


class BackendRefusedError(Exception):
    """The backend answered, but not with what was requested.

    Attributes:
        status: its HTTP status; a success if the answer was not understood.
    """

    def __init__(self, status: int, sentence: str) -> None:
        self.status = status
        super().__init__(sentence)


class HttpConnector(TransactionConnector):
    """Talks to a backend with the interface of one of the official demos. Close it with `aclose`.

    Args:
        backend_url: base URL of the backend.
        user_id: whose token is requested; None for the user of the key.
        service_url: base URL of the sync service; None takes the one that the backend returns, or else `backend_url`.
        interface: how the backend wants its uploads.
        checkpoints_by_backend: ask the backend for a custom write checkpoint after each upload.
        check: gives the key to sign in with, and is asked whether this is the right backend.
        timeout: seconds that one request may take, with its answer.

    More than five parameters, because each is a setting of its own; most callers name the first two.
    """

    def __init__(
        self,
        backend_url: str,
        user_id: str | None,
        service_url: str | None = None,
        *,
        interface: UploadInterfaceName = "batch",
        checkpoints_by_backend: bool = False,
        check: BackendCheck | None = None,
        timeout: float = 20.0,
    ) -> None:
        self._interface = UPLOAD_INTERFACES[interface]
        self._checkpoints_by_backend = checkpoints_by_backend
        self._client_id = ""
        self.limits = self._interface.limits
        self._backend_url = backend_url.rstrip("/")
        self._user_id = user_id
        self._service_url = service_url
        self._check = check or BackendCheck()
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
            BackendRefusedError: it issued no token.
            Exception: whatever the `BackendCheck` raises.
        """
        await self._check.verify()
        key = await self._check.sign_in_key()
        user_id = self._user_id or ""
        proof = None if key is None else prove(key, user_id, httpx.URL(self._backend_url).netloc.decode(), time.time())
        response = await self._request(
            "GET",
            self._interface.token_path,
            params={"user_id": user_id} if user_id else {},
            headers={} if proof is None else {"Authorization": proof.header},
        )
        if not response.is_success:
            raise BackendRefusedError(response.status_code, f"The backend issued no token: {sentence_of(response)}")
        answer = json_object(response)
        token = answer.get("token")
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise BackendRefusedError(
                response.status_code, f"{self._backend_url} answered without a token; it may not be a to-do backend."
            )
        answered = response.headers.get(ANSWER_HEADER, "")
        if key is not None and proof is not None and not is_answered(key, proof, token, answered):
            raise BackendRefusedError(
                response.status_code,
                f"The server at {self._backend_url} does not know the sign-in key; it may be another program, or an "
                "older todo-tui. No data was sent to it.",
            )
        # The service may be behind another address than the backend believes: what the user set comes first.
        said = answer.get("powersync_url")
        endpoint = self._service_url or (_http_url(said) if isinstance(said, str) else None) or self._backend_url
        credentials = PowerSyncCredentials(endpoint, token)
        known_as = credentials.claims().get("sub")
        if self._user_id is not None and isinstance(known_as, str) and known_as != self._user_id:
            # What one user writes and another syncs would vanish from here.
            raise BackendRefusedError(
                response.status_code,
                f"{self._backend_url} signs everybody in as user {known_as[:60]!r}; set user_id to that.",
            )
        # Once more: another backend may have taken the address in between, and this be its token.
        await self._check.verify()
        if self._check.claims_backend:
            await self._check.claim(await self._backend_id())
        self._token = token
        return credentials

    async def _backend_id(self) -> str | None:
        response = await self._request("GET", "/probes/liveness")
        answer = json_object(response) if response.is_success else {}
        backend_id = answer.get("backend_id")
        return backend_id if isinstance(backend_id, str) and answer.get("name") == "todo-tui backend" else None

    async def upload_data(self, database: PowerSyncDatabase) -> None:
        """Empty the queue, as far as the verdicts allow. Raises as `TransactionConnector.upload_data`."""
        if self._checkpoints_by_backend:
            self._client_id = await database.client_id()
        await super().upload_data(database)

    async def upload_transactions(self, transactions: Sequence[CrudTransaction]) -> Sequence[Verdict]:
        """Send transactions, in order.

        Raises:
            BackendUnreachableError: it did not answer in time; what it did not confirm stays in the queue.
            BackendRefusedError: it issued no token, or no checkpoint.
        """
        verdicts = await self._interface.upload(self._send, transactions)
        if not self._checkpoints_by_backend or not any(isinstance(verdict, Accepted) for verdict in verdicts):
            return verdicts
        checkpoint = Accepted(await self._new_checkpoint())
        return [checkpoint if isinstance(verdict, Accepted) else verdict for verdict in verdicts]

    async def _new_checkpoint(self) -> int:
        """A custom write checkpoint: a checkpoint with this number will contain what was uploaded so far."""
        body = json.dumps({"user_id": self._user_id, "client_id": self._client_id}).encode()
        response = await self._send("PUT", "/api/data/checkpoint", body)
        checkpoint = json_object(response).get("checkpoint") if response.is_success else None
        if isinstance(checkpoint, str) and checkpoint.isascii() and checkpoint.isdecimal():
            checkpoint = int(checkpoint)
        if not isinstance(checkpoint, int) or not 0 < checkpoint < _GREATEST_CHECKPOINT:
            reason = sentence_of(response) if not response.is_success else "its answer has none."
            raise BackendRefusedError(
                response.status_code, f"The backend returned no checkpoint; check checkpoint_mode: {reason}"
            )
        return checkpoint

    async def _send(self, method: str, path: str, body: bytes) -> httpx.Response:
        token = self._token or (await self.fetch_credentials()).token
        response = await self._send_with(token, method, path, body)
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            # The token has expired, or belongs to another backend that used this address before.
            response = await self._send_with((await self.fetch_credentials()).token, method, path, body)
        return response

    async def _send_with(self, token: str, method: str, path: str, body: bytes) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return await self._request(method, path, content=body, headers=headers)

    async def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        if self._client is None:
            self._client = _new_client(self._backend_url, self._timeout)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._client.request(method, self._backend_url + path, **arguments)
        except (TimeoutError, httpx.TimeoutException):
            raise BackendUnreachableError(f"The backend {self._backend_url} did not answer in time.") from None
        except httpx.DecodingError:
            raise BackendUnreachableError(f"The answer of the backend {self._backend_url} cannot be decoded.") from None
        except httpx.HTTPError as error:
            reason = str(error).rstrip(".") or "the connection was lost"
            raise BackendUnreachableError(f"The backend {self._backend_url} cannot be reached: {reason}.") from error


async def user_of_key(backend_url: str, key: SignInKey) -> str:
    """The user whose lists a sign-in key opens, as the backend says.

    Raises:
        BackendUnreachableError: the backend did not answer in time.
        BackendRefusedError: it does not accept the key, or does not know it.
    """
    connector = HttpConnector(backend_url, None, check=BackendCheck(key))
    try:
        user_id = (await connector.fetch_credentials()).claims().get("sub")
    finally:
        await connector.aclose()
    if not isinstance(user_id, str) or not user_id:
        raise BackendRefusedError(200, f"{backend_url} does not say whose lists the key opens.")
    return user_id


def _new_client(backend_url: str, timeout: float) -> httpx.AsyncClient:
    parts = urlsplit(backend_url)
    return httpx.AsyncClient(
        timeout=timeout,
        # Otherwise a Django backend answers an error with a page of 100 kB for browsers.
        headers={"Accept": "application/json"},
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


def _http_url(text: str) -> str | None:
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    return text.rstrip("/") if parts.scheme in ("http", "https") and parts.hostname else None
