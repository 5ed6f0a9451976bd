"""How an action that may fail is carried out: off the message loop, and its failure told in one sentence.

Owns that one way. Which sentence is the store's affair.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from textual.app import App
from textual.widget import Widget
from textual.worker import Worker

from app.store.failures import StoreError
from app.system.display_text import sanitized
from app.tui.actions import keymap_of

DONE_SECONDS: Final = 3.0
"""How long it is told what was done; failures stay for longer."""


def attempt(widget: Widget, work: Awaitable[object], *, group: str = "write") -> Worker[None]:
    """Wait for work of the store in a worker of the widget; if it fails, a toast tells why.

    The worker ends with the widget, and with it what is followed; a write that has begun goes on without it.

    Returns:
        The worker, to be cancelled where it is not needed any more.
    """
    return widget.run_worker(tell_failure(widget, work), group=group)


async def tell_failure(widget: Widget | App[None], work: Awaitable[object]) -> None:
    """Wait for work of the store; if it fails, a toast tells why."""
    try:
        await work
    except StoreError as error:
        widget.notify(sanitized(str(error)), severity="error", markup=False)


def retried(widget: Widget | App[None]) -> Callable[[StoreError], None]:
    """What tells, in a toast, of a failure after which the store tries again by itself."""
    return lambda error: widget.notify(f"{sanitized(str(error))} It is tried again.", severity="warning", markup=False)


async def tell_done(widget: Widget, work: Awaitable[str]) -> None:
    """Wait for a write, and tell in a toast what it did and how it is undone.

    Raises:
        StoreError: what the write raises.
    """
    done = await work
    if done:
        key = keymap_of(widget).first("anywhere.undo")
        widget.notify(f"{sanitized(done)}. Press {key} to undo.", timeout=DONE_SECONDS, markup=False)
