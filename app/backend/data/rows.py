"""Applies a client's writes to the rows.

Owns the rules about ownership and deleted lists, which are the same for every database. The rows are accessed through
`Rows`, whose transaction belongs to the caller; a RequestError rolls it back. The only SQL is in `SqliteRows`, where
all values are bound and all identifiers come from `tables`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from app.backend.data import checkpoints
from app.backend.data.database import Database
from app.backend.data.oplog import OperationLog
from app.backend.errors import RequestError
from app.backend.rules.tables import LISTS, TODOS, Row, Table, now, table_named


class CrudEntry(msgspec.Struct):
    """One write by a client."""

    op: Literal["PUT", "PATCH", "DELETE"]
    table: str
    id: str
    data: dict[str, Any] | None = None


class Rows(Protocol):
    """The rows of one database within a transaction. The values of a `Row` are str, 0 or 1 for a boolean, or None."""

    def canonical_id(self, text: str) -> str:
        """The canonical form in which this database returns an id; invalid ids are returned unchanged."""
        ...

    def canonical(self, table: Table, row_id: str, values: Row) -> Row:
        """`values` in the canonical form in which this database returns them.

        Raises RequestError 400 for an id or a value that cannot be stored.
        """
        ...

    def fetch(self, table: Table, row_id: str) -> Row | None:
        """The row with this id, or None if it does not exist."""
        ...

    def store(self, table: Table, before: Row | None, after: Row) -> None:
        """Insert `after`, or replace `before` with it."""
        ...

    def delete(self, table: Table, row: Row) -> None:
        """Delete the row."""
        ...

    def todos_of(self, list_id: str) -> list[Row]:
        """The to-dos of a list."""
        ...

    def savepoint(self) -> AbstractContextManager[None]:
        """A block whose changes alone are rolled back if it raises."""
        ...


T = TypeVar("T")


class RowDatabase(Protocol):
    """A database that stores the rows."""

    async def write_rows(self, work: Callable[[Rows], T], *, user_id: str) -> T:
        """Run `work` as one durable transaction. An exception that it raises rolls back and is propagated.

        Cancelling does not interrupt a running transaction.

        Raises sqlite3.Error or DatabaseTroubleError if the database is currently unavailable.
        """
        ...

    async def advance_checkpoint(self, user_id: str, client_id: str) -> int:
        """Increment a client's write checkpoint and return it. Raises the same errors as `write_rows`."""
        ...

    async def check(self) -> None:
        """Check that the database responds. Raises the same errors as `write_rows`."""
        ...

    async def close(self) -> None:
        """Release the resources that this object owns."""
        ...


class SqliteRowDatabase:
    """The rows in the backend's own file; the caller opens and closes the file."""

    def __init__(self, database: Database, log: OperationLog) -> None:
        self._database = database
        self._log = log

    async def write_rows(self, work: Callable[[Rows], T], *, user_id: str) -> T:
        return await self._database.write(lambda connection: work(SqliteRows(connection, self._log)), user_id=user_id)

    async def advance_checkpoint(self, user_id: str, client_id: str) -> int:
        return await self._database.write(
            lambda connection: checkpoints.advance(connection, user_id, client_id), user_id=user_id
        )

    async def check(self) -> None:
        """Nothing to do: the owner of the file checks it."""

    async def close(self) -> None:
        """Nothing to do: the owner of the file closes it."""


class SqliteRows:
    """The rows in the backend's own file; every change is recorded in the operation log."""

    def __init__(self, connection: sqlite3.Connection, log: OperationLog) -> None:
        self._connection = connection
        self._log = log

    def canonical_id(self, text: str) -> str:
        return text

    def canonical(self, table: Table, row_id: str, values: Row) -> Row:  # noqa: ARG002 - any text can be stored
        return values

    def fetch(self, table: Table, row_id: str) -> Row | None:
        names = table.row_names()
        found = self._connection.execute(
            f"SELECT {', '.join(names)} FROM {table.name} WHERE id = ?", [row_id]
        ).fetchone()
        return None if found is None else dict(zip(names, found, strict=True))

    def store(self, table: Table, before: Row | None, after: Row) -> None:
        names = ", ".join(after)
        marks = ", ".join("?" * len(after))
        updates = ", ".join(f"{name} = excluded.{name}" for name in after)
        self._connection.execute(
            f"INSERT INTO {table.name} ({names}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {updates}",
            list(after.values()),
        )
        self._log.record(self._connection, table.name, before, after)

    def delete(self, table: Table, row: Row) -> None:
        self._connection.execute(f"DELETE FROM {table.name} WHERE id = ?", [row["id"]])
        self._log.record(self._connection, table.name, row, None)

    def todos_of(self, list_id: str) -> list[Row]:
        names = TODOS.row_names()
        found = self._connection.execute(
            f"SELECT {', '.join(names)} FROM todos WHERE list_id = ? ORDER BY rowid", [list_id]
        ).fetchall()
        return [dict(zip(names, todo, strict=True)) for todo in found]

    @contextmanager
    def savepoint(self) -> Generator[None]:
        self._connection.execute("SAVEPOINT client_transaction")
        try:
            yield
        except BaseException:
            # After some SQLite errors, the whole transaction has already been rolled back.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO client_transaction")
            raise
        finally:
            if self._connection.in_transaction:
                self._connection.execute("RELEASE client_transaction")


class RowWriter:
    """Applies the writes in one request of a user; `request` contains all of them."""

    def __init__(self, rows: Rows, request: Iterable[CrudEntry], *, user_id: str) -> None:
        self._rows = rows
        self._user_id = rows.canonical_id(user_id)
        self._position = -1
        self._last_deletions = {
            (entry.table, rows.canonical_id(entry.id)): position
            for position, entry in enumerate(request)
            if entry.op == "DELETE"
        }

    def apply(self, entries: Sequence[CrudEntry]) -> None:
        """Apply the next `entries` of the request. Applying the same entries again changes and logs nothing.

        PUT inserts a row or updates the given columns; PATCH updates the given columns; PATCH and DELETE of a missing
        row succeed. Deleting a list deletes its to-dos.

        Raises RequestError 400 for a write that does not match the tables, 403 for a row of another user, and 409 for
        a to-do in a list that does not exist.
        """
        for index, entry in enumerate(entries):
            self._position += 1
            try:
                self._apply_one(entry)
            except RequestError as error:
                error.operation_index = index
                raise

    def _apply_one(self, entry: CrudEntry) -> None:
        table = table_named(entry.table)
        if not entry.id:
            raise RequestError(400, "missing_field", f"The id of a row in {table.name} must not be empty.")
        values = self._rows.canonical(table, entry.id, table.values(entry.id, entry.data or {}))
        entry = CrudEntry(entry.op, entry.table, self._rows.canonical_id(entry.id))
        if table is LISTS:
            self._apply_to_list(entry, values)
        else:
            self._apply_to_todo(entry, values)

    def _apply_to_list(self, entry: CrudEntry, values: Row) -> None:
        before = self._rows.fetch(LISTS, entry.id)
        if before is not None and before["owner_id"] != self._user_id:
            raise self._forbidden("list", entry.id)
        if entry.op == "DELETE":
            if before is not None:
                self._delete_list(before)
            return
        after = self._merge(LISTS, entry, before, values)
        if after is None:
            return
        if after["owner_id"] != self._user_id:
            raise RequestError(403, "forbidden", "A list must belong to the user who writes it.", name="OwnershipError")
        if after != before:
            self._rows.store(LISTS, before, after)

    def _apply_to_todo(self, entry: CrudEntry, values: Row) -> None:
        before = self._rows.fetch(TODOS, entry.id)
        old_list = None if before is None else str(before["list_id"])
        if old_list is not None and self._owner(old_list) != self._user_id:
            raise self._forbidden("to-do", entry.id)
        if entry.op == "DELETE":
            if before is not None:
                self._rows.delete(TODOS, before)
            return
        after = self._merge(TODOS, entry, before, values)
        if after is None:
            return
        new_list = self._list_for(entry, str(after["list_id"]), old_list)
        if new_list is None:
            return
        after["list_id"] = new_list
        if after != before:
            self._rows.store(TODOS, before, after)

    def _list_for(self, entry: CrudEntry, wanted: str, old_list: str | None) -> str | None:
        """The list in which to store a to-do whose `entry` requests the list `wanted`; None if nothing is stored.

        Deleting a list takes precedence over to-dos that arrive later: they are rejected, so the client that wrote them
        is informed. However, a client repeats a request whose response was lost, and the list may be missing because
        of that very request. A to-do that is deleted later in the request, alone or with its list, is therefore not
        rejected.

        Raises RequestError 409 if the list does not exist, 403 if it belongs to another user.
        """
        owner = self._owner(wanted)
        if owner is None:
            last = max(self._last_deletions.get(row, -1) for row in (("lists", wanted), ("todos", entry.id)))
            if last < self._position:
                raise RequestError(
                    409,
                    "missing_list",
                    f"The list {wanted[:60]!r} of a to-do does not exist; it may have been deleted.",
                )
            return None if entry.op == "PUT" else old_list
        if owner != self._user_id:
            raise self._forbidden("list", wanted)
        return wanted

    def _merge(self, table: Table, entry: CrudEntry, before: Row | None, values: Row) -> Row | None:
        """The row after a PUT or PATCH; None for a PATCH of a missing row."""
        if entry.op == "PATCH":
            if before is None:
                return None
            after = {**before, **values}
            table.require(after)
            return after
        if values.get("created_at") is None:
            values["created_at"] = now() if before is None else before["created_at"]
        if table is LISTS and values.get("owner_id") is None:
            values["owner_id"] = self._user_id
        table.require(values)
        values = self._rows.canonical(table, entry.id, values)
        empty: Row = dict.fromkeys(table.row_names())
        return {**(before or empty), **values, "id": entry.id}

    def _delete_list(self, row: Row) -> None:
        # Delete the to-dos first: in another database they may reference the list.
        for todo in self._rows.todos_of(str(row["id"])):
            self._rows.delete(TODOS, todo)
        self._rows.delete(LISTS, row)

    def _owner(self, list_id: str) -> str | None:
        found = self._rows.fetch(LISTS, list_id)
        return None if found is None else str(found["owner_id"])

    @staticmethod
    def _forbidden(kind: str, row_id: str) -> RequestError:
        return RequestError(
            403, "forbidden", f"The {kind} {row_id[:60]!r} belongs to another user.", name="OwnershipError"
        )
