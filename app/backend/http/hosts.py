"""Which host names the backend accepts: protection against DNS rebinding.

A browser lets a page of another site reach this machine through a host name that the site's owner resolves to a
loopback address. Such a request is recognized by its Host header.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.backend.errors import RequestError, answer_to

LOOPBACK_NAMES = frozenset({"127.0.0.1", "::1", "localhost"})

_HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^:\[\]]+))(?::[0-9]*)?", re.IGNORECASE)


def host_name(header: str) -> str | None:
    """Return the name or address in a Host header, in lower case, without brackets and port; None if it is invalid."""
    match = _HOST.fullmatch(header)
    return None if match is None else (match["address"] or match["name"]).lower()


class OnlyHosts:
    """ASGI middleware that rejects requests for any other host name with 421."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, or reject the request."""
        if scope["type"] == "http" and host_name(Headers(scope=scope).get("host", "")) not in self._names:
            description = "This backend only accepts the host names 127.0.0.1, [::1] and localhost."
            await answer_to(RequestError(421, "wrong_host", description, name="HostError"))(scope, receive, send)
            return
        await self._app(scope, receive, send)
