"""A call into the app's connector: its deadline, and what it must not do to the loop that makes it.

Owns how such a call ends. What is called, and what its failure means, is the caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sync.errors import ConnectorError


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
    if task.cancelling():
        raise asyncio.CancelledError
