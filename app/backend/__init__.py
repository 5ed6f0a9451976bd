"""The demo backend: the official Node demo's HTTP interface and a PowerSync-compatible sync service.

One process, one SQLite file, one port. This module is the public interface and must stay cheap to
import: the web server and the cryptography are loaded when `create_app` or `serve` is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.backend.config import BackendConfig, BackendError, Limits, is_loopback

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["BackendConfig", "BackendError", "Limits", "create_app", "is_loopback", "serve"]


def create_app(config: BackendConfig) -> Starlette:
    """Return the backend as an ASGI application whose lifespan opens and closes the database.

    When it is run by another server than `serve`, open sync streams end only when their token
    expires or the server cancels them.

    On startup, the lifespan raises BackendError if the database cannot be opened.
    """
    from app.backend.http.server import build_app
    from app.backend.http.service import Service

    return build_app(Service(config))


async def serve(
    config: BackendConfig,
    *,
    stop: asyncio.Event | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> int | None:
    """Serve until `stop` is set, SIGINT or SIGTERM arrives, or the caller cancels.

    `on_ready` is called once with the base URL when the server is ready to accept requests. On
    shutdown, open sync streams end immediately, and the call returns within about four seconds
    even if a client never reads. Signals are handled only on the main thread. Cancellation shuts
    down just as cleanly and then raises CancelledError; a second cancellation abandons the clients
    that are still connected.

    Returns the number of the signal that stopped the server, or None.

    Raises BackendError if the port is taken or the database cannot be opened.
    """
    from app.backend.http.server import run

    return await run(config, stop=stop, on_ready=on_ready)
