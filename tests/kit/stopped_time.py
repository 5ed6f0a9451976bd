"""Time that stands still, and passes only when a test says so.

Owns the clock of the running event loop, and the wall clock of this process. Threads, other processes and sockets go on
in real time. What happens while time stands still has waited for no timer, and what a timer brings comes however slow
the machine is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import time_machine

_REAL_SECONDS = 60.0


class StoppedTime:
    """The time of a test. A timer that is due runs at the next await.

    Attributes:
        is_flowing: it does not stand still any more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, calendar: time_machine.Traveller) -> None:
        self._loop = loop
        self._calendar = calendar
        self._real = loop.time
        self.is_flowing = False
        self._now = loop.time()
        loop.time = lambda: self._now

    def move_on(self, seconds: float) -> None:
        """Let time pass, all at once."""
        self._now += seconds
        self._calendar.shift(seconds)

    def flow(self) -> None:
        """Let the time of the event loop flow again. It goes on from here: it never goes back."""
        if self.is_flowing:
            return
        self.is_flowing = True
        ahead = self._now - self._real()
        self._loop.time = lambda: self._real() + ahead


@contextmanager
def stopped_time() -> Generator[StoppedTime]:
    """Stop the time of the running event loop at a whole second of the wall clock, until the block is left.

    Raises:
        TimeoutError: the block was not left within a minute of real time. Deadlines in it are never met by themselves.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    with time_machine.travel(int(time.time()), tick=False) as calendar:
        stopped = StoppedTime(loop, calendar)

        def give_up() -> None:
            stopped.flow()
            task.cancel()

        guard = threading.Timer(_REAL_SECONDS, loop.call_soon_threadsafe, [give_up])
        guard.start()
        try:
            yield stopped
        except asyncio.CancelledError as error:
            if stopped.is_flowing:
                task.uncancel()
                raise TimeoutError("what was waited for did not come while time stood still") from error
            raise
        finally:
            guard.cancel()
            stopped.flow()
