"""Cancellation that waits: for work in threads, which cannot be cancelled, and for tasks to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


async def run_to_completion(awaitable: Awaitable[T]) -> T:
    """Await something to its end even if cancelled; the cancellation is raised afterwards.

    Its effects remain; its result is lost in that case.
    """
    task = asyncio.ensure_future(awaitable)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    return task.result()


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended in any way."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
