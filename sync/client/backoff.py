"""Waiting between attempts: exponential, with full jitter. Owns the arithmetic; the loops own the waiting."""

from __future__ import annotations

import random

from sync.errors import ServiceError, UploadHeldError, UploadRetryError


class Backoff:
    """Grows with each failure and starts anew after a success. All times are in seconds."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0

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
        asked_for = 0.0
        if isinstance(error, ServiceError):
            asked_for = error.retry_after or 0.0
        elif isinstance(error, UploadRetryError):
            asked_for = error.after or 0.0
        return max(wait, min(asked_for, self._longest))
