"""What tests know of the inside of an open database: the only place in the tests that uses its private attributes.

Each function is named for what a test wants to know or to happen. How the engine keeps it is written here, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from sync import PowerSyncDatabase, RowWindow, Watch, WindowWatch
from sync.client.download import DownloadLoop
from sync.sqlite.pool import ChangeListener, ConnectionPool
from sync.sqlite.sql_connection import SqlConnection
from sync.status.status import StatusBoard
from sync.storage.subscriptions import StreamKey

T = TypeVar("T")


# The file


def pool_of(database: PowerSyncDatabase) -> ConnectionPool:
    """The connections of a database, for parts of the engine that a test builds itself, or breaks."""
    return database._pool


async def read(database: PowerSyncDatabase, function: Callable[[SqlConnection], T]) -> T:
    """Run a function of the engine's storage in a read transaction."""
    return await database._pool.read(function)


async def write(database: PowerSyncDatabase, function: Callable[[SqlConnection], T]) -> T:
    """Run a function of the engine's storage in a write transaction, as the engine itself does."""
    return await database._pool.write(function)


def on_commit(database: PowerSyncDatabase, listener: ChangeListener) -> None:
    """Call `listener` after each commit with the names of the changed tables in the file, or None for any."""
    database._pool.listen(listener)


async def trace_readers(database: PowerSyncDatabase, trace: Callable[[str], object]) -> None:
    """Call `trace`, on their threads, with the text of each statement that the readers run from now on."""
    for reader in database._pool._readers:
        await reader.set_trace_callback(trace)


async def trace_writer(database: PowerSyncDatabase, trace: Callable[[str], object]) -> None:
    """Call `trace`, on its thread, with the text of each statement that the writer runs from now on."""
    writer = database._pool._writer
    assert writer is not None, "the database is not open"
    await writer.set_trace_callback(trace)


# Who uses its connections


def idle_readers(database: PowerSyncDatabase) -> int:
    """How many readers run no query."""
    return len(database._pool._idle_readers)


def are_readers_at_rest(database: PowerSyncDatabase) -> bool:
    """Whether no query runs, and none is kept from beginning."""
    pool = database._pool
    return not pool._reader_turns.locked() and len(pool._idle_readers) == len(pool._readers)


def leased_connections(database: PowerSyncDatabase) -> int:
    """How many connections are lent to a read transaction, a stream of rows or the app itself."""
    return len(database._pool._leased)


def spare_connections(database: PowerSyncDatabase) -> int:
    """How many connections are kept open for the next lease."""
    return len(database._pool._spare)


def is_write_locked(database: PowerSyncDatabase) -> bool:
    """Whether somebody holds the write lock of this process."""
    return database._pool._write_lock.locked()


# Watches and waits


def watch_count(database: PowerSyncDatabase) -> int:
    """How many watches are told of commits."""
    return len(database._watched._streams)


def is_any_watch_due(database: PowerSyncDatabase) -> bool:
    """Whether any watch has been woken and has not looked yet."""
    return any(watch._wake.is_set() for watch in database._watched._streams)


def is_at_rest(watch: WindowWatch[Any]) -> bool:
    """Whether a window has seen all commits: it has not been woken, and it is not looking."""
    return not watch._wake.is_set() and not watch._looking


def wanted_offset(watch: WindowWatch[Any]) -> int:
    """The offset that a window was last moved to, which may lie behind the end."""
    return watch._window.request.offset


def delivered_window(watch: Watch[RowWindow[T]]) -> RowWindow[T]:
    """What a window has delivered last."""
    return watch._state.window


def is_anyone_waiting_for_a_change(database: PowerSyncDatabase) -> bool:
    """Whether a wait of the public face has looked at the file, and waits for a change."""
    return bool(database._waiting._something_changed._waiters)


# Synchronization


def board_of(database: PowerSyncDatabase) -> StatusBoard:
    """The status of a database, for parts of the engine that a test builds itself."""
    return database._board


def on_status(database: PowerSyncDatabase, listener: Callable[[], object]) -> None:
    """Call `listener` after each change of the status; unlike a watch it misses none."""
    database._board.listen(listener)


def streams_in_use(database: PowerSyncDatabase) -> dict[StreamKey, int]:
    """How often each subscription is in use."""
    in_use = database._in_use
    return {key: len(in_use.of(key)) for key in in_use.keys}


def are_all_lines_taken(loop: DownloadLoop) -> bool:
    """Whether a download has a stream open and has dealt with every line that came of it."""
    lines = loop._lines
    return lines is not None and lines.are_all_taken


async def leave_uploads_to_their_timer(database: PowerSyncDatabase) -> None:
    """Wait until the upload loop waits, and let nothing wake it from then on but its own timer."""
    mailbox = database._coordinator._mail.uploads
    async with asyncio.timeout(10):
        while mailbox.due.is_set() or not mailbox.due._waiters:
            await asyncio.sleep(0.001)
    mailbox.due = asyncio.Event()
