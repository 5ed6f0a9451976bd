"""A new database file in place of a damaged one, with all that only this device has: `rescue`.

Owns the order of the steps, and that each of them may be the last one. What is taken over is `sync.storage.salvage`'s.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sync.client.sync_lock import holder
from sync.errors import DatabaseInUseError, DatabaseOpenError, RescueError
from sync.schema.tables import Schema
from sync.sqlite.connection_thread import make_private_file, set_up_rows
from sync.sqlite.damaged_file import connect_alone, is_damage
from sync.sqlite.openers import alone
from sync.sqlite.sql_connection import SqlConnection
from sync.storage.file import prepare
from sync.storage.salvage import Salvage, Salvaging, entries

_QUEUE_FILE = "queue.json"
_NEW_FILE = "new.db"


@dataclass(frozen=True, slots=True)
class Rescued:
    """What `rescue` has done.

    Attributes:
        path: the real path of the new file.
        kept_in: the directory beside it with the old file, what SQLite kept beside that, and the queue as JSON
            (`queue.json`). It holds what the old file held; nothing ever deletes it.
        queue_length: changes that wait for upload, in their transactions.
        rejected_writes: that were taken over.
        conflicts: that were taken over.
        local_rows: how many rows of each local-only table of the schema were taken over.
        unread: what could not be read, with the number of rows: `upload queue`, `rejected writes`, `conflicts`, or a
            local-only table. Where a page is damaged that says how many rows there were, the number is an upper bound.
        left: tables that stayed behind in the old file: those that the app made by itself, and local-only ones that
            the schema does not name.
    """

    path: Path
    kept_in: Path
    queue_length: int
    rejected_writes: int
    conflicts: int
    local_rows: Mapping[str, int]
    unread: Mapping[str, int]
    left: tuple[str, ...]


def rescue(path: str | Path, schema: Schema) -> Rescued:
    """Put a new database file in the place of a damaged one, with all that only this device has.

    That is the upload queue with its transactions, rejected writes, conflicts, the rows of local-only tables, and the
    user whose file it is. Synced rows, and the subscriptions of streams, come again with the next connection; the file
    gets another client id. Of damaged pages only what is on them is lost. Works on a healthy file too.

    Killed at any moment, or raising anything, it leaves the old file in its place, with all that was in it, or the new
    one, complete. Nothing is deleted: the old file is put into a directory beside, `damaged-…`. Blocks, for as long as
    it takes to read what is taken over: call it in a thread.

    Args:
        path: of the database file; links are followed.
        schema: the app's, with which it will open the file.

    Raises:
        DatabaseInUseError: the file is open, in this process or another; its message names them.
        DatabaseOpenError: there is no file.
        RescueError: a file cannot be read, written or moved, for want of space or permission, say.
    """
    real = Path(os.path.realpath(path))
    if not real.is_file():
        raise DatabaseOpenError(f"There is no {path} to rescue.")
    try:
        with alone(str(real)), _workplace(real) as workplace:
            return _rescue(real, schema, workplace)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RescueError(f"{path} could not be rescued: {reason}. The old file is in its place.") from error


@contextmanager
def _workplace(real: Path) -> Generator[Path]:
    """A directory for what is not finished, on the same file system. What a killed rescue left in it goes."""
    workplace = real.with_name(f"{real.name}-rescue")
    shutil.rmtree(workplace, ignore_errors=True)
    workplace.mkdir(mode=0o700)
    try:
        yield workplace
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _rescue(real: Path, schema: Schema, workplace: Path) -> Rescued:
    log = real.with_name(f"{real.name}-wal")
    with contextlib.ExitStack() as stack:
        old = _connect(real)
        if old is not None:
            stack.enter_context(closing(old))
        if log.exists():
            _copy(log, workplace / log.name)
        salvage = _make_new_file(workplace, old, schema)
        (workplace / _NEW_FILE).chmod(stat.S_IMODE(real.stat().st_mode))
        if old is not None:
            _empty_log(old)
    # From here on the old file is complete without its log, and the new one is complete.
    _link(real, workplace / real.name)
    _flush_directory(workplace)
    kept_in = _name_for_good(real, workplace)
    for part in ("-wal", "-shm", "-journal"):  # SQLite would take them for the new file's
        real.with_name(real.name + part).unlink(missing_ok=True)
    (kept_in / _NEW_FILE).replace(real)
    _flush_directory(real.parent)
    return Rescued(
        path=real,
        kept_in=kept_in,
        queue_length=salvage.queue_length,
        rejected_writes=salvage.rejected_writes,
        conflicts=salvage.conflicts,
        local_rows=salvage.local_rows,
        unread=salvage.unread,
        left=salvage.left,
    )


def _connect(real: Path) -> sqlite3.Connection | None:
    """The old file, or None if SQLite can read nothing of it."""
    try:
        return connect_alone(str(real))
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return None
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            process = holder(str(real))  # one of an older version of this engine, which puts up no mark
            raise DatabaseInUseError(
                f"{real} is open in {f'process {process}' if process else 'another program'}; close it there first. "
                "Nothing was changed.",
                () if process is None else (process,),
            ) from error
        raise


def _make_new_file(workplace: Path, old: sqlite3.Connection | None, schema: Schema) -> Salvage:
    path = workplace / _NEW_FILE
    make_private_file(str(path))
    with closing(sqlite3.connect(path)) as connection:
        set_up_rows(connection)
        new = SqlConnection(connection)
        new.begin("IMMEDIATE")
        prepare(new, schema)
        salvage = Salvaging(old, new, schema).run()
        new.commit()
        _write_queue(new, workplace / _QUEUE_FILE)
        new.release()
    return salvage


def _write_queue(connection: SqlConnection, path: Path) -> None:
    make_private_file(str(path))
    with path.open("wb") as file:
        separator = b"[\n"
        for entry in entries(connection):
            file.write(separator + msgspec.json.encode(entry))
            separator = b",\n"
        file.write(b"\n]\n" if separator == b",\n" else b"[]\n")
        file.flush()
        os.fsync(file.fileno())


def _empty_log(old: sqlite3.Connection) -> None:
    """Move the log into the old file, which is complete then without it, at every moment until it is replaced."""
    busy, *_ = old.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("database is locked")


def _name_for_good(real: Path, workplace: Path) -> Path:
    """Give the directory the name under which it stays."""
    wanted = real.with_name(f"damaged-{datetime.now(UTC):%Y-%m-%d-%H%M%S}")
    kept_in, number = wanted, 1
    while kept_in.exists():
        number += 1
        kept_in = wanted.with_name(f"{wanted.name}-{number}")
    workplace.rename(kept_in)
    _flush_directory(real.parent)
    return kept_in


def _link(source: Path, target: Path) -> None:
    """A second name for a file that is about to lose its first one; a copy, where the file system has no such names."""
    try:
        os.link(source, target)
    except OSError:
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    make_private_file(str(target))
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written)
        written.flush()
        os.fsync(written.fileno())


def _flush_directory(path: Path) -> None:
    with contextlib.suppress(OSError):  # not all file systems can
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
