"""The process around the application: its sockets, the web server, signals, and a clean shutdown.

Binds its ports before it opens any file, so that a port in use leaves nothing behind. Does not know what the routes do.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from filelock import BaseFileLock, Timeout
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from app.backend import errors
from app.backend.config import BackendConfig, BackendError, is_loopback
from app.backend.data.changes import Changes
from app.backend.data.database import check_file
from app.backend.data.file import lock_of
from app.backend.http.access_log import AccessLog
from app.backend.http.hosts import LOOPBACK_NAMES, OnlyHosts
from app.backend.http.limits import RequestLimit
from app.backend.http.probes import Probes
from app.backend.http.service import Service
from app.backend.http.sync_api import SyncApi, sync_elsewhere
from app.backend.http.write_api import WriteApi

_STOP_SECONDS = 3
_LOCK_SECONDS = 5.0
_BACKLOG = 128
_MAX_PORT = 65535
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound


class Side(Enum):
    """Which APIs of the backend an application serves."""

    BOTH = "both"
    WRITE = "write"
    SYNC = "sync"


def build_app(service: Service, side: Side = Side.BOTH) -> Starlette:
    """Return the application for `service`, which its lifespan opens and closes."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        await service.open()
        try:
            yield
        finally:
            await service.close()

    host = service.config.host.lower()
    middleware = [Middleware(RequestLimit, limits=service.config.limits)]
    if service.config.access_log:
        middleware.insert(0, Middleware(AccessLog))
    if is_loopback(host):
        middleware.append(Middleware(OnlyHosts, names={*LOOPBACK_NAMES, host}))
    return Starlette(
        routes=[
            *(WriteApi(service).routes() if side is not Side.SYNC else ()),
            *(_sync_routes(service) if side is not Side.WRITE else ()),
            *Probes(service).routes(),
        ],
        middleware=middleware,
        lifespan=lifespan,
        exception_handlers={
            errors.RequestError: errors.answer_request_error,
            HTTPException: errors.answer_http_exception,
            sqlite3.Error: errors.answer_database_error,
            errors.DatabaseTroubleError: errors.answer_database_error,
            Exception: errors.answer_unexpected,
        },
    )


def _sync_routes(service: Service) -> list[Route]:
    return sync_elsewhere(service.config.powersync_url) if service.config.postgres else SyncApi(service).routes()


class _Server(uvicorn.Server):
    """A uvicorn server that signals when it is ready, ends streams on shutdown, and does not re-raise signals."""

    def __init__(self, config: uvicorn.Config, changes: Changes) -> None:
        super().__init__(config)
        self._changes = changes
        self.ready = asyncio.Event()
        self.ended_by: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn waits for open connections, and a sync stream would keep one open for minutes.
        self._changes.close()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.ended_by = sig
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on SIGINT and SIGTERM; restore the previous handlers afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        previous = [signal.signal(number, self.handle_exit) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, previous, strict=True):
                signal.signal(number, handler)


async def run(
    config: BackendConfig, *, stop: asyncio.Event | None, on_ready: Callable[[str], None] | None
) -> int | None:
    """Serve as documented in `app.backend.serve`."""
    with ExitStack() as listening:
        listeners = [listening.enter_context(closing(await asyncio.to_thread(_bind, config.host, config.port)))]
        if config.sync_port is not None:
            sync_side = await asyncio.to_thread(_bind, config.host, config.sync_port)
            listeners.append(listening.enter_context(closing(sync_side)))
        async with _exclusive_lock(config.database):
            service = Service(config)
            try:
                await service.open()
                return await _serve(listeners, service, stop=stop, on_ready=on_ready)
            finally:
                listening.close()
                await service.close()


@asynccontextmanager
async def _exclusive_lock(database: Path) -> AsyncGenerator[None]:
    """Hold the lock of a database file, because streams only notice commits of their own process.

    Waits a few seconds for a previous backend that is still shutting down.
    """
    lock = lock_of(database, timeout=_LOCK_SECONDS)
    acquiring = asyncio.create_task(asyncio.to_thread(_acquire, lock, database))
    try:
        await asyncio.shield(acquiring)
        yield
    finally:
        # The thread cannot be cancelled, so wait for it and release the lock that it may have acquired.
        await asyncio.gather(acquiring, return_exceptions=True)
        lock.release()


def _acquire(lock: BaseFileLock, database: Path) -> None:
    try:
        check_file(database)
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise BackendError(f"Another backend already serves {database}; stop it or choose another file.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise BackendError(
            f"Cannot use the database {database}: {reason}; check its directory or choose another file."
        ) from error


async def _serve(
    listeners: list[socket.socket],
    service: Service,
    *,
    stop: asyncio.Event | None,
    on_ready: Callable[[str], None] | None,
) -> int | None:
    """Serve both APIs on one listener, or each on its own, until one of the servers stops."""
    sides = [Side.BOTH] if len(listeners) == 1 else [Side.WRITE, Side.SYNC]
    if len(listeners) > 1:
        service.sync_port = listeners[1].getsockname()[1]
    servers = [_server(service, side) for side in sides]
    port = listeners[0].getsockname()[1]
    serving = [
        asyncio.create_task(server.serve(sockets=[listener]))
        for server, listener in zip(servers, listeners, strict=True)
    ]
    starting = asyncio.create_task(_all_ready(servers))
    waits: list[asyncio.Task[Any]] = [starting]
    try:
        await asyncio.wait({*serving, starting}, return_when=asyncio.FIRST_COMPLETED)
        if on_ready is not None and starting.done():
            on_ready(_base_url(service.config.host, port))
        if stop is not None:
            waits.append(asyncio.create_task(stop.wait()))
        await asyncio.wait({*serving, *waits[1:]}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        for server in servers:
            server.should_exit = True
        try:
            await asyncio.shield(asyncio.gather(*serving))
        except asyncio.CancelledError:
            for task in serving:
                task.cancel()
            raise
    return next((server.ended_by for server in servers if server.ended_by is not None), None)


async def _all_ready(servers: list[_Server]) -> None:
    for server in servers:
        await server.ready.wait()


def _server(service: Service, side: Side) -> _Server:
    return _Server(
        uvicorn.Config(
            build_app(service, side),
            http="h11",
            ws="none",
            lifespan="off",  # `run` opens and closes the service, once for all servers
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
        ),
        service.changes,
    )


def _bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises BackendError if the port or the host cannot be used."""
    # getaddrinfo silently reduces a larger number modulo 65536.
    if not 0 <= port <= _MAX_PORT:
        raise BackendError(f"Cannot listen on port {port}; choose a port from 0 to {_MAX_PORT}.")
    try:
        family, *_, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        return _listen(family, address)
    except OSError as error:
        where = f"port {port} of {host or 'this machine'}"
        if error.errno == errno.EADDRINUSE:
            reason = f"Another program is already using {where}; stop it or choose another port."
        elif error.errno in (errno.EACCES, errno.EPERM):
            reason = f"No permission to listen on {where}; choose a port above 1023."
        else:
            reason = f"Cannot listen on {where}: {error.strerror or error}; choose an address of this machine."
        raise BackendError(reason) from error
    except UnicodeError as error:
        raise BackendError(
            f"Cannot listen on {host!r}: it is not a valid host name; choose an address of this machine."
        ) from error


def _listen(family: socket.AddressFamily, address: Any) -> socket.socket:
    # Without an explicit protocol, asyncio leaves Nagle's algorithm enabled, which costs 40 ms per response.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            # A restart must not have to wait until the connections of the previous process have timed out.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _base_url(host: str, port: int) -> str:
    reachable = _WILDCARDS.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
