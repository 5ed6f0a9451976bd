"""What can go wrong with the local database, in one sentence for the user, and how watching goes on afterwards.

Owns `StoreError` and its wording, and the waits between attempts to follow something. Must not know what is stored.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import aclosing, contextmanager
from typing import Final, TypeVar

from sync import DatabaseClosedError, PowerSyncError

T = TypeVar("T")

_log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS: Final = 0.25
LONGEST_WAIT_SECONDS: Final = 4.0
"""How long a watch waits before it goes on after a failure; the wait doubles from the first to the longest."""


class StoreError(Exception):
    """Something could not be stored or read. The message is one sentence for the user.

    Attributes:
        stored: how many of the given texts were stored before; nothing else was changed.
    """

    def __init__(self, message: str, stored: int = 0) -> None:
        self.stored = stored
        super().__init__(message)


OnFailure = Callable[[StoreError], object]
"""Called with a failure after which the store retries by itself."""


def log_failure(error: StoreError) -> None:
    """Write a failure to the log only."""
    _log.warning("%s", error)


class RefusedError(Exception):
    """A write that no longer makes sense; the message is the reason, without a full stop."""


@contextmanager
def as_store_error(failed: str, *, stored: int = 0) -> Generator[None]:
    """Turn what SQLite and the engine raise into a `StoreError` that begins with `failed`."""
    try:
        yield
    except RefusedError as error:
        raise StoreError(f"{failed}: {error}.", stored) from None
    except DatabaseClosedError as error:
        raise StoreError(f"{failed}: the database is closed.", stored) from error
    except UnicodeError as error:
        raise StoreError(f"{failed}: it contains a character that cannot be stored.", stored) from error
    except (PowerSyncError, sqlite3.Error, OSError) as error:
        raise StoreError(f"{failed}: {_reason(error)}.", stored) from error


async def follow_with_retry(follow: Callable[[], AsyncGenerator[T]], on_failure: OnFailure) -> AsyncIterator[T]:
    """Yield what is followed; after a failure start again, and report only the first of several failures in a row."""
    wait, reported = FIRST_WAIT_SECONDS, False
    while True:
        try:
            async with aclosing(follow()) as results:
                async for result in results:
                    wait, reported = FIRST_WAIT_SECONDS, False
                    yield result
                return
        except StoreError as error:
            if not reported:
                reported = True
                on_failure(error)
        await asyncio.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def _reason(error: Exception) -> str:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return "the disk is full"
    if name.startswith("SQLITE_READONLY"):
        return "the database is read-only"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "the database is locked by another program; try again"
    if name.startswith("SQLITE_IOERR"):
        return "the disk cannot be read or written to"
    return str(error).strip().rstrip(".") or type(error).__name__
