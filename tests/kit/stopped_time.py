"""Time that stands still, and passes only when a test says so.

Owns the clock of the running event loop, and the wall clock of this process. Threads, other processes and sockets go on
in real time. What happens while time stands still has waited for no timer, and what a timer brings comes however slow
the machine is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager

import time_machine


class StoppedTime:
    """The time of a test. A timer that is due runs at the next await."""

    def __init__(self, loop: asyncio.AbstractEventLoop, calendar: time_machine.Traveller) -> None:
        self._loop = loop
        self._calendar = calendar
        self._real = loop.time
        self._now = loop.time()
        loop.time = lambda: self._now

    def move_on(self, seconds: float) -> None:
        """Let time pass, all at once."""
        self._now += seconds
        self._calendar.shift(seconds)

    def flow(self) -> None:
        """Let the time of the event loop flow again. It goes on from here: it never goes back."""
        ahead = self._now - self._real()
        self._loop.time = lambda: self._real() + ahead


@contextmanager
def stopped_time() -> Generator[StoppedTime]:
    """Stop the time of the running event loop at a whole second of the wall clock, until the block is left.

    A deadline of the test's own does not end what waits for ever in it; that of pytest does.
    """
    with time_machine.travel(int(time.time()), tick=False) as calendar:
        stopped = StoppedTime(asyncio.get_running_loop(), calendar)
        try:
            yield stopped
        finally:
            stopped.flow()
