"""A call into the app's connector: its deadline, and what it must not do to the loop that makes it.

Owns how such a call ends. What is called, and what its failure means, is the caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from sync.errors import ConnectorError

_calling: ContextVar[asyncio.Task[Any] | None] = ContextVar("the task that calls a connector", default=None)


def is_connector_call() -> bool:
    """Whether the current task is the one that calls a connector: it must not wait for the call's own end.

    A task that the connector has started for itself may.
    """
    task = _calling.get()
    return task is not None and task is asyncio.current_task()


@asynccontextmanager
async def connector_call(seconds: float, overdue: Exception) -> AsyncGenerator[asyncio.Timeout]:
    """Enter around a call of the connector; gives its deadline, so that it can be put off.

    Raises:
        Exception: `overdue` at the deadline, and whatever the connector raises.
        ConnectorError: the connector cancelled itself, as by a task of its own that was cancelled. Passed on, this
            would end the loop as if the app had disconnected.
        asyncio.CancelledError: the app disconnected, whatever the connector made of it: a call that turned its
            cancellation into another end would let the loop go on, and `disconnect` wait for ever.
    """
    task = asyncio.current_task()
    assert task is not None
    deadline = asyncio.timeout(seconds)
    calling = _calling.set(task)
    try:
        async with deadline:
            yield deadline
    except (Exception, asyncio.CancelledError) as error:
        if task.cancelling():
            raise asyncio.CancelledError from error
        if isinstance(error, asyncio.CancelledError):
            raise ConnectorError("The connector was cancelled from within; it is called again.") from error
        if isinstance(error, TimeoutError) and deadline.expired():
            raise overdue from error
        raise
    finally:
        _calling.reset(calling)
    if task.cancelling():
        raise asyncio.CancelledError
