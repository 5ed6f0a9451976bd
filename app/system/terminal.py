"""The terminal that the interface runs in, which may go away at any moment: a closed window, a lost connection.

Owns how that is noticed, and that writing to it then does no harm. How the run ends is `app.cli.run`'s.
"""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def watch_terminal() -> None:
    """Send this process SIGHUP when its terminal goes away; only a controlling terminal does that by itself."""
    if os.isatty(0):
        threading.Thread(target=_wait_for_hangup, name="todo-tui: terminal", daemon=True).start()


def outlive_terminal() -> None:
    """Discard, from now on, what Textual writes to a terminal that is gone, instead of raising an error.

    Textual writes from a thread, which an error would end. Its queue of 30 writes would fill up, and the event loop
    would wait for room in it forever.
    """
    if sys.__stderr__ is None:
        return
    file = io.BufferedWriter(_Lossy(sys.__stderr__.fileno(), "w", closefd=False))
    text = io.TextIOWrapper(file, encoding=sys.__stderr__.encoding, errors=sys.__stderr__.errors)
    sys.__stderr__ = text  # pyright: ignore[reportAttributeAccessIssue] -- where Textual's drivers take it from


def leave_terminal() -> None:
    """Redirect standard input, output and error to /dev/null; safe in a signal handler."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for terminal in (0, 1, 2):
        os.dup2(nowhere, terminal)
    os.close(nowhere)


class _Lossy(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int | None:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _wait_for_hangup() -> None:
    poll = select.poll()
    poll.register(0, 0)  # a hangup is always reported
    if poll.poll():
        os.kill(os.getpid(), signal.SIGHUP)
