"""How an app may tune synchronization. Owns `SyncOptions`, its defaults and its validation; decides nothing else."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import ssl

    import httpx

_POSITIVE = (
    "retry_delay",
    "max_retry_delay",
    "credentials_timeout",
    "upload_timeout",
    "connect_timeout",
    "silence_timeout",
)


def _nothing() -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions:
    """Options of `PowerSyncDatabase.connect`. All times are in seconds.

    Attributes:
        params: client parameters, visible to the service's sync config: anything that JSON can represent.
        app_metadata: shown in the service's logs.
        include_default_streams: subscribe to the streams that the service subscribes everyone to.
        crud_throttle: how long local writes are collected before an upload begins.
        retry_delay: the first wait after a failure; it doubles up to `max_retry_delay`, with full jitter, and starts
            over after a success. A local write, `connect` and the network's return cut it short; only `connect` cuts
            short a wait that the service or the backend asked for (`Retry-After`).
        max_retry_delay: the longest wait after a failure, including the first, even if a longer one was requested.
        credentials_timeout: deadline of the connector's `fetch_credentials`.
        upload_timeout: deadline of the connector's `upload_data`, counted from its last completed transaction.
        connect_timeout: deadline for connecting, and for the responses to short requests.
        silence_timeout: a stream that is silent for this long is closed; healthy ones send a line every 22 seconds.
        user_agent: sent with each request to the sync service; None names this engine, or keeps that of `http_client`.
        proxy: URL of an HTTP proxy for everything; None uses the environment's, except for localhost.
        verify: how to verify the service's certificate: against the system's authorities (True), against those in a
            PEM file or a directory (a path), with the app's own context, or not at all (False).
        http_client: used instead of the engine's own client; it stays open. It has its own proxy and TLS settings.

    Raises:
        ValueError: an option is out of range, or two contradict each other.
    """

    params: Mapping[str, Any] = field(default_factory=_nothing)
    app_metadata: Mapping[str, str] = field(default_factory=_nothing)
    include_default_streams: bool = True
    crud_throttle: float = 0.01
    retry_delay: float = 1.0
    max_retry_delay: float = 60.0
    credentials_timeout: float = 30.0
    upload_timeout: float = 60.0
    connect_timeout: float = 10.0
    silence_timeout: float = 50.0
    user_agent: str | None = None
    proxy: str | None = field(default=None, repr=False)
    verify: bool | str | Path | ssl.SSLContext = True
    http_client: httpx.AsyncClient | None = None

    def __post_init__(self) -> None:
        if not self.crud_throttle >= 0:
            raise ValueError(f"crud_throttle is {self.crud_throttle}; it must not be negative.")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be more than 0 seconds.")
        if self.user_agent is not None and not (self.user_agent.isascii() and self.user_agent.isprintable()):
            raise ValueError("user_agent must be printable ASCII: it is sent as an HTTP header.")
        if self.proxy is not None and not self.proxy.startswith(("http://", "https://")):
            raise ValueError("proxy must be an http:// or https:// URL.")
        if self.http_client is not None and (self.proxy is not None or self.verify is not True):
            raise ValueError("proxy and verify are for the engine's own HTTP client; set them on http_client itself.")
        # Copied, so that a comparison of options notices when the app changes its own dictionaries later.
        object.__setattr__(self, "params", _json_object("params", self.params))
        object.__setattr__(self, "app_metadata", _json_object("app_metadata", self.app_metadata))


def _json_object(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    copied = copy.deepcopy(dict(value))
    try:
        msgspec.json.encode(copied)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} cannot be sent as JSON: {error}.") from error
    return copied
