"""The methods that run one statement: the same on the database and in transactions.

Owns their signatures, and the conversion of SQLite's rows to the requested type. Subclasses decide where a statement
runs; rows are converted there too, off the event loop. Must not know connections or threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from sync.errors import NoRowError
from sync.sqlite.rows import row_reader, row_values
from sync.sqlite.sql_connection import Parameters, Row, SqlConnection
from sync.sqlite.upsert import upsert

T = TypeVar("T")
R = TypeVar("R")


class Queries(ABC):
    """Reading methods. Each takes a `row_type`: a dataclass, a msgspec Struct, a pydantic model, a TypedDict, or dict.

    Its fields are filled from the columns of the same names: 0 and 1 become bool, ISO 8601 text becomes a date or a
    time, JSON text becomes a nested value. Without it, rows are `Row`s: read them by index or by name, or make a dict.

    Raises (all of them):
        sqlite3.Error: SQLite rejected the query, or it would write.
        RowTypeError: a row does not match the `row_type`; the message names the column.
        DatabaseClosedError: the database is closed, or the transaction has ended.
        NestedUseError: called on the database inside its own write transaction.
    """

    @abstractmethod
    async def _read(self, function: Callable[[SqlConnection], T]) -> T: ...

    @overload
    async def get_all(self, sql: str, parameters: Parameters = ()) -> list[Row]: ...
    @overload
    async def get_all(self, sql: str, parameters: Parameters = (), *, row_type: type[R]) -> list[R]: ...
    async def get_all(self, sql: str, parameters: Parameters = (), *, row_type: type[Any] = Row) -> list[Any]:
        """Run a query and return all rows. If cancelled, the query is interrupted."""
        convert = converter(row_type)
        return await self._read(lambda connection: convert(connection.execute(sql, parameters)))

    @overload
    async def get_optional(self, sql: str, parameters: Parameters = ()) -> Row | None: ...
    @overload
    async def get_optional(self, sql: str, parameters: Parameters = (), *, row_type: type[R]) -> R | None: ...
    async def get_optional(self, sql: str, parameters: Parameters = (), *, row_type: type[Any] = Row) -> Any:
        """Run a query and return its first row, or None."""
        convert = row_reader(row_type)

        def first(connection: SqlConnection) -> Any:
            row = connection.first(sql, parameters)
            return None if row is None else convert(row)

        return await self._read(first)

    @overload
    async def get(self, sql: str, parameters: Parameters = ()) -> Row: ...
    @overload
    async def get(self, sql: str, parameters: Parameters = (), *, row_type: type[R]) -> R: ...
    async def get(self, sql: str, parameters: Parameters = (), *, row_type: type[Any] = Row) -> Any:
        """Run a query and return its first row.

        Raises:
            NoRowError: there is none.
        """
        row = await self.get_optional(sql, parameters, row_type=row_type)
        if row is None:
            raise NoRowError(f"The query returned no row: {sql}")
        return row


class WritingQueries(Queries):
    """Reading and writing methods. On the database, each write is a transaction of its own.

    If a write is cancelled once it is running, it still completes.
    """

    @abstractmethod
    async def _write(self, function: Callable[[SqlConnection], T]) -> T: ...

    @overload
    async def execute(self, sql: str, parameters: Parameters = ()) -> list[Row]: ...
    @overload
    async def execute(self, sql: str, parameters: Parameters = (), *, row_type: type[R]) -> list[R]: ...
    async def execute(self, sql: str, parameters: Parameters = (), *, row_type: type[Any] = Row) -> list[Any]:
        """Run one statement, and return its rows (such as those of RETURNING).

        Raises:
            sqlite3.Error: SQLite rejected the statement; nothing was changed.
            RowTypeError: a row does not match the `row_type`; on the database, nothing was changed.
        """
        convert = converter(row_type)
        return await self._write(lambda connection: convert(connection.execute(sql, parameters)))

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> None:
        """Run one statement for each row of parameters, all in one transaction. Raises as `execute`."""
        await self._write(lambda connection: connection.execute_many(sql, rows))

    async def upsert(self, table: str, row: object) -> None:
        """Insert a row, or update the given columns of the row with this id; other columns keep their values.

        Uploaded as PUT if the row did not exist, otherwise as PATCH with the changes.

        Args:
            table: a table of the schema.
            row: a mapping of columns to values, or an instance of any type that `row_type` accepts; with the row's
                `id`.

        Raises:
            ValueError: the row has no id.
            TypeError: a value cannot be stored.
            sqlite3.Error: SQLite rejected it; nothing was changed.
        """
        values = row_values(row)
        if values.get("id") is None:
            raise ValueError(f"upsert needs the row's id; this row has only the columns {', '.join(values)}.")
        await self._write(lambda connection: upsert(connection, table, values))


def converter(row_type: type[R]) -> Callable[[list[Row]], list[R]]:
    """A function that converts SQLite's rows to the requested type."""
    if row_type is Row:
        return lambda rows: rows  # pyright: ignore[reportReturnType]
    read = row_reader(row_type)
    return lambda rows: [read(row) for row in rows]
