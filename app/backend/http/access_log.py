"""The access log: one line of JSON per request, written when the request ends.

Decides what a line contains: never a query string, a header or a body, because those can contain tokens and keys.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("app.backend.access")


class AccessLog:
    """ASGI middleware that logs each request at level INFO."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application and log the request when it ends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        client = scope.get("client")
        # The path is untrusted input: limit its length, and replace characters that cannot be printed.
        path = "".join(character if character.isprintable() else "\ufffd" for character in scope["path"][:200])
        line: dict[str, Any] = {"client": client[0] if client else None, "method": scope["method"], "path": path}
        status, size = 0, 0

        async def watch(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            milliseconds = round((time.monotonic() - started) * 1000, 1)
            line |= {"status": status, "bytes": size, "ms": milliseconds}
            _log.info("%s", msgspec.json.encode(line).decode())
