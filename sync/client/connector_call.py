"""A call into the app's connector: its deadline, and protecting the loop that makes it.

Owns how such a call ends. What is called, and what its failure means, is up to the caller.
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
    """Whether the current task is the one calling a connector: it must not wait for that call to end.

    A task that the connector has started itself may.
    """
    task = _calling.get()
    return task is not None and task is asyncio.current_task()


@asynccontextmanager
async def connector_call(seconds: float, overdue: Exception) -> AsyncGenerator[asyncio.Timeout]:
    """Wraps a call of the connector; yields its deadline, so that it can be extended.

    Raises:
        Exception: `overdue` at the deadline, and whatever the connector raises.
        ConnectorError: the connector cancelled itself, for example by awaiting a cancelled task of its own. Passed
            on, this would end the loop as if the app had disconnected.
        asyncio.CancelledError: the app disconnected, regardless of how the connector ended: one that suppresses its
            cancellation would keep the loop running, and `disconnect` waiting forever.
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
            raise ConnectorError("The connector cancelled itself; calling it again.") from error
        if isinstance(error, TimeoutError) and deadline.expired():
            raise overdue from error
        raise
    finally:
        _calling.reset(calling)
    if task.cancelling():
        raise asyncio.CancelledError
