"""The demo backend: the official Node demo's HTTP interface and a PowerSync-compatible sync service.

One process, one SQLite file, one port. This module is its public face and must stay cheap to
import: the web server and the cryptography load when `create_app` or `serve` is called.
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
    """The backend as an ASGI application; its lifespan opens and closes the database.

    Under a server other than `serve`, open sync streams end only when their token expires or
    that server cancels them.

    Raises BackendError from the lifespan's start if the database cannot be opened.
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

    `on_ready` is called once with the base URL when requests are answered. Open sync streams end
    at once on the way out; the call returns within about four seconds even if a peer never reads.
    Signals are handled only on the main thread. Cancelling shuts down just as cleanly and then
    raises CancelledError; a second cancellation abandons the peers that are still connected.

    Returns the number of the signal that ended it, if one did.

    Raises BackendError if the port is taken or the database cannot be opened.
    """
    from app.backend.http.server import run

    return await run(config, stop=stop, on_ready=on_ready)
