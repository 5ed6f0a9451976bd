"""What the demo backend is told when it starts, and the one error it stops with.

Holds plain values only. Imports nothing heavy, so that the command line can read the
defaults without paying for a web server.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """How much may be asked for at once. What is over it is answered with 429, and when to come again."""

    streams: int = 5000
    """Open sync streams in all."""
    streams_per_user: int = 1000
    """Open sync streams of one user."""
    requests_per_second: float = 500.0
    """Other requests of one address, on average."""
    request_burst: int = 2000
    """Other requests of one address at once."""
    refused_per_second: float = 1.0
    """Refused sign-ins of one address, on average: guessing keys is slow."""
    refused_burst: int = 20
    """Refused sign-ins of one address at once."""


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
    """Mean time between two keepalive lines of a sync stream; each is up to 10 % early or late."""
    token_seconds: int = 300
    """How long a token is valid, in seconds."""
    open_to_all: bool = False
    """Whether anybody gets a token for any user, without a key, as from the official demo backend."""
    audience: str = "todo-tui"
    """For whom tokens are."""
    shared_secret: bytes | None = field(default=None, repr=False)
    """Tokens signed with it (HS256) are taken too; for tests."""
    sync_port: int | None = None
    """TCP port of the sync side; 0 picks a free one, None serves both sides on one."""
    access_log: bool = False
    """Whether each request is logged."""
    limits: Limits = field(default_factory=Limits)
    """How much one user, and all together, may ask for."""
    sync_config: Path | None = None
    """The file that says who syncs what; None for the one that comes with todo-tui."""
    compact_seconds: float = 10.0
    """How long after a commit the operation log is compacted."""
    postgres: str | None = field(default=None, repr=False)
    """URL of a PostgreSQL database that keeps the rows instead of the file, for a PowerSync Service to replicate; the
    file keeps the signing key and who may sign in. It may hold a password."""
    powersync_url: str | None = None
    """Where clients find the sync side, if that is not this backend."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`, an address or a name. Looks no name up."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        # Short for an IPv4 address, such as 127.1.
        return ip_address(socket.inet_aton(host)).is_loopback
    except (OSError, ValueError):
        return host.lower() == "localhost"


class BackendError(Exception):
    """The backend cannot start; the message is one sentence for the user: what, where, what to do."""
