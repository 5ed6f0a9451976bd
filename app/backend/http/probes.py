"""Health probes, at the same paths as those of the PowerSync Service.

Decides what a probe discloses, and to whom. Probes are served on every port and need no token.
"""

from __future__ import annotations

import ipaddress

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.backend.http.hosts import LOOPBACK_NAMES, host_name
from app.backend.http.service import Service, version
from app.backend.http.write_api import json_answer

_PROXY_HEADERS = ("forwarded", "x-forwarded-for")


class Probes:
    """The routes under `/probes`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/probes/liveness", self.liveness, methods=["GET"]),
            Route("/probes/readiness", self.readiness, methods=["GET"]),
            Route("/probes/startup", self.readiness, methods=["GET"]),
        ]

    async def readiness(self, _request: Request) -> Response:
        """Report that the databases can be read; database errors are answered with 503, as everywhere."""
        opened = self._service.opened
        await opened.database.read(lambda connection: connection.execute("SELECT 1 FROM meta").fetchone())
        await opened.rows.check()
        return json_answer({"ready": True, "started": True})

    async def liveness(self, request: Request) -> Response:
        """Report that the backend is running and its id; the path of its file only to clients on this machine."""
        answer = {
            "ready": True,
            "name": "todo-tui backend",
            "version": version(),
            "backend_id": str(self._service.opened.backend_id),
        }
        if _is_from_this_machine(request):
            answer["database"] = str(self._service.config.database.absolute())
        return json_answer(answer)


def _is_from_this_machine(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _PROXY_HEADERS):
        return False
    if host_name(request.headers.get("host", "")) not in LOOPBACK_NAMES:
        # DNS rebinding: the page of another site reaches this backend through a host name of its own.
        return False
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
