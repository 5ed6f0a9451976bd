"""How an app may tune synchronization. Owns `SyncOptions` and its defaults; decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx


def _nothing() -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions:
    """Options of `PowerSyncDatabase.connect`. All times are in seconds.

    Attributes:
        params: client parameters, visible to the service's sync config.
        app_metadata: shown in the service's logs.
        include_default_streams: subscribe to the streams that the service gives to everyone.
        crud_throttle: how long local writes gather before an upload begins.
        retry_delay: the first wait after a failure; it doubles up to `max_retry_delay`, with full jitter.
        max_retry_delay: the longest wait after a failure.
        credentials_timeout: deadline of the connector's `fetch_credentials`.
        upload_timeout: deadline of the connector's `upload_data`, counted from its last completed transaction.
        connect_timeout: deadline for a connection and for the answers of short requests.
        silence_timeout: a stream that is silent for so long is given up; healthy ones speak every 22 seconds.
        http_client: used instead of a client of the engine's own; it stays open.
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
    http_client: httpx.AsyncClient | None = None
