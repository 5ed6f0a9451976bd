"""The rows in PostgreSQL, in the tables of the official PowerSync demos, for a PowerSync Service to replicate.

Owns the connections, the SQL for PostgreSQL, the conversion of its types to the values of a `Row`, and the distinction
between errors caused by the client and transient ones. Must not know what a write means; that belongs to `rows`. The
URL may contain a password, so neither the URL nor the driver's messages about it are logged.
"""

from __future__ import annotations

import asyncio
import queue
import re
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors as sql_errors
from psycopg import sql

from app.backend.config import BackendError
from app.backend.data.rows import Rows
from app.backend.errors import DatabaseTroubleError, RequestError
from app.backend.rules.tables import LISTS, TODOS, Column, Row, Table, Value

T = TypeVar("T")

CONNECTIONS: Final = 4
"""How many transactions can run concurrently."""

_CONNECT_SECONDS: Final = 5
_STATEMENT_MILLISECONDS: Final = 10_000
_ATTEMPTS: Final = 4
"""How often a transaction is attempted if it conflicts with others."""

_TABLES: Final = (
    """
    CREATE TABLE IF NOT EXISTS lists (
        id uuid NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
        created_at timestamptz NOT NULL DEFAULT now(),
        name text NOT NULL,
        owner_id uuid NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS todos (
        id uuid NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
        created_at timestamptz NOT NULL DEFAULT now(),
        completed_at timestamptz,
        description text NOT NULL,
        completed boolean NOT NULL DEFAULT false,
        created_by uuid,
        completed_by uuid,
        list_id uuid NOT NULL,
        photo_id uuid
    )
    """,
    "CREATE INDEX IF NOT EXISTS todos_by_list ON todos (list_id)",
    """
    CREATE TABLE IF NOT EXISTS checkpoints (
        user_id text NOT NULL,
        client_id text NOT NULL,
        checkpoint bigint NOT NULL,
        PRIMARY KEY (user_id, client_id)
    )
    """,
)
PUBLICATION: Final = "powersync"
"""The publication that a PowerSync Service replicates by default."""

_TRANSIENT: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    sql_errors.InsufficientPrivilege,
    sql_errors.UndefinedTable,
    sql_errors.UndefinedColumn,
)
"""Errors that the client did not cause: a retry succeeds once the problem is over or the operator has fixed it."""

_SERVER_MESSAGE: Final = re.compile(r"FATAL: +(.*)")

_CONFLICTS: Final = (sql_errors.SerializationFailure, sql_errors.DeadlockDetected, sql_errors.UniqueViolation)
"""Conflicts between transactions, including two that insert the same row: when retried, one of them updates it."""


class PostgresDatabase:
    """Connections to one database, each used by one transaction at a time. Create it with `open`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(CONNECTIONS, "backend-postgres")
        self._idle: queue.SimpleQueue[psycopg.Connection[Any]] = queue.SimpleQueue()

    @classmethod
    async def open(cls, url: str) -> PostgresDatabase:
        """Connect, and check that the tables exist.

        Raises BackendError if the database cannot be used; the message does not contain the URL.
        """
        database = cls(url)
        try:
            await database._in_thread(database._check_tables)
        except BaseException as error:
            await database.close()
            if isinstance(error, DatabaseTroubleError):
                raise BackendError(f"Cannot use the PostgreSQL database: {error}.") from error
            raise
        return database

    async def write_rows(self, work: Callable[[Rows], T], *, user_id: str) -> T:  # noqa: ARG002 -- there are no streams to notify
        """See `RowDatabase.write_rows`. Conflicting transactions are retried."""
        return await self._in_thread(lambda connection: work(PostgresRows(connection)))

    async def advance_checkpoint(self, user_id: str, client_id: str) -> int:
        """See `RowDatabase.advance_checkpoint`. Uses the same table as the official Node demo."""

        def advance(connection: psycopg.Connection[Any]) -> int:
            row = connection.execute(
                "INSERT INTO checkpoints (user_id, client_id, checkpoint) VALUES (%s, %s, 1)"
                " ON CONFLICT (user_id, client_id) DO UPDATE SET checkpoint = checkpoints.checkpoint + 1"
                " RETURNING checkpoint",
                [user_id, client_id],
            ).fetchone()
            assert row is not None
            return int(row[0])

        return await self._in_thread(advance)

    async def check(self) -> None:
        """See `RowDatabase.check`."""
        await self._in_thread(lambda connection: connection.execute("SELECT 1 FROM lists LIMIT 1").fetchone())

    async def close(self) -> None:
        """Wait for running transactions and close the connections."""
        await asyncio.to_thread(self._close)

    async def _in_thread(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        return await self._loop.run_in_executor(self._threads, partial(self._transaction, work))

    def _transaction(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._attempt(work)
            except _CONFLICTS as error:
                if attempt == _ATTEMPTS:
                    raise DatabaseTroubleError("too many conflicting transactions") from error
            except psycopg.errors.AdminShutdown as error:
                raise DatabaseTroubleError("it is shutting down") from error
            except _TRANSIENT as error:
                raise DatabaseTroubleError(_reason(error)) from None
            except psycopg.Error as error:
                # PostgreSQL would reject this value however often it is sent.
                detail = (error.diag.message_primary or type(error).__name__).rstrip(".")
                raise RequestError(400, "refused_value", f"The database rejected a value: {detail}.") from None
        raise AssertionError

    def _attempt(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        connection = self._connection()
        try:
            with connection.transaction():
                result = work(connection)
        except BaseException:
            self._release(connection)
            raise
        self._release(connection)
        return result

    def _connection(self) -> psycopg.Connection[Any]:
        while True:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                return _connect(self._url)
            try:
                # A server that was restarted has closed the old connections.
                connection.execute("SELECT 1")
            except psycopg.Error:
                connection.close()
            else:
                return connection

    def _release(self, connection: psycopg.Connection[Any]) -> None:
        if connection.closed or connection.broken:
            connection.close()
        else:
            self._idle.put(connection)

    def _check_tables(self, connection: psycopg.Connection[Any]) -> None:
        for table in (LISTS, TODOS):
            names = sql.SQL(", ").join(map(sql.Identifier, table.row_names()))
            connection.execute(sql.SQL("SELECT {} FROM {} LIMIT 0").format(names, sql.Identifier(table.name)))

    def _close(self) -> None:
        self._threads.shutdown()
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return


class PostgresRows:
    """The rows inside one transaction; see `Rows`.

    A fetched row is locked until the transaction ends, so nobody can delete a list, or give it to another user, between
    the check of its owner and the write.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def canonical_id(self, text: str) -> str:
        try:
            return str(uuid.UUID(text))
        except ValueError:
            return text

    def canonical(self, table: Table, row_id: str, values: Row) -> Row:
        _canonical_uuid("id", table, row_id)
        columns = {column.name: column for column in table.columns}
        return {
            name: value if name == "id" else _canonical(columns[name], table, value) for name, value in values.items()
        }

    def fetch(self, table: Table, row_id: str) -> Row | None:
        if not _is_uuid(row_id):
            return None
        found = self._connection.execute(
            sql.SQL("SELECT {} FROM {} WHERE id = %s FOR UPDATE").format(_names(table), sql.Identifier(table.name)),
            [row_id],
        ).fetchone()
        return None if found is None else _row(table, found)

    def store(self, table: Table, before: Row | None, after: Row) -> None:
        if before is None:
            columns = [name for name in after if after[name] is not None]  # the others get their defaults
        else:
            columns = [name for name in after if after[name] != before[name]]
        values = [_stored(after[name], table, name) for name in columns]
        if before is None:
            statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table.name),
                sql.SQL(", ").join(map(sql.Identifier, columns)),
                sql.SQL(", ").join(sql.Placeholder() * len(columns)),
            )
            self._connection.execute(statement, values)
            return
        settings = [sql.SQL("{} = %s").format(sql.Identifier(name)) for name in columns]
        statement = sql.SQL("UPDATE {} SET {} WHERE id = %s").format(
            sql.Identifier(table.name), sql.SQL(", ").join(settings)
        )
        self._connection.execute(statement, [*values, after["id"]])

    def delete(self, table: Table, row: Row) -> None:
        self._connection.execute(
            sql.SQL("DELETE FROM {} WHERE id = %s").format(sql.Identifier(table.name)), [row["id"]]
        )

    def todos_of(self, list_id: str) -> list[Row]:
        found = self._connection.execute(
            sql.SQL("SELECT {} FROM todos WHERE list_id = %s ORDER BY id").format(_names(TODOS)), [list_id]
        ).fetchall()
        return [_row(TODOS, row) for row in found]

    @contextmanager
    def savepoint(self) -> Generator[None]:
        with self._connection.transaction():
            yield


def initialize(url: str) -> list[str]:
    """Create the missing tables and the publication, and return warnings for the operator, one sentence each.

    Raises BackendError if they cannot be created; the message does not contain the URL.
    """
    try:
        with _connect(url) as connection:
            with connection.transaction():
                for statement in _TABLES:
                    connection.execute(statement)
                if not connection.execute("SELECT 1 FROM pg_publication WHERE pubname = %s", [PUBLICATION]).fetchone():
                    connection.execute(
                        sql.SQL("CREATE PUBLICATION {} FOR TABLE lists, todos").format(sql.Identifier(PUBLICATION))
                    )
            row = connection.execute("SHOW wal_level").fetchone()
    except psycopg.Error as error:
        raise BackendError(f"Cannot create the tables in the PostgreSQL database: {_reason(error)}.") from None
    if row is not None and row[0] != "logical":
        return [f"A PowerSync Service requires PostgreSQL's setting wal_level = logical; it is currently {row[0]}."]
    return []


def _connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        url,
        autocommit=True,
        connect_timeout=_CONNECT_SECONDS,
        application_name="todo-tui backend",
        options=f"-c statement_timeout={_STATEMENT_MILLISECONDS} -c lock_timeout={_STATEMENT_MILLISECONDS}"
        " -c idle_in_transaction_session_timeout=60000",
        keepalives_idle=30,
        tcp_user_timeout=_STATEMENT_MILLISECONDS,
    )


def _reason(error: psycopg.Error) -> str:
    """The reason, from the server's message if there is one; the driver's own may contain the address and the user."""
    if isinstance(error, sql_errors.UndefinedTable | sql_errors.UndefinedColumn):
        return "its tables are missing; create them with todo-tui backend --init-database"
    if error.diag.message_primary:
        return error.diag.message_primary.rstrip(".")
    if match := _SERVER_MESSAGE.search(str(error)):
        return match[1].rstrip(".")
    if isinstance(error, psycopg.OperationalError):
        return "it cannot be reached, or it rejects the user name and password"
    return type(error).__name__


def _names(table: Table) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, table.row_names()))


def _row(table: Table, found: tuple[Any, ...]) -> Row:
    return {name: _value(value) for name, value in zip(table.row_names(), found, strict=True)}


def _value(value: Any) -> Value:
    match value:
        case uuid.UUID():
            return str(value)
        case datetime():
            return _timestamp_text(value)
        case bool():
            return int(value)
        case _:
            return value


def _stored(value: Value, table: Table, name: str) -> Any:
    kind = next((column.sql_type for column in table.columns if column.name == name), "uuid")
    if kind == "boolean" and value is not None:
        return bool(value)
    return value


def _canonical(column: Column, table: Table, value: Value) -> Value:
    if column.sql_type == "boolean":
        return value or 0
    if value is None:
        return None
    text = str(value)
    match column.sql_type:
        case "uuid":
            return _canonical_uuid(column.name, table, text)
        case "timestamptz":
            moment = datetime.fromisoformat(text)
            try:
                return _timestamp_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
            except OverflowError:
                raise RequestError(400, "wrong_type", f"{table.name}.{column.name} is out of range.") from None
        case _:
            if "\0" in text:
                raise RequestError(
                    400,
                    "wrong_type",
                    f"{table.name}.{column.name} contains a NUL character, which PostgreSQL cannot store.",
                )
            return value


def _canonical_uuid(name: str, table: Table, text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise RequestError(400, "wrong_type", f"{table.name}.{name} must be a UUID.") from None


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _timestamp_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
