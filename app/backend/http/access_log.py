"""One line of JSON for each request, when it ends.

Owns what is in it: never a query, a header or a body, for tokens and keys are there.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("app.backend.access")


class AccessLog:
    """ASGI middleware that logs at level INFO."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        client = scope.get("client")
        # Of the path the printable part only, and not endless: it is anybody's.
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
            milliseconds = round((time.monotonic() - began) * 1000, 1)
            line |= {"status": status, "bytes": size, "ms": milliseconds}
            _log.info("%s", msgspec.json.encode(line).decode())
