"""The settings of the demo backend, and the error that keeps it from starting.

Holds plain values only. Imports nothing heavy, so that the command line can read the
defaults without loading a web server.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """Rate and connection limits. A request over a limit is answered with 429 and `Retry-After`."""

    streams: int = 5000
    """Maximum number of open sync streams in total."""
    streams_per_user: int = 1000
    """Maximum number of open sync streams per user."""
    requests_per_second: float = 500.0
    """Average rate of other requests per address."""
    request_burst: int = 2000
    """Maximum burst of other requests per address."""
    refused_per_second: float = 1.0
    """Average rate of refused sign-ins per address; low, to slow down guessing keys."""
    refused_burst: int = 20
    """Maximum burst of refused sign-ins per address."""


@dataclass(frozen=True)
class BackendConfig:
    """Settings of one backend process."""

    database: Path
    """The SQLite file; it and its directory are created if missing."""
    host: str = "127.0.0.1"
    """Address or name to listen on."""
    port: int = 6161
    """TCP port; 0 picks a free one."""
    keepalive_seconds: float = 20.0
    """Mean interval between the keepalive lines of a sync stream, in seconds; varies by up to 10 % between streams."""
    token_seconds: int = 300
    """How long a token is valid, in seconds."""
    open_to_all: bool = False
    """Whether to issue a token for any user to anyone, without a key, as the official demo backend does."""
    audience: str = "todo-tui"
    """The audience (`aud`) of tokens."""
    shared_secret: bytes | None = field(default=None, repr=False)
    """Secret for tokens signed with HS256, which are then accepted as well; for tests."""
    sync_port: int | None = None
    """TCP port of the sync API; 0 picks a free one, None serves both APIs on one port."""
    access_log: bool = False
    """Whether to log each request."""
    limits: Limits = field(default_factory=Limits)
    """Rate and connection limits."""
    sync_config: Path | None = None
    """The file that defines who syncs what; None for the one shipped with todo-tui."""
    compact_seconds: float = 10.0
    """Interval at which the operation log is compacted, in seconds, if anything was committed in the meantime."""
    postgres: str | None = field(default=None, repr=False)
    """URL of a PostgreSQL database that stores the rows instead of the file, for a PowerSync Service to replicate. The
    file still stores the signing key and who may sign in. The URL may contain a password."""
    powersync_url: str | None = None
    """URL of the sync service for clients, if it is not this backend."""


def is_loopback(host: str) -> bool:
    """Whether `host`, an address or a name, is reachable from this machine only. Does not use DNS."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        # An abbreviated IPv4 address, such as 127.1.
        return ip_address(socket.inet_aton(host)).is_loopback
    except (OSError, ValueError):
        return host.lower() == "localhost"


class BackendError(Exception):
    """The backend cannot start. The message is one sentence for the user: what failed, where, and what to do."""
