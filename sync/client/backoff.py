"""Waiting between attempts: exponential, with full jitter. Owns the arithmetic, and what may cut a wait short.

There are two kinds of waits. The engine's own are random, and anything that makes an attempt worthwhile ends them. A
requested wait (`Retry-After`) is respected: a write does not end it, or each keystroke in a busy app would hit a
service that is in trouble; only a call of `connect` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

from sync.errors import ServiceError, UploadHeldError, UploadRetryError


class RetrySignal:
    """Ends waits between attempts.

    Attributes:
        given: an attempt is worthwhile now.
        forced: an attempt was explicitly requested, even during a requested wait.
    """

    def __init__(self) -> None:
        self.given = asyncio.Event()
        self.forced = asyncio.Event()

    def cut_short(self, *, force: bool = False) -> None:
        """End the current wait, or the next one; `force` also ends a requested wait."""
        self.given.set()
        if force:
            self.forced.set()

    def clear(self) -> None:
        """Reset: an attempt begins, which serves all earlier calls."""
        self.given.clear()
        self.forced.clear()


class Backoff:
    """Grows with each failure and starts over after a success.

    Args:
        first: the longest first wait, in seconds.
        longest: the longest wait overall, in seconds.
        signal: cuts waits short.
    """

    def __init__(self, first: float, longest: float, signal: RetrySignal) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0
        self._signal = signal

    def succeeded(self) -> None:
        """Start over."""
        self._failures = 0

    def failed(self, error: Exception | None = None) -> float:
        """Count a failure and return how long to wait before the next attempt.

        A requested wait (`Retry-After`) is respected up to the longest wait; a held upload waits that long.
        """
        if isinstance(error, UploadHeldError):
            return self._longest
        limit = min(self._longest, self._first * 2 ** min(self._failures, 32))
        self._failures += 1
        wait = random.uniform(0, limit)  # noqa: S311 - spreads clients over time, protects no secret
        return max(wait, self._requested_wait(error))

    async def wait(self, seconds: float, error: Exception | None = None) -> None:
        """Wait for the time that `failed` returned for this error, or until cut short."""
        ends = asyncio.get_running_loop().time() + seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, self._requested_wait(error))):
                await self._signal.forced.wait()
                return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(ends):
                await self._signal.given.wait()

    def _requested_wait(self, error: Exception | None) -> float:
        return min(requested_wait_seconds(error), self._longest)


def requested_wait_seconds(error: Exception | None) -> float:
    """How long the service or the backend asked to wait; 0.0 if it did not."""
    if isinstance(error, ServiceError):
        return error.retry_after or 0.0
    if isinstance(error, UploadRetryError):
        return error.after or 0.0
    return 0.0
