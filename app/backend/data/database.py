"""The backend's SQLite file: opens it safely, creates its schema, and runs transactions outside the event loop.

Owns two connections, a writer and a reader, each with its own thread. Callers pass a plain function, which runs as one
transaction, so cancelling the caller never leaves a partial write. Must not know what the statements mean.
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
    """An open database. Create it with `open`; `close` can be called more than once."""

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
        """Open the file at `path`. If missing, it is created with mode 0600, and its directory with 0700.

        Raises BackendError if the file cannot be used or belongs to another program.
        """
        database = cls(path, changes)
        try:
            await database._loop.run_in_executor(database._writer_thread, database._open)
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Wait for running transactions and close the file."""
        await asyncio.to_thread(self._close)

    async def write(self, work: Callable[[sqlite3.Connection], T], *, user_id: str) -> T:
        """Run `work` as one durable transaction and notify the streams of `user_id` if it changed anything.

        An exception raised by `work` rolls the transaction back and is propagated. Cancelling does not interrupt a
        running transaction.

        Raises sqlite3.OperationalError if another program locks the file for more than a second.
        """
        return await self._loop.run_in_executor(self._writer_thread, self._commit, work, user_id)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which must only read, on one consistent snapshot of the database."""
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
            # The -wal and -shm files exist once the database has been read in WAL mode.
            self._reader.execute("SELECT 1 FROM meta").fetchone()
            for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                path.with_name(name).chmod(0o600)
        except sqlite3.OperationalError as error:
            raise BackendError(
                f"Cannot use the database {path}: {error}; close the program that uses it or choose another file."
            ) from error
        except sqlite3.DatabaseError as error:
            raise BackendError(f"{path} is not a SQLite database; choose another file.") from error
        except OSError as error:
            raise _unusable(path, error) from error

    def _close(self) -> None:
        self._reader_thread.shutdown()
        self._writer_thread.shutdown()
        # The writer is closed last: the last connection to close moves the write-ahead log into the file.
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None


def _unusable(path: Path, error: OSError) -> BackendError:
    reason = error.strerror or "unknown error"
    return BackendError(f"Cannot use the database {path}: {reason}; check its directory or choose another file.")


def check_file(path: Path) -> None:
    """Check that `path` is free or a regular file, without creating or opening it.

    Raises BackendError if it is something else.
    """
    if path.exists() and not path.is_file():
        raise BackendError(f"Cannot use the database {path}: it is not a regular file; choose another file.")


def _create_file(path: Path) -> None:
    try:
        check_file(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError as error:
        # Never open an existing file here: closing it would release SQLite's locks on it.
        if not path.is_file():
            raise _unusable(path, error) from error
    except OSError as error:
        raise _unusable(path, error) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # An acknowledged write must survive a power failure, because the client deletes its own copy.
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
        raise BackendError(f"{path} was created by a newer version of the backend; update todo-tui.")
    return False
