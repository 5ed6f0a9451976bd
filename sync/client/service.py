"""The sync service over HTTP: the stream and the checkpoint requests.

Owns requests, deadlines, and the translation of HTTP errors into the engine's typed errors. Must not know the file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, cast

import httpx
import msgspec

from sync.client.connector import PowerSyncCredentials
from sync.client.credentials import without_tokens
from sync.errors import AuthError, NetworkError, ProtocolError, ServiceError
from sync.protocol import StreamRequest

_MAX_SHORT_BODY = 64 * 1024


class SyncService:
    """One sync service. Uses `client` and leaves it open; times are in seconds; `user_agent` is sent if given."""

    def __init__(
        self, client: httpx.AsyncClient, connect_timeout: float, silence_timeout: float, user_agent: str | None
    ) -> None:
        self._client = client
        self._user_agent = user_agent
        self._connect_timeout = connect_timeout
        self._short = httpx.Timeout(connect_timeout)
        self._stream = httpx.Timeout(connect_timeout, read=silence_timeout)
        self._silence_timeout = silence_timeout

    @asynccontextmanager
    async def open_stream(
        self, credentials: PowerSyncCredentials, request: StreamRequest
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Open the stream (`POST /sync/stream`) and yield its bytes as they arrive.

        Raises:
            AuthError: the credentials were rejected.
            ServiceError: another HTTP error.
            NetworkError: no connection, a dropped one, or silence beyond the deadline.
        """
        headers = self._headers(credentials) | {
            "Content-Type": "application/json",
            "Accept": "application/x-ndjson",
            "Accept-Encoding": "zstd, gzip",
        }
        try:
            async with self._client.stream(
                "POST",
                _url(credentials, "/sync/stream"),
                content=request.encode(),
                headers=headers,
                timeout=self._stream,
            ) as response:
                if response.status_code != HTTPStatus.OK:
                    raise _error_of(response, await self._body_of_error(response), credentials)
                yield response.aiter_bytes()
        except httpx.ReadTimeout as error:
            raise NetworkError(
                f"The sync service was silent for {self._silence_timeout:g} seconds; the connection was closed."
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NetworkError(_network_trouble(error)) from error

    async def request_checkpoint(self, credentials: PowerSyncCredentials, client_id: str, request_id: int) -> int:
        """Request a checkpoint that includes everything written so far, and return its id.

        An id greater than `request_id` means that this one was used before; retry with a greater one.

        Raises:
            ServiceError: with status 404, the service is older than 1.24 and has only the legacy endpoint.
            AuthError, NetworkError: as for the stream.
            ProtocolError: the response is invalid.
        """
        body = await self._send(
            credentials,
            "POST",
            "/sync/checkpoint-request",
            json={"client_id": client_id, "checkpoint_request_id": str(request_id)},
        )
        return _checkpoint_id(body, "checkpoint_request_id")

    async def legacy_write_checkpoint(self, credentials: PowerSyncCredentials, client_id: str) -> int:
        """The same for services before 1.24, which choose the ids themselves. Raises as `request_checkpoint`."""
        body = await self._send(credentials, "GET", "/write-checkpoint2.json", params={"client_id": client_id})
        return _checkpoint_id(body, "write_checkpoint")

    async def _send(self, credentials: PowerSyncCredentials, method: str, path: str, **arguments: Any) -> bytes:
        deadline = asyncio.timeout(self._connect_timeout)
        try:
            async with (
                deadline,
                self._client.stream(
                    method,
                    _url(credentials, path),
                    headers=self._headers(credentials),
                    timeout=self._short,
                    **arguments,
                ) as response,
            ):
                body = await _short_body(response)
        except TimeoutError as error:
            raise NetworkError(f"The sync service did not answer within {self._connect_timeout:g} seconds.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NetworkError(_network_trouble(error)) from error
        if response.status_code != HTTPStatus.OK:
            raise _error_of(response, body, credentials)
        return body

    async def _body_of_error(self, response: httpx.Response) -> bytes:
        """Empty if it does not arrive: the status alone says that the request was rejected."""
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await _short_body(response)
        except (TimeoutError, httpx.HTTPError):
            return b""

    def _headers(self, credentials: PowerSyncCredentials) -> dict[str, str]:
        headers = {"Authorization": f"Token {credentials.token}"}
        if self._user_agent is not None:
            headers["User-Agent"] = self._user_agent
        return headers


def is_offline(error: Exception) -> bool:
    """Whether an error, possibly from a connector, only means that something could not be reached, which is normal."""
    return isinstance(error, NetworkError | OSError | httpx.TransportError)


def _url(credentials: PowerSyncCredentials, path: str) -> str:
    return credentials.endpoint.rstrip("/") + path


def _checkpoint_id(body: bytes, key: str) -> int:
    try:
        return int(msgspec.json.decode(body)["data"][key])
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError("The sync service sent an invalid response to a checkpoint request.") from error


def _network_trouble(error: Exception) -> str:
    if isinstance(error, httpx.LocalProtocolError):
        return "The request to the sync service could not be sent."  # the error may quote headers, and so the token
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "The sync service cannot be reached."
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
        return "The connection to the sync service broke."
    if isinstance(error, httpx.DecodingError):
        return "The sync service sent data that cannot be decompressed."
    return f"The sync service cannot be reached: {str(error) or type(error).__name__}."


async def _short_body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_SHORT_BODY:
            break
    return bytes(body)


def _error_of(response: httpx.Response, body: bytes, credentials: PowerSyncCredentials) -> ServiceError:
    """The error that a response describes: `{"error": {"code", "description", …}}` from the service itself.

    It is shown to people, so any part of the token in it is removed.
    """
    code: str | None = None
    description = f"The sync service rejected the request: {response.reason_phrase or 'no reason given'}."
    try:
        decoded: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        decoded = None
    if isinstance(decoded, dict) and isinstance(error := cast("dict[str, Any]", decoded).get("error"), dict):
        fields = cast("dict[str, Any]", error)
        code = without_tokens(str(fields["code"]), [credentials.token]) if "code" in fields else None
        description = str(fields.get("description") or description)
    kind = AuthError if response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} else ServiceError
    return kind(response.status_code, code, without_tokens(description, [credentials.token]), _retry_after(response))


def _retry_after(response: httpx.Response) -> float | None:
    """In seconds; the header has either seconds or a date (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "")
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds)
