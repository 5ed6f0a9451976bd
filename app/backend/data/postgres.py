"""The rows in PostgreSQL, in the tables of the official PowerSync demos, for a PowerSync Service to replicate.

Owns the connections, the SQL of PostgreSQL, how its types become the texts and numbers of a `Row`, and which of its
errors are the client's and which may pass. Must not know what a write means: that is `rows`'. The URL may hold a
password; neither it nor what the driver says of it is logged.
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
"""How many transactions run at once."""

_CONNECT_SECONDS: Final = 5
_STATEMENT_MILLISECONDS: Final = 10_000
_ATTEMPTS: Final = 4
"""How often a transaction is run that others get in the way of."""

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
"""The publication that a PowerSync Service follows, by its own default."""

_MAY_PASS: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    sql_errors.InsufficientPrivilege,
    sql_errors.UndefinedTable,
    sql_errors.UndefinedColumn,
)
"""Trouble that is not the client's: a repeat succeeds once it is over, or once the operator has mended it."""

_SAID_BY_SERVER: Final = re.compile(r"FATAL: +(.*)")

_IN_THE_WAY: Final = (sql_errors.SerializationFailure, sql_errors.DeadlockDetected, sql_errors.UniqueViolation)
"""Two transactions were in each other's way. Two that insert the same row are, too: afterwards one of them updates."""


class PostgresDatabase:
    """Connections to one database, each used by one transaction at a time. Make one with `open`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(CONNECTIONS, "backend-postgres")
        self._idle: queue.SimpleQueue[psycopg.Connection[Any]] = queue.SimpleQueue()

    @classmethod
    async def open(cls, url: str) -> PostgresDatabase:
        """Connect, and look whether the tables are there.

        Raises BackendError if that cannot be done; its sentence does not hold the URL.
        """
        database = cls(url)
        try:
            await database._in_thread(database._look_at_tables)
        except BaseException as error:
            await database.close()
            if isinstance(error, DatabaseTroubleError):
                raise BackendError(f"Cannot use the PostgreSQL database: {error}.") from error
            raise
        return database

    async def write_rows(self, work: Callable[[Rows], T], *, user_id: str) -> T:  # noqa: ARG002 -- nobody listens here
        """See `RowDatabase.write_rows`. Transactions that get in each other's way are run again."""
        return await self._in_thread(lambda connection: work(PostgresRows(connection)))

    async def advance_checkpoint(self, user_id: str, client_id: str) -> int:
        """See `RowDatabase.advance_checkpoint`; kept in the table that the official Node demo uses."""

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
        """Finish the running transactions and close the connections."""
        await asyncio.to_thread(self._close)

    async def _in_thread(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        return await self._loop.run_in_executor(self._threads, partial(self._transaction, work))

    def _transaction(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._attempt(work)
            except _IN_THE_WAY as error:
                if attempt == _ATTEMPTS:
                    raise DatabaseTroubleError("too many transactions are in each other's way") from error
            except psycopg.errors.AdminShutdown as error:
                raise DatabaseTroubleError("it is shutting down") from error
            except _MAY_PASS as error:
                raise DatabaseTroubleError(_reason(error)) from None
            except psycopg.Error as error:
                # What PostgreSQL itself will not take, however often it is sent.
                detail = (error.diag.message_primary or type(error).__name__).rstrip(".")
                raise RequestError(400, "refused_value", f"The database refused a value: {detail}.") from None
        raise AssertionError

    def _attempt(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        connection = self._connection()
        try:
            with connection.transaction():
                result = work(connection)
        except BaseException:
            self._give_back(connection)
            raise
        self._give_back(connection)
        return result

    def _connection(self) -> psycopg.Connection[Any]:
        while True:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                return _connect(self._url)
            try:
                # A server that was restarted has dropped the connections of before.
                connection.execute("SELECT 1")
            except psycopg.Error:
                connection.close()
            else:
                return connection

    def _give_back(self, connection: psycopg.Connection[Any]) -> None:
        if connection.closed or connection.broken:
            connection.close()
        else:
            self._idle.put(connection)

    def _look_at_tables(self, connection: psycopg.Connection[Any]) -> None:
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

    A row that was looked at stays as it is until the transaction ends: nobody takes a list away, or gives it to another
    user, between the look at its owner and the write.
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
            columns = [name for name in after if after[name] is not None]  # the others have their defaults
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
    """Make the tables and the publication that are missing, and return what the operator should know, in sentences.

    Raises BackendError if that cannot be done; its sentence does not hold the URL.
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
        raise BackendError(f"Cannot make the tables in the PostgreSQL database: {_reason(error)}.") from None
    if row is not None and row[0] != "logical":
        return [f"A PowerSync Service needs wal_level = logical in PostgreSQL's settings; it is {row[0]} now."]
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
    """Why, in PostgreSQL's words if the server said them; the driver's own may hold the address and the user."""
    if isinstance(error, sql_errors.UndefinedTable | sql_errors.UndefinedColumn):
        return "its tables are missing; make them with todo-tui backend --init-database"
    if error.diag.message_primary:
        return error.diag.message_primary.rstrip(".")
    if said := _SAID_BY_SERVER.search(str(error)):
        return said[1].rstrip(".")
    if isinstance(error, psycopg.OperationalError):
        return "it cannot be reached, or refuses the user and password that were given"
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
                    400, "wrong_type", f"{table.name}.{column.name} has a NUL, which PostgreSQL cannot store."
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
