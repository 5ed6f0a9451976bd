"""One session: the download loop and the upload loop of one connector, and the HTTP client that they share.

Owns how the loops wake each other. Imported when a database first connects, and in a thread, since httpx takes a while
to import.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from sync.client.connector import Connector
from sync.client.credentials import CredentialsCache
from sync.client.download import DownloadLoop
from sync.client.network import follow_network
from sync.client.options import SyncOptions
from sync.client.service import SyncService
from sync.client.upload import UploadLoop
from sync.schema.raw_tables import RawTable
from sync.sqlite.pool import ConnectionPool
from sync.status.status import StatusBoard
from sync.storage import account
from sync.storage.subscriptions import StreamKey

# httpx would import these with its first request, on the event loop, and block it for 20 ms.
for _late in ("httpcore", "anyio", "anyio._backends._asyncio"):
    with contextlib.suppress(ImportError):
        importlib.import_module(_late)


class Session:
    """Keeps file and service in step until `run` is cancelled."""

    def __init__(
        self,
        pool: ConnectionPool,
        board: StatusBoard,
        connector: Connector[Any],
        options: SyncOptions,
        client: httpx.AsyncClient,
        upload: Callable[[Connector[Any]], Awaitable[None]],
        streams_in_use: Callable[[], Iterable[StreamKey]],
        raw_tables: Callable[[], tuple[RawTable, ...]],
    ) -> None:
        service = SyncService(client, options.connect_timeout, options.silence_timeout, _user_agent(options))
        credentials = CredentialsCache(connector, options.credentials_timeout, self._claim)
        self._pool = pool
        self._download = DownloadLoop(
            pool,
            board,
            service,
            credentials,
            options,
            streams_in_use=streams_in_use,
            raw_tables=raw_tables,
            on_connected=self._connected,
            on_sign_of_life=self.look_again,
        )
        self._uploads = UploadLoop(
            pool,
            board,
            service,
            credentials,
            options,
            upload=lambda: upload(connector),
            on_completed=self._download.uploads_completed,
        )

    async def run(self) -> None:
        """Run both loops; neither ends by itself."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._download.run(), name="sync: download")
            group.create_task(self._uploads.run(), name="sync: upload")
            group.create_task(follow_network(self.wake), name="sync: network")

    async def _claim(self, user_id: str) -> None:
        if await self._pool.read(account.owner) != user_id:
            await self._pool.write(lambda connection: account.claim(connection, user_id))

    def wake(self, *, force: bool = False) -> None:
        """Cut the waits of both loops short: something was written, the network changed, or the app connects.

        Only the app insists: then also waits that the service or the backend asked for end.
        """
        self._download.wake(force=force)
        self._uploads.wake(force=force)

    def _connected(self) -> None:
        # What could not be reached a moment ago is worth another try.
        self._uploads.wake()

    def look_again(self) -> None:
        """Look at the upload queue, unless a failed attempt is being waited for."""
        self._uploads.look_again()

    def upload_progressed(self) -> None:
        """A transaction was completed."""
        self._uploads.progressed()

    def subscriptions_changed(self) -> None:
        """The subscriptions in the file changed."""
        self._download.subscriptions_changed()


@asynccontextmanager
async def http_client(options: SyncOptions) -> AsyncGenerator[httpx.AsyncClient]:
    """The app's own client, left open, or a new one. Reading certificates blocks, so that happens in a thread."""
    if options.http_client is not None:
        yield options.http_client
        return
    async with await asyncio.to_thread(_new_client, options) as client:
        yield client


def _new_client(options: SyncOptions) -> httpx.AsyncClient:
    verify = options.verify
    if isinstance(verify, str | Path):
        path = Path(verify)
        verify = ssl.create_default_context(
            cafile=None if path.is_dir() else str(path), capath=str(path) if path.is_dir() else None
        )
    if options.proxy is not None:
        return httpx.AsyncClient(verify=verify, proxy=options.proxy)
    # A proxy set in the environment cannot reach this machine's own loopback interface.
    direct = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}
    return httpx.AsyncClient(verify=verify, mounts=direct)


def _user_agent(options: SyncOptions) -> str | None:
    """As asked for; otherwise the engine's own, or whatever the app's client says."""
    if options.user_agent is not None or options.http_client is not None:
        return options.user_agent
    return f"todo-tui-sync httpx/{httpx.__version__} Python/{sys.version_info.major}.{sys.version_info.minor}"
