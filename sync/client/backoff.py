"""Waiting between attempts: exponential, with full jitter. Owns the arithmetic, and what may cut a wait short.

Two kinds of waits are told apart. The engine's own goes by chance, and whatever makes an attempt worth it ends it. Time
that somebody asked for (`Retry-After`) is theirs: a write does not end it, or each keystroke of a busy app would hit a
service that is in trouble; only a person who asks to connect does.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

from sync.errors import ServiceError, UploadHeldError, UploadRetryError


class RetrySignal:
    """Ends waits between attempts.

    Attributes:
        given: an attempt is worth it now.
        forced: somebody insists on it.
    """

    def __init__(self) -> None:
        self.given = asyncio.Event()
        self.forced = asyncio.Event()

    def cut_short(self, *, force: bool = False) -> None:
        """End the present wait, or the next one; time that was asked for is cut only by force."""
        self.given.set()
        if force:
            self.forced.set()

    def clear(self) -> None:
        """An attempt begins: what asked for it before is served."""
        self.given.clear()
        self.forced.clear()


class Backoff:
    """Grows with each failure and starts over after a success.

    Args:
        first: the longest first wait, in seconds.
        longest: the longest wait of all, in seconds.
        signal: cuts waits short.
    """

    def __init__(self, first: float, longest: float, signal: RetrySignal) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0
        self._signal = signal

    def succeeded(self) -> None:
        """Start anew."""
        self._failures = 0

    def failed(self, error: Exception | None = None) -> float:
        """Count a failure and return how long to wait before the next attempt.

        Who asks for time (`Retry-After`) gets it, up to the longest wait; what is held waits that long.
        """
        if isinstance(error, UploadHeldError):
            return self._longest
        limit = min(self._longest, self._first * 2 ** min(self._failures, 32))
        self._failures += 1
        wait = random.uniform(0, limit)  # noqa: S311 - spreads clients over time, keeps no secret
        return max(wait, self._time_to_keep(error))

    async def wait(self, seconds: float, error: Exception | None = None) -> None:
        """Wait for so long, as `failed` gave it for this error, or until it is cut short."""
        ends = asyncio.get_running_loop().time() + seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, self._time_to_keep(error))):
                await self._signal.forced.wait()
                return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(ends):
                await self._signal.given.wait()

    def _time_to_keep(self, error: Exception | None) -> float:
        return min(requested_wait_seconds(error), self._longest)


def requested_wait_seconds(error: Exception | None) -> float:
    """How long the service, or the backend, asked not to be asked again; 0.0 if it did not."""
    if isinstance(error, ServiceError):
        return error.retry_after or 0.0
    if isinstance(error, UploadRetryError):
        return error.after or 0.0
    return 0.0
