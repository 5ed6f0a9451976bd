"""One run of the interface: data directory, log, backend, database, connector and app, put together and taken apart.

Owns the order of all that, the signals that end it, and the log file. Must not know what any of them does inside.
"""

from __future__ import annotations

import asyncio
import importlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from app.connection.data_owner import DataOwner
from app.connection.embedded_backend import EmbeddedBackend
from app.connection.sign_in import as_signed_in, sign_in_key
from app.settings.appearance import Appearance
from app.system.recent_log import RecentLog
from app.system.terminal import leave_terminal, outlive_terminal, watch_terminal
from app.system.user_error import UserError

if TYPE_CHECKING:
    from app.settings.settings import Settings
    from app.store import Store
    from app.system.sign_in_keys import SignInKey
    from sync import BackendConnector, PowerSyncDatabase

STUCK_SECONDS = 15.0
"""What has not ended so long after a signal is ended by force."""

_LOG_BYTES = 1_000_000
_LONGEST_RETRY_SECONDS = 10.0
_FLUSH_SECONDS = 5.0

_log = logging.getLogger(__name__)


class InterfaceError(Exception):
    """The interface ended by a mistake of its own; the message is Textual's account of it."""


@dataclass(slots=True)
class _End:
    """How the run ends, if not by the user's wish."""

    signal: int = 0

    @property
    def exit_code(self) -> int:
        return 128 + self.signal if self.signal else 0


def run_interface(settings: Settings) -> int:
    """Run the interface until the user quits or a signal ends it; returns the exit code.

    A thread that looks up a name may go on after it: that cannot be interrupted, and is not waited for.

    Raises:
        UserError: it cannot start, ended by a mistake that the log describes, or could not store everything.
    """
    # Everything that is made from here on is the user's own: database, log, and what SQLite puts beside them.
    os.umask(0o077)
    log_file = _open_data_directory(settings.data_dir)
    settings = as_signed_in(settings)
    end = _End()
    try:
        asyncio.run(_run(settings, end))
    except UserError as error:
        _log.error("%s", error)
        raise
    except asyncio.CancelledError:
        _log.info("Ended by signal %d.", end.signal)
    except Exception as error:
        _log.exception("todo-tui ended by a mistake.")
        raise UserError(
            f"todo-tui ended by a mistake of its own ({type(error).__name__}); your lists are kept, "
            f"and {log_file} tells more."
        ) from error
    return end.exit_code


@asynccontextmanager
async def syncing(settings: Settings) -> AsyncGenerator[tuple[PowerSyncDatabase, Store]]:
    """The database of the settings and its store, syncing until the end, without an interface.

    Raises:
        UserError: it cannot be opened, or belongs to another user or backend.
        StoreError: syncing cannot be started.
    """
    from app.store import Store
    from sync import SyncOptions

    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(settings.data_dir, error.strerror) from error
    settings = as_signed_in(settings)
    memory = DataOwner(settings.data_dir)
    memory.check(str(settings.user_id), settings.backend_url)
    with _unawaited_threads():
        async with (
            _backend(settings, asyncio.Event()) as embedded,
            _database(settings.data_dir / "todo.db") as database,
            _connector(settings, memory, embedded) as connector,
        ):
            memory.claim(str(settings.user_id), None)

            async def connect() -> None:
                await database.connect(connector, SyncOptions(max_retry_delay=_LONGEST_RETRY_SECONDS))

            store = Store(database, str(settings.user_id), connect)
            # Before the connection: without them, the to-dos that are here would go with the first checkpoint.
            keeper = asyncio.create_task(store.keep_subscribed(), name="keep the lists subscribed")
            try:
                await store.subscribe_known()
                await store.connect()
                yield database, store
            finally:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
                await database.disconnect()


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


def _unusable(directory: Path, reason: str | None) -> UserError:
    return UserError(
        f"The data directory {directory} cannot be used: {reason or 'unknown error'}; choose another with --data-dir."
    )


async def _run(settings: Settings, end: _End) -> None:
    task = asyncio.current_task()
    assert task is not None
    _end_at_signals(end, task.cancel)
    watch_terminal()
    outlive_terminal()
    memory = DataOwner(settings.data_dir)
    memory.check(str(settings.user_id), settings.backend_url)
    changed = asyncio.Event()
    with _unawaited_threads():
        async with _backend(settings, changed) as embedded:
            # All at once and before the first await, at which a child would be started: it would delay the first paint.
            _import_interface()
            async with (
                _database(settings.data_dir / "todo.db") as database,
                _connector(settings, memory, embedded) as connector,
            ):
                await _show(database, connector, settings, memory, end, (embedded, changed))


@contextmanager
def _unawaited_threads() -> Generator[None]:
    """Give the event loop threads that are not waited for at the end: one may be looking up a name for a minute."""
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(thread_name_prefix="todo-tui")
    loop.set_default_executor(threads)
    try:
        yield
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        # What asyncio.run waits for is the executor that the loop has last.
        loop.set_default_executor(ThreadPoolExecutor(1))


def _end_at_signals(end: _End, leave: Callable[[], object]) -> None:
    """Call `leave` on the event loop at SIGTERM and SIGHUP, instead of what was called before."""
    loop = asyncio.get_running_loop()

    def told(number: int, _frame: FrameType | None) -> None:
        end.signal = number
        if number == signal.SIGHUP:
            leave_terminal()
        last_resort = threading.Timer(STUCK_SECONDS, os._exit, (128 + number,))
        last_resort.daemon = True
        last_resort.start()
        loop.call_soon_threadsafe(leave)

    # Not the loop's own signal handlers: they would not run while the interface waits for a terminal that hangs.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, told)


@asynccontextmanager
async def _backend(settings: Settings, changed: asyncio.Event) -> AsyncGenerator[EmbeddedBackend | None]:
    """The backend inside todo-tui, or None if the settings name another; sets `changed` after each of its changes."""
    if settings.backend_url is not None:
        yield None
        return
    async with EmbeddedBackend.open(settings.data_dir, settings.port, lambda _: changed.set()) as embedded:
        yield embedded


def _import_interface() -> None:
    for name in ("app.tui.app", "app.connection.connector"):
        importlib.import_module(name)


@asynccontextmanager
async def _database(path: Path) -> AsyncGenerator[PowerSyncDatabase]:
    from app.store.schema import APP_SCHEMA
    from sync import PowerSyncDatabase
    from sync.errors import DatabaseOpenError

    try:
        database = await PowerSyncDatabase(path, APP_SCHEMA).__aenter__()
    except DatabaseOpenError as error:
        raise UserError(str(error)) from error
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def _connector(
    settings: Settings, memory: DataOwner, embedded: EmbeddedBackend | None
) -> AsyncGenerator[BackendConnector]:
    from app.connection.connector import HttpConnector

    user_id, named = str(settings.user_id), settings.backend_url

    async def still_ours() -> None:
        # Another todo-tui with the same data directory may have brought the lists to another backend meanwhile.
        await asyncio.to_thread(memory.check, user_id, named)

    async def claim(backend_id: str | None) -> None:
        # Not before it has given a token: an address with a typing error would keep the lists for ever.
        await asyncio.to_thread(memory.claim, user_id, named, backend_id)

    if embedded is None:
        assert named is not None

        async def sign_in() -> SignInKey | None:
            return await asyncio.to_thread(sign_in_key, settings)

        connector = HttpConnector(
            named,
            user_id,
            settings.service_url,
            interface=settings.upload_interface,
            checkpoints_by_backend=settings.checkpoint_mode == "backend",
            sign_in=sign_in,
            verify=still_ours,
            claim=claim,
        )
    else:
        connector = HttpConnector(
            embedded.url, user_id, settings.service_url, sign_in=embedded.sign_in, verify=embedded.verify
        )
    try:
        yield connector
    finally:
        await connector.aclose()


async def _show(
    database: PowerSyncDatabase,
    connector: BackendConnector,
    settings: Settings,
    memory: DataOwner,
    end: _End,
    backend: tuple[EmbeddedBackend | None, asyncio.Event],
) -> None:
    from rich.console import Console

    from app.settings.keymap import Keymap
    from app.store import Store
    from app.store.change_words import counted
    from app.tui.app import TodoApp
    from sync import SyncOptions

    # Somebody looks at the screen: a backend that is back should be seen soon.
    options = SyncOptions(max_retry_delay=_LONGEST_RETRY_SECONDS)

    async def connect() -> None:
        await database.connect(connector, options)

    async def follow(embedded: EmbeddedBackend, changed: asyncio.Event) -> None:
        """Show what is wrong with the backend; when it is back, try again at once unless the user wants it offline."""
        while True:
            changed.clear()
            app.show_problem(embedded.state.problem)
            if embedded.state.usable and database.status.wanted:
                await connect()
            await changed.wait()

    if not (sys.__stdin__ and sys.__stdin__.isatty() and sys.__stderr__ and sys.__stderr__.isatty()):
        raise UserError("todo-tui needs a terminal to show its lists.")
    memory.claim(str(settings.user_id), None)
    store = Store(database, str(settings.user_id), connect)
    appearance = Appearance(settings.data_dir)
    recent = RecentLog()
    logging.getLogger().addHandler(recent)
    app = TodoApp(
        store,
        keymap=Keymap.of(settings.keymap, settings.keys),
        theme=appearance.theme(),
        remember_theme=appearance.remember_theme,
        still=settings.reduced_motion,
        log=recent.lines,
    )
    mistakes = io.StringIO()
    app.error_console = Console(file=mistakes, markup=False, highlight=False)
    # Not before the first screen is up: taken apart while it is being built, it would fail.
    _end_at_signals(end, lambda: app.call_after_refresh(app.exit))
    embedded, changed = backend
    follower = None if embedded is None else asyncio.create_task(follow(embedded, changed), name="follow the backend")
    unstored = 0
    try:
        await app.run_async()
    finally:
        if follower is not None:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)
        unstored = await store.flush(_FLUSH_SECONDS)
        await database.disconnect()
    if app.return_code:
        raise InterfaceError(mistakes.getvalue())
    if unstored:
        raise UserError(f"{counted(unstored)} could not be stored: the database was busy.")
