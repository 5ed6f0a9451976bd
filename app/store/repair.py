"""A new database in place of a damaged one: what waited to be uploaded is rescued first, and waits again afterwards.

Owns the order of that. Nothing is deleted: the damaged files are kept beside, and what was rescued is kept as JSON too.
The lists and to-dos themselves come again from the backend.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from app.store.schema import APP_SCHEMA
from app.system.private_file import create_file
from app.system.user_error import UserError
from sync import CrudEntry, PowerSyncDatabase, PowerSyncError

_PARTS = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Repaired:
    """What repairing has done.

    Attributes:
        rescued: how many changes wait again.
        kept: the directory with the damaged files and the rescued changes.
    """

    rescued: int
    kept: Path


def repair(data_dir: Path, now: datetime) -> Repaired:
    """Rescue the queue of the database in a data directory, set a new database in its place, and put the queue back.

    Every todo-tui on this directory must have ended.

    Raises:
        UserError: another program uses the files, or a file cannot be moved or written; then all is as it was.
    """
    from filelock import FileLock, Timeout

    database = data_dir / "todo.db"
    if not database.exists():
        raise UserError(f"There is no {database} to repair.")
    try:
        with FileLock(f"{database}-repair-lock", timeout=0), FileLock(f"{database}-sync-lock", timeout=0):
            return _repair(database, now)
    except Timeout as error:
        raise UserError(f"Another todo-tui syncs {database}; quit all of them, then repair.") from error
    except OSError as error:
        raise UserError(f"{error.filename or database} cannot be used: {error.strerror or error}.") from error


def _repair(database: Path, now: datetime) -> Repaired:
    entries = list(_rescued(database))
    kept = database.with_name(f"damaged-{now:%Y-%m-%d-%H%M%S}")
    kept.mkdir(mode=0o700)
    create_file(kept / "queue.json", json.dumps([msgspec.to_builtins(entry) for entry in entries], indent=1).encode())
    for part in _PARTS:
        with suppress(FileNotFoundError):
            database.with_name(database.name + part).rename(kept / (database.name + part))
    try:
        asyncio.run(_put_back(database, entries))
    except (PowerSyncError, sqlite3.Error) as error:
        for part in _PARTS:
            with suppress(FileNotFoundError):
                (kept / (database.name + part)).replace(database.with_name(database.name + part))
        raise UserError(f"The new database could not be made ({error}); the damaged one is back.") from error
    return Repaired(len(entries), kept)


def _rescued(database: Path) -> Iterator[CrudEntry]:
    """The entries that can be read, in their order; a damaged page takes only what is on it."""
    with closing(sqlite3.connect(database)) as connection:
        last = 0
        while True:
            try:
                row = connection.execute(
                    "SELECT id, tx_id, data FROM ps_crud WHERE id > ? ORDER BY id LIMIT 1", [last]
                ).fetchone()
            except sqlite3.DatabaseError as error:
                if last == 0 and "no such table" in str(error):
                    return
                row = _next_readable(connection, last)
            if row is None:
                return
            last, transaction_id, text = row
            with suppress(msgspec.DecodeError, KeyError, TypeError, ValueError):
                yield _entry(last, transaction_id, json.loads(text))


def _next_readable(connection: sqlite3.Connection, last: int) -> tuple[Any, ...] | None:
    """The next entry after one that cannot be read: of a few thousand numbers, one by one."""
    for number in range(last + 1, last + 5_000):
        with suppress(sqlite3.DatabaseError):
            row = connection.execute("SELECT id, tx_id, data FROM ps_crud WHERE id = ?", [number]).fetchone()
            if row is not None:
                return row
    return None


def _entry(number: int, transaction_id: int | None, stored: dict[str, Any]) -> CrudEntry:
    return CrudEntry(
        number,
        transaction_id,
        stored["op"],
        stored["type"],
        stored["id"],
        stored.get("data"),
        stored.get("old"),
        stored.get("metadata"),
    )


async def _put_back(database: Path, entries: list[CrudEntry]) -> None:
    async with PowerSyncDatabase(database, APP_SCHEMA) as fresh:
        for _, transaction in groupby(entries, key=lambda entry: entry.transaction_id or -entry.client_id):
            await fresh.put_back(list(transaction))
