"""One run of the interface: data directory, log, backend, database, connector and app, put together and taken apart.

Owns the order of all that, the signals that end it, and the log file. Must not know what any of them does inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from app.embedded import BackendState, EmbeddedBackend, StartupError

if TYPE_CHECKING:
    from app.settings import Settings
    from sync import BackendConnector, PowerSyncDatabase

_LOG_BYTES = 1_000_000
_STUCK_SECONDS = 15.0

_log = logging.getLogger(__name__)


class InterfaceError(Exception):
    """The interface ended by a mistake of its own; the message is Textual's account of it."""


def run_interface(settings: Settings) -> int:
    """Run the interface until the user quits or a signal ends it; returns the exit code.

    Raises:
        StartupError: it cannot start, or ended by a mistake that the log describes.
    """
    # Everything that is made from here on is the user's own: database, log, and what SQLite puts beside them.
    os.umask(0o077)
    log_file = _open_data_directory(settings.data_dir)
    try:
        return asyncio.run(_run(settings))
    except StartupError as error:
        _log.error("%s", error)
        raise
    except asyncio.CancelledError:
        return 0
    except Exception as error:
        _log.exception("todo-tui ended by a mistake.")
        raise StartupError(
            f"todo-tui ended by a mistake of its own ({type(error).__name__}); your lists are kept, "
            f"and {log_file} tells more."
        ) from error


def _open_data_directory(directory: Path) -> Path:
    """Make the directory if need be, and start the log in it; returns the log's path."""
    log_file = directory / "todo-tui.log"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = RotatingFileHandler(log_file, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
    except OSError as error:
        raise _unusable(directory, error.strerror) from error
    if not os.access(directory, os.W_OK | os.X_OK):
        handler.close()
        raise _unusable(directory, "Permission denied")
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in ("app", "sync"):
        logging.getLogger(name).setLevel(logging.INFO)
    # A full disk must not make the logging module write over the interface.
    logging.raiseExceptions = False
    return log_file


def _unusable(directory: Path, reason: str | None) -> StartupError:
    return StartupError(
        f"The data directory {directory} cannot be used: {reason or 'unknown error'}; choose another with --data-dir."
    )


async def _run(settings: Settings) -> int:
    task = asyncio.current_task()
    assert task is not None
    _end_at_signals(task.cancel)
    usable = asyncio.Event()
    async with _backend(settings, usable) as embedded:
        # All at once and before the first await, at which a child would be started: it would delay the first paint.
        _import_interface()
        async with _database(settings.data_dir / "todo.db") as database, _connector(settings, embedded) as connector:
            return await _show(database, connector, settings, usable)


def _end_at_signals(end: Callable[[], object]) -> None:
    """Call `end` on the event loop at SIGTERM and SIGHUP, instead of what was called before."""
    loop = asyncio.get_running_loop()

    def told(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            # The terminal is gone. Were it written to, the interface would fail on its way out, or wait for ever.
            nowhere = os.open(os.devnull, os.O_RDWR)
            for terminal in (0, 1, 2):
                os.dup2(nowhere, terminal)
        last_resort = threading.Timer(_STUCK_SECONDS, os._exit, (1,))
        last_resort.daemon = True
        last_resort.start()
        loop.call_soon_threadsafe(end)

    # Not the loop's own signal handlers: they would not run while the interface waits for a terminal that hangs.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, told)


@asynccontextmanager
async def _backend(settings: Settings, usable: asyncio.Event) -> AsyncGenerator[EmbeddedBackend | None]:
    """The backend inside todo-tui, or None if the settings name another; sets `usable` each time it comes back."""
    if settings.backend_url is not None:
        yield None
        return

    def changed(state: BackendState) -> None:
        if state.usable:
            usable.set()

    async with EmbeddedBackend.open(settings.data_dir, settings.port, changed) as embedded:
        yield embedded


def _import_interface() -> None:
    for name in ("app.tui.app", "app.connector"):
        importlib.import_module(name)


@asynccontextmanager
async def _database(path: Path) -> AsyncGenerator[PowerSyncDatabase]:
    from app.schema import APP_SCHEMA
    from sync import PowerSyncDatabase
    from sync.errors import DatabaseOpenError

    try:
        database = await PowerSyncDatabase(path, APP_SCHEMA).__aenter__()
    except DatabaseOpenError as error:
        raise StartupError(str(error)) from error
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def _connector(settings: Settings, embedded: EmbeddedBackend | None) -> AsyncGenerator[BackendConnector]:
    from app.connector import DemoConnector

    url = settings.backend_url if embedded is None else embedded.url
    assert url is not None
    connector = DemoConnector(
        url, str(settings.user_id), settings.service_url, verify=None if embedded is None else embedded.verify
    )
    try:
        yield connector
    finally:
        await connector.aclose()


async def _show(
    database: PowerSyncDatabase, connector: BackendConnector, settings: Settings, usable: asyncio.Event
) -> int:
    from rich.console import Console

    from app.store import Store
    from app.tui.app import TodoApp
    from sync import SyncOptions

    options = SyncOptions()

    async def connect() -> None:
        await database.connect(connector, options)

    async def cut_waits_short() -> None:
        """Try again at once when the backend is back; not if the user wants to be offline."""
        while True:
            await usable.wait()
            usable.clear()
            if database.status.wanted:
                await connect()

    if not (sys.__stdin__ and sys.__stdin__.isatty() and sys.__stderr__ and sys.__stderr__.isatty()):
        raise StartupError("todo-tui needs a terminal to show its lists.")
    app = TodoApp(Store(database, str(settings.user_id), connect))
    mistakes = io.StringIO()
    app.error_console = Console(file=mistakes, markup=False, highlight=False)
    # Not before the first screen is up: taken apart while it is being built, it would fail.
    _end_at_signals(lambda: app.call_after_refresh(app.exit))
    waker = asyncio.create_task(cut_waits_short(), name="try again when the backend is back")
    try:
        await app.run_async()
    finally:
        waker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waker
        await database.disconnect()
    if app.return_code:
        raise InterfaceError(mistakes.getvalue())
    return 0
