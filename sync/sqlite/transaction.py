"""The handles inside `write_transaction()` and `read_transaction()`.

Owns what they allow: statements while the transaction lasts, nothing after its end. Must not begin or end one:
`sync.sqlite.pool` does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from sync.errors import DatabaseClosedError
from sync.sqlite.queries import Queries, WritingQueries
from sync.sqlite.sql_connection import SqlConnection

T = TypeVar("T")

Run = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a function on the connection's thread."""


class _Handle:
    def __init__(self, run: Run, connection: SqlConnection) -> None:
        self._run = run
        self._connection = connection
        self._ended = False

    def end(self) -> None:
        """Make this handle unusable."""
        self._ended = True

    async def _on_thread(self, function: Callable[[SqlConnection], T]) -> T:
        if self._ended:
            raise DatabaseClosedError("The transaction has ended; its handle cannot be used anymore.")

        def inside() -> T:
            if not self._connection.in_transaction:
                raise DatabaseClosedError("SQLite has rolled back this transaction after an error; begin a new one.")
            return function(self._connection)

        return cast("T", await self._run(inside))


class ReadTransaction(_Handle, Queries):
    """The handle inside `read_transaction()`: all its queries see the file as of the start of the transaction."""

    async def _read(self, function: Callable[[SqlConnection], T]) -> T:
        return await self._on_thread(function)


class Transaction(_Handle, WritingQueries):
    """The handle inside `write_transaction()`. Its queries see its own changes.

    An SQL error leaves the transaction usable, unless SQLite ended it; then every further call raises
    DatabaseClosedError.
    """

    async def _read(self, function: Callable[[SqlConnection], T]) -> T:
        return await self._on_thread(function)

    async def _write(self, function: Callable[[SqlConnection], T]) -> T:
        return await self._on_thread(function)
