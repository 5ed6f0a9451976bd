"""Commits of other processes on the same file.

Owns how they are noticed: the file and its log are checked ten times a second, which takes two stats; only if they
differ is SQLite queried, whose `data_version` grows with commits of all connections except the one that queries it. The
engine commits on only one connection, the one queried here. Must not run any other SQL.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence

logger = logging.getLogger("sync.connection")

POLL_SECONDS = 0.1


async def watch_other_processes(
    path: str, data_version: Callable[[], Awaitable[int]], announce: Callable[[], None]
) -> None:
    """Call `announce` after each commit of another process, until cancelled.

    Args:
        path: the database file.
        data_version: queries the writing connection.
        announce: called on the event loop.
    """
    files = [path, f"{path}-wal"]
    last_version = await data_version()
    last_stamps = _stamps(files)
    settled = True
    while True:
        await asyncio.sleep(POLL_SECONDS)
        stamps = _stamps(files)
        if stamps == last_stamps and settled:
            continue
        # A commit within the same tick of the file system's clock leaves no new stamp: check once more.
        settled = stamps == last_stamps
        last_stamps = stamps
        try:
            version = await data_version()
        except sqlite3.Error as error:
            logger.warning("changes by other processes may be noticed late: %s", error)
            settled = False
            continue
        if version != last_version:
            last_version = version
            announce()


def _stamps(files: Sequence[str]) -> tuple[tuple[int, int] | None, ...]:
    stamps: list[tuple[int, int] | None] = []
    for file in files:
        try:
            stat = os.stat(file)  # noqa: PTH116 - ten times a second, for as long as the program runs
            stamps.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            stamps.append(None)
    return tuple(stamps)
