"""Under which names the backend answers.

A browser lets a foreign page reach this machine under a name that the page's owner points here. The name in the
request's Host header gives that away.
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
    """The name or address in a Host header, in lower case, without brackets and port; None if it has none."""
    match = _HOST.fullmatch(header)
    return None if match is None else (match["address"] or match["name"]).lower()


class OnlyHosts:
    """ASGI middleware that refuses a request under any other name with 421."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] == "http" and host_name(Headers(scope=scope).get("host", "")) not in self._names:
            description = "This backend answers under 127.0.0.1, [::1] and localhost only."
            await answer_to(RequestError(421, "wrong_host", description, name="HostError"))(scope, receive, send)
            return
        await self._app(scope, receive, send)
