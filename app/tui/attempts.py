"""How an action that may fail is carried out: off the message loop, with a toast if it fails.

Owns these toasts. The sentence in them comes from the store.
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
"""How long a toast says what was done; failures stay longer."""


def attempt(widget: Widget, work: Awaitable[object], *, group: str = "write") -> Worker[None]:
    """Wait for work of the store in a worker of the widget; if it fails, a toast says why.

    The worker ends with the widget, and with it what is followed; a write that has begun goes on without it.

    Returns:
        The worker, to be cancelled when it is no longer needed.
    """
    return widget.run_worker(notify_failure(widget, work), group=group)


async def notify_failure(widget: Widget | App[None], work: Awaitable[object]) -> None:
    """Wait for work of the store; if it fails, a toast says why."""
    try:
        await work
    except StoreError as error:
        widget.notify(sanitized(str(error)), severity="error", markup=False)


def notify_retry(widget: Widget | App[None]) -> Callable[[StoreError], None]:
    """A callback for the store that shows a failure after which the store retries by itself."""
    return lambda error: widget.notify(f"{sanitized(str(error))} Retrying.", severity="warning", markup=False)


async def notify_done(widget: Widget, work: Awaitable[str]) -> None:
    """Wait for a write, and say in a toast what it did and how to undo it.

    Raises:
        StoreError: what the write raises.
    """
    done = await work
    if done:
        key = keymap_of(widget).first("anywhere.undo")
        widget.notify(f"{sanitized(done)}. Press {key} to undo.", timeout=DONE_SECONDS, markup=False)
