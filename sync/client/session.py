"""One session: the download loop and the upload loop of one connector, and the HTTP client that they share.

Owns what they work with. Imported when a database first connects, in a thread, since importing httpx takes a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from sync.client.connector import Connector
from sync.client.context import DatabaseContext, SessionContext
from sync.client.credentials import CredentialsCache
from sync.client.download import DownloadLoop
from sync.client.network import follow_network
from sync.client.options import SyncOptions
from sync.client.service import SyncService
from sync.client.upload import UploadLoop
from sync.storage import account

# httpx would import these on its first request, on the event loop, and block it for 20 ms.
for _late in ("httpcore", "anyio", "anyio._backends._asyncio"):
    with contextlib.suppress(ImportError):
        importlib.import_module(_late)


async def run_session(
    database: DatabaseContext,
    connector: Connector[Any],
    options: SyncOptions,
    upload: Callable[[], Awaitable[None]],
) -> None:
    """Keep the file in sync with the service until cancelled.

    Args:
        database: the database to sync.
        connector: provides the credentials.
        options: how to sync.
        upload: calls the connector's `upload_data`.
    """
    pool = database.pool

    async def claim(user_id: str) -> None:
        if await pool.read(account.owner) != user_id:
            await pool.write(lambda connection: account.claim(connection, user_id))

    async with http_client(options) as client:
        context = SessionContext(
            pool=pool,
            board=database.board,
            raw_tables=database.schema.raw_tables,
            streams=database.streams,
            mail=database.mail,
            options=options,
            service=SyncService(client, options.connect_timeout, options.silence_timeout, _user_agent(options)),
            credentials=CredentialsCache(connector, options.credentials_timeout, claim),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(DownloadLoop(context).run(), name="sync: download")
            group.create_task(UploadLoop(context, upload).run(), name="sync: upload")
            group.create_task(follow_network(database.mail.retry_now), name="sync: network")


@asynccontextmanager
async def http_client(options: SyncOptions) -> AsyncGenerator[httpx.AsyncClient]:
    """The app's own client, left open, or a new one. Reading certificates blocks, so it happens in a thread."""
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
    """The option if given; otherwise the engine's own, or that of the app's client."""
    if options.user_agent is not None or options.http_client is not None:
        return options.user_agent
    return f"todo-tui-sync httpx/{httpx.__version__} Python/{sys.version_info.major}.{sys.version_info.minor}"
