"""The backend's SQLite file: opening it safely, its schema, and whole transactions off the loop.

Owns the connections, one that writes and one that reads, each on a thread of its own. A caller
hands over a plain function; it runs as one transaction, so that cancelling the caller never
leaves half of it. What the statements mean is not known here.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from app.backend.config import BackendError
from app.backend.data import oplog, users
from app.backend.data.changes import Changes

_APPLICATION_ID = 0x746F646F
_SCHEMA_VERSION = 2
_BUSY_SECONDS = 1.0

_SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) STRICT",
    """
    CREATE TABLE lists (
        id TEXT PRIMARY KEY NOT NULL,
        created_at TEXT,
        name TEXT NOT NULL,
        owner_id TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE todos (
        id TEXT PRIMARY KEY NOT NULL,
        created_at TEXT,
        completed_at TEXT,
        description TEXT NOT NULL,
        completed INTEGER,
        created_by TEXT,
        completed_by TEXT,
        list_id TEXT NOT NULL,
        photo_id TEXT
    ) STRICT
    """,
    "CREATE INDEX todos_by_list ON todos (list_id)",
    """
    CREATE TABLE write_checkpoints (
        user_id TEXT NOT NULL,
        client_id TEXT NOT NULL,
        checkpoint INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        PRIMARY KEY (user_id, client_id)
    ) STRICT, WITHOUT ROWID
    """,
    *oplog.SCHEMA,
    users.SCHEMA,
)

T = TypeVar("T")


class Database:
    """An open database. Make one with `open`; `close` ends it and may be called again."""

    def __init__(self, path: Path, changes: Changes) -> None:
        self._path = path
        self._changes = changes
        self._loop = asyncio.get_running_loop()
        self._writer_thread = ThreadPoolExecutor(1, "backend-writer")
        self._reader_thread = ThreadPoolExecutor(1, "backend-reader")
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    @classmethod
    async def open(cls, path: Path, changes: Changes) -> Database:
        """Open the file at `path`, made with mode 0600 if missing, its directory with 0700.

        Raises BackendError if that cannot be done or the file is not this backend's.
        """
        database = cls(path, changes)
        try:
            await database._loop.run_in_executor(database._writer_thread, database._open)
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Finish the running transactions and close the file."""
        await asyncio.to_thread(self._close)

    async def write(self, work: Callable[[sqlite3.Connection], T], *, user_id: str) -> T:
        """Run `work` as one durable transaction and wake the streams of `user_id` if it changed anything.

        Whatever `work` raises rolls everything back and is raised here; sqlite3.OperationalError
        also comes when another program holds the file for more than a second. Cancelling while it
        runs lets it finish.
        """
        return await self._loop.run_in_executor(self._writer_thread, self._commit, work, user_id)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which must only read, on one consistent state of the database."""
        return await self._loop.run_in_executor(self._reader_thread, self._snapshot, work)

    def _commit(self, work: Callable[[sqlite3.Connection], T], user_id: str) -> T:
        connection = self._writer
        assert connection is not None
        before = connection.total_changes
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        if connection.total_changes != before:
            self._loop.call_soon_threadsafe(self._changes.notify, user_id)
        return result

    def _snapshot(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._reader
        assert connection is not None
        connection.execute("BEGIN")
        try:
            return work(connection)
        finally:
            connection.execute("ROLLBACK")

    def _open(self) -> None:
        path = self._path
        _create_file(path)
        try:
            self._writer = _connect(path)
            _apply_schema(self._writer, path)
            self._reader = _connect(path)
            self._reader.execute("PRAGMA query_only = ON")
            # The files beside the database exist once it has been read in WAL mode.
            self._reader.execute("SELECT 1 FROM meta").fetchone()
            for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                path.with_name(name).chmod(0o600)
        except sqlite3.OperationalError as error:
            raise BackendError(f"Cannot use the database {path}: {error}; free it or choose another file.") from error
        except sqlite3.DatabaseError as error:
            raise BackendError(f"{path} is not a SQLite database; choose another file.") from error
        except OSError as error:
            raise _unusable(path, error) from error

    def _close(self) -> None:
        self._reader_thread.shutdown()
        self._writer_thread.shutdown()
        # The writer goes last: the last one to close folds the write-ahead log into the file.
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None


def _unusable(path: Path, error: OSError) -> BackendError:
    reason = error.strerror or "unknown error"
    return BackendError(f"Cannot use the database {path}: {reason}; check its directory or choose another file.")


def check_file(path: Path) -> None:
    """Return if a database can be at `path`, as far as can be seen before it is made or opened.

    Raises BackendError if something else is there.
    """
    if path.exists() and not path.is_file():
        raise BackendError(f"Cannot use the database {path}: it is not a regular file; choose another file.")


def _create_file(path: Path) -> None:
    try:
        check_file(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError as error:
        # An existing file is never opened here: closing it again would drop SQLite's own locks on it.
        if not path.is_file():
            raise _unusable(path, error) from error
    except OSError as error:
        raise _unusable(path, error) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # An acknowledged write must survive a power cut: the client deletes its own copy of it.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _apply_schema(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _is_new(connection, path):
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES ('backend_id', ?)", [str(uuid.uuid4())])
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        else:
            users.create_table(connection)
            if not connection.execute("SELECT 1 FROM pragma_table_info('todos') WHERE name = 'photo_id'").fetchone():
                connection.execute("ALTER TABLE todos ADD COLUMN photo_id TEXT")
            if connection.execute("PRAGMA user_version").fetchone() == (1,):
                oplog.upgrade(connection)
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if (application, version, objects) == (0, 0, 0):
        return True
    if application != _APPLICATION_ID:
        raise BackendError(f"{path} belongs to another program; choose another file.")
    if version > _SCHEMA_VERSION:
        raise BackendError(f"{path} was made by a newer version of the backend; update todo-tui.")
    return False
