"""How an action that may fail is carried out: off the message loop, and its failure told in one sentence.

Owns that one way. Which sentence is the store's affair.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from textual.widget import Widget
from textual.worker import Worker

from app.store import StoreError


def attempt(widget: Widget, work: Coroutine[Any, Any, object], *, group: str = "write") -> Worker[None]:
    """Run work of the store in a worker of the widget; if it fails, a toast tells why.

    Ends with the widget: what has not been committed by then is not.

    Returns:
        The worker, to be cancelled where it is not needed any more.
    """
    return widget.run_worker(_tell_failure(widget, work), group=group)


async def _tell_failure(widget: Widget, work: Coroutine[Any, Any, object]) -> None:
    try:
        await work
    except StoreError as error:
        widget.notify(str(error), severity="error", markup=False)
