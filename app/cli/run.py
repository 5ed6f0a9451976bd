"""One run of the interface, from start to exit.

Owns the log file, the signals that end the run, and the exit code. How the lists are opened is
`app.cli.open_store`'s, how they are shown `app.tui`'s.
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
from collections.abc import Callable
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from app.cli.open_store import OpenStore, make_data_directory, open_store, unusable_directory
from app.settings.appearance import Appearance
from app.system.recent_log import RecentLog
from app.system.terminal import leave_terminal, outlive_terminal, watch_terminal
from app.system.user_error import UserError

if TYPE_CHECKING:
    from app.connection.embedded_backend import EmbeddedBackend
    from app.settings.settings import Settings

STUCK_SECONDS = 15.0
"""A run that has not ended this long after a signal is ended by force."""

_LOG_BYTES = 1_000_000
_FLUSH_SECONDS = 5.0

_log = logging.getLogger(__name__)


class InterfaceError(Exception):
    """The interface crashed; the message is Textual's report."""


@dataclass(slots=True)
class _End:
    """The signal that ends the run, or 0 while none does."""

    signal: int = 0

    @property
    def exit_code(self) -> int:
        return 128 + self.signal if self.signal else 0


def run_interface(settings: Settings) -> int:
    """Run the interface until the user quits or a signal ends it; returns the exit code.

    A thread that looks up a name may outlive it: a lookup cannot be interrupted, and is not waited for.

    Raises:
        UserError: it cannot start, crashed (the log has the details), or could not store everything.
    """
    # Whatever is created from here on is for this user only: database, log, and what SQLite puts beside them.
    os.umask(0o077)
    log_file = _open_log(settings.data_dir)
    end = _End()
    try:
        asyncio.run(_run(settings, end))
    except UserError as error:
        _log.error("%s", error)
        raise
    except asyncio.CancelledError:
        _log.info("Ended by signal %d.", end.signal)
    except Exception as error:
        _log.exception("todo-tui crashed.")
        raise UserError(
            f"todo-tui crashed (internal error: {type(error).__name__}); your lists are safe, "
            f"and {log_file} has the details."
        ) from error
    return end.exit_code


def _open_log(directory: Path) -> Path:
    """Start the log in the data directory, which is created if it does not exist; returns the log's path."""
    make_data_directory(directory)
    log_file = directory / "todo-tui.log"
    try:
        handler = RotatingFileHandler(log_file, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
    except OSError as error:
        raise unusable_directory(directory, error.strerror) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in ("app", "sync"):
        logging.getLogger(name).setLevel(logging.INFO)
    # On a full disk, the logging module would otherwise print over the interface.
    logging.raiseExceptions = False
    return log_file


async def _run(settings: Settings, end: _End) -> None:
    task = asyncio.current_task()
    assert task is not None
    _end_at_signals(end, task.cancel)
    watch_terminal()
    outlive_terminal()
    # All at once, and before a backend is started as a child: that would delay the first paint.
    importlib.import_module("app.tui.app")
    importlib.import_module("app.connection.connector")
    changed = asyncio.Event()
    async with open_store(settings, syncs=True, on_backend_change=lambda _: changed.set()) as opened:
        await _show(opened, settings, end, changed)


def _end_at_signals(end: _End, leave: Callable[[], object]) -> None:
    """Call `leave` on the event loop at SIGTERM and SIGHUP; replaces the handlers of an earlier call."""
    loop = asyncio.get_running_loop()

    def handle(number: int, _frame: FrameType | None) -> None:
        end.signal = number
        if number == signal.SIGHUP:
            leave_terminal()
        last_resort = threading.Timer(STUCK_SECONDS, os._exit, (128 + number,))
        last_resort.daemon = True
        last_resort.start()
        loop.call_soon_threadsafe(leave)

    # Not the loop's own signal handlers: they would not run while the interface waits for a terminal that hangs.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handle)


async def _show(opened: OpenStore, settings: Settings, end: _End, backend_changed: asyncio.Event) -> None:
    from rich.console import Console

    from app.settings.keymap import Keymap
    from app.store.change_words import counted
    from app.tui.app import TodoApp

    async def follow(embedded: EmbeddedBackend) -> None:
        """Show what is wrong with the backend; when it is back, retry at once unless the user has paused syncing."""
        while True:
            backend_changed.clear()
            app.show_problem(embedded.state.problem)
            if embedded.state.usable and opened.database.status.wanted:
                await opened.store.connect()
            await backend_changed.wait()

    if not (sys.__stdin__ and sys.__stdin__.isatty() and sys.__stderr__ and sys.__stderr__.isatty()):
        raise UserError("todo-tui needs a terminal to show its lists.")
    opened.account.claim_user()
    appearance = Appearance(settings.data_dir)
    recent = RecentLog()
    logging.getLogger().addHandler(recent)
    app = TodoApp(
        opened.store,
        keymap=Keymap.of(settings.keymap, settings.keys),
        theme=appearance.theme(),
        remember_theme=appearance.remember_theme,
        still=settings.reduced_motion,
        log=recent.lines,
    )
    crash_report = io.StringIO()
    app.error_console = Console(file=crash_report, markup=False, highlight=False)
    # Not before the first screen is up: an app that is still being built fails when it is told to exit.
    _end_at_signals(end, lambda: app.call_after_refresh(app.exit))
    follower = None
    if opened.embedded is not None:
        follower = asyncio.create_task(follow(opened.embedded), name="follow the backend")
    unstored = 0
    try:
        await app.run_async()
    finally:
        if follower is not None:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)
        unstored = await opened.store.flush(_FLUSH_SECONDS)
        await opened.database.disconnect()
    if app.return_code:
        raise InterfaceError(crash_report.getvalue())
    if unstored:
        raise UserError(f"{counted(unstored)} could not be stored: the database was busy.")
