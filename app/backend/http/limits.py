"""Limits on open streams, requests, and refused sign-ins.

Owns the counting. Streams are counted per user, once the token has been checked; requests are counted per address,
before they are processed.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.backend.config import Limits
from app.backend.errors import RequestError, answer_to

_MAX_ADDRESSES = 10_000
_UNCOUNTED = "/probes/"


class Bucket:
    """A token bucket: each request takes a token, and tokens are refilled at a constant rate."""

    def __init__(self, per_second: float, burst: int, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = float(burst)
        self._updated_at = now

    def wait(self, now: float) -> float:
        """Return the seconds until a token is available; 0 if one is available now."""
        self._tokens = min(self._burst, self._tokens + (now - self._updated_at) * self._per_second)
        self._updated_at = now
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self._per_second

    def take(self) -> None:
        """Take a token."""
        self._tokens -= 1

    @property
    def is_full(self) -> bool:
        """Whether the bucket has been completely refilled, as of the last call of `wait`."""
        return self._tokens >= self._burst


class _Buckets:
    """A bucket per address; idle ones are discarded."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._buckets: dict[str, Bucket] = {}

    def bucket_of(self, address: str, now: float) -> Bucket:
        if (known := self._buckets.get(address)) is not None:
            return known
        if len(self._buckets) >= _MAX_ADDRESSES:
            busy = {key: bucket for key, bucket in self._buckets.items() if bucket.wait(now) or not bucket.is_full}
            self._buckets = busy if len(busy) < _MAX_ADDRESSES else {}
        return self._buckets.setdefault(address, Bucket(self._per_second, self._burst, now))


class RequestLimit:
    """ASGI middleware that answers 429 to an address that sends too many requests or guesses keys."""

    def __init__(self, app: ASGIApp, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._now = now
        self._requests = _Buckets(limits.requests_per_second, limits.request_burst)
        self._refused = _Buckets(limits.refused_per_second, limits.refused_burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, or reject the request."""
        if scope["type"] != "http" or scope["path"].startswith(_UNCOUNTED):
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        address, now = (client[0] if client else ""), self._now()
        requests, refused = self._requests.bucket_of(address, now), self._refused.bucket_of(address, now)
        if seconds := max(requests.wait(now), refused.wait(now)):
            await answer_to(too_many("Too many requests from your address", seconds))(scope, receive, send)
            return
        requests.take()

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == HTTPStatus.UNAUTHORIZED:
                refused.take()
            await send(message)

        await self._app(scope, receive, watch)


class OpenStreams:
    """Counts and limits the open sync streams."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open_per_user: Counter[str] = Counter()

    @contextmanager
    def one_of(self, user_id: str) -> Generator[None]:
        """Count a stream of this user as open until the context exits.

        Raises:
            RequestError: 429, too many streams are open, for this user or in total.
        """
        if self._open_per_user.total() >= self._limits.streams:
            raise too_many("Too many sync streams are open", 10)
        if self._open_per_user[user_id] >= self._limits.streams_per_user:
            raise too_many("Too many sync streams are open for this user", 10)
        self._open_per_user[user_id] += 1
        try:
            yield
        finally:
            self._open_per_user[user_id] -= 1
            if not self._open_per_user[user_id]:
                del self._open_per_user[user_id]


def too_many(what: str, seconds: float) -> RequestError:
    """Return the error 429 for `what`, to be retried after `seconds`."""
    wait = math.ceil(seconds)
    error = RequestError(429, "PSYNC_S2304", f"{what}; try again in {wait} seconds.", name="LimitError")
    error.retry_after = wait
    return error
