"""The lists, opened: for the interface, for `sync`, and for the length of one command.

Owns the order in which data directory, account, backend and database are opened and closed. Must not know what is done
with the lists. Must import nothing heavy at module level.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from app.cli.context import settings_of
from app.system.user_error import UserError

if TYPE_CHECKING:
    from app.connection.account import Account
    from app.connection.embedded_backend import BackendState, EmbeddedBackend
    from app.settings.settings import Settings
    from app.store import Store, TodoList
    from sync import BackendConnector, PowerSyncDatabase

T = TypeVar("T")

_FLUSH_SECONDS = 10.0
_LONGEST_RETRY_SECONDS = 10.0
"""Somebody looks at the screen, or waits for the command: a backend that is back should be noticed soon."""


@dataclass(frozen=True, slots=True)
class OpenStore:
    """The lists, while they are open.

    Attributes:
        store: the lists.
        database: the engine's database below it.
        account: whose they are.
        embedded: the backend inside todo-tui, if this process syncs with it.
    """

    store: Store
    database: PowerSyncDatabase
    account: Account
    embedded: EmbeddedBackend | None = None

    async def all_lists(self) -> list[TodoList]:
        """All lists, oldest first."""
        async for lists in self.store.watch_lists():
            return lists
        return []


@asynccontextmanager
async def open_store(
    settings: Settings, *, syncs: bool = False, on_backend_change: Callable[[BackendState], None] | None = None
) -> AsyncGenerator[OpenStore]:
    """The lists of a data directory, which is created if it does not exist.

    Args:
        settings: those of the run.
        syncs: whether `Store.connect` starts syncing; else it does nothing, and no backend is started.
        on_backend_change: called on the event loop after each change of the state of the backend inside todo-tui.

    Raises:
        UserError: the directory, the database or the backend cannot be used, or the lists belong to another user or
            backend.
    """
    import asyncio

    from app.connection.account import account_of
    from app.store.schema import APP_SCHEMA
    from sync import PowerSyncDatabase
    from sync.errors import DatabaseOpenError

    make_data_directory(settings.data_dir)
    with _unawaited_threads():
        account = await asyncio.to_thread(account_of, settings)
        async with AsyncExitStack() as stack:
            connector, embedded = None, None
            if syncs:
                from app.connection.open_connector import open_connector

                connector, embedded = await stack.enter_async_context(
                    open_connector(settings, account, on_backend_change)
                )
            try:
                database = await stack.enter_async_context(PowerSyncDatabase(settings.data_dir / "todo.db", APP_SCHEMA))
            except DatabaseOpenError as error:
                raise UserError(str(error)) from error
            yield OpenStore(_store(database, account, connector), database, account, embedded)


def with_store(context: click.Context, work: Callable[[OpenStore], Awaitable[T]]) -> T:
    """Open the lists, do some work, and close them; what was written is uploaded by the next sync.

    Raises:
        click.ClickException: the lists cannot be opened, read or written.
    """
    import asyncio
    import gc

    from app.store.failures import StoreError

    settings = settings_of(context)

    async def run() -> T:
        async with open_store(settings) as opened:
            result = await work(opened)
            await opened.store.flush(_FLUSH_SECONDS)
            return result

    # Whatever is created from here on is for this user only: the database, and what SQLite puts beside it.
    os.umask(0o077)
    # The process ends soon: looking for garbage takes longer than all of it is worth.
    gc.disable()
    try:
        return asyncio.run(run())
    except (UserError, StoreError) as error:
        raise click.ClickException(str(error)) from error


def make_data_directory(directory: Path) -> None:
    """Create the data directory if it does not exist.

    Raises:
        UserError: it cannot be created, or not be written to.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable_directory(directory, error.strerror) from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise unusable_directory(directory, "Permission denied")


def unusable_directory(directory: Path, reason: str | None) -> UserError:
    """The error that says why a data directory cannot be used."""
    return UserError(
        f"The data directory {directory} cannot be used: {reason or 'unknown error'}; choose another with --data-dir."
    )


def _store(database: PowerSyncDatabase, account: Account, connector: BackendConnector | None) -> Store:
    from app.store import Store

    async def connect() -> None:
        if connector is not None:
            from sync import SyncOptions

            await database.connect(connector, SyncOptions(max_retry_delay=_LONGEST_RETRY_SECONDS))

    return Store(database, account.user_id, connect)


@contextmanager
def _unawaited_threads() -> Generator[None]:
    """Give the event loop threads that do not delay the exit: a name lookup may take a minute, a keyring may ask."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(thread_name_prefix="todo-tui")
    loop.set_default_executor(threads)
    try:
        yield
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        # asyncio.run waits for the executor that the loop has last.
        loop.set_default_executor(ThreadPoolExecutor(1))
