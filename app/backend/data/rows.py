"""What a client's writes do to the rows.

The rules of ownership and of lost lists are here, the same for every database: the rows are reached through `Rows`,
whose transaction the caller holds. A RequestError raised in the middle undoes the whole of it. No SQL but SQLite's
`SqliteRows`, where every value is bound and every identifier comes from `tables`.
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
    """One write of a client."""

    op: Literal["PUT", "PATCH", "DELETE"]
    table: str
    id: str
    data: dict[str, Any] | None = None


class Rows(Protocol):
    """The rows of one database inside one transaction. A `Row` holds texts, 0 or 1 for a boolean, and None."""

    def canonical_id(self, text: str) -> str:
        """The one spelling in which this database gives an id back; what is none stays as it is."""
        ...

    def canonical(self, table: Table, row_id: str, values: Row) -> Row:
        """`values` in the spelling in which this database gives them back.

        Raises RequestError 400 for an id or a value that it cannot store.
        """
        ...

    def fetch(self, table: Table, row_id: str) -> Row | None:
        """The row, or None if there is none."""
        ...

    def store(self, table: Table, before: Row | None, after: Row) -> None:
        """Insert `after`, or replace `before` by it."""
        ...

    def delete(self, table: Table, row: Row) -> None:
        """Delete the row."""
        ...

    def todos_of(self, list_id: str) -> list[Row]:
        """The to-dos of a list."""
        ...

    def savepoint(self) -> AbstractContextManager[None]:
        """A block that is undone alone if it raises."""
        ...


T = TypeVar("T")


class RowDatabase(Protocol):
    """Where the rows are kept."""

    async def write_rows(self, work: Callable[[Rows], T], *, user_id: str) -> T:
        """Run `work` as one durable transaction. Whatever it raises rolls everything back and is raised here.

        Cancelling while it runs lets it finish.

        Raises sqlite3.Error or DatabaseTroubleError if the database cannot be used now.
        """
        ...

    async def advance_checkpoint(self, user_id: str, client_id: str) -> int:
        """Count a client's write checkpoint up by one and return it. Raises as `write_rows`."""
        ...

    async def check(self) -> None:
        """Return if the database answers. Raises as `write_rows`."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...


class SqliteRowDatabase:
    """The rows in the backend's own file, which others open and close."""

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
        """The file is checked by whoever opened it."""

    async def close(self) -> None:
        """The file is closed by whoever opened it."""


class SqliteRows:
    """Rows of the backend's own file; each change is recorded in the operation log."""

    def __init__(self, connection: sqlite3.Connection, log: OperationLog) -> None:
        self._connection = connection
        self._log = log

    def canonical_id(self, text: str) -> str:
        return text

    def canonical(self, table: Table, row_id: str, values: Row) -> Row:  # noqa: ARG002 - every text can be stored
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
            # Some errors of SQLite have rolled the whole transaction back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO client_transaction")
            raise
        finally:
            if self._connection.in_transaction:
                self._connection.execute("RELEASE client_transaction")


class RowWriter:
    """Applies the writes of one user that come in one request; `request` has all of them."""

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
        """Apply the next `entries` of the request. Applying the same ones again changes nothing and logs nothing.

        PUT inserts a row or updates the columns that it names; PATCH updates the columns that it
        names; PATCH and DELETE of a missing row succeed. Deleting a list deletes its to-dos.

        Raises RequestError 400 for what does not fit the tables, 403 for a row of another user, 409
        for a to-do in a list that does not exist.
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
        """The list that a to-do is stored in after `entry` asked for `wanted`; None if nothing is stored.

        The deletion of a list wins over to-dos that arrive late: they are refused, and the client that wrote them
        learns of it. But a request whose answer was lost comes again, and then the list may be missing because of that
        very request: a to-do that it deletes further on, alone or with its list, is not refused.

        Raises RequestError 409 if the list does not exist, 403 if it is another user's.
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
        """The row as it is after a PUT or PATCH; None if a PATCH finds no row."""
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

    def _delete_list(self, the_list: Row) -> None:
        # The to-dos first: elsewhere they may refer to the list.
        for todo in self._rows.todos_of(str(the_list["id"])):
            self._rows.delete(TODOS, todo)
        self._rows.delete(LISTS, the_list)

    def _owner(self, list_id: str) -> str | None:
        found = self._rows.fetch(LISTS, list_id)
        return None if found is None else str(found["owner_id"])

    @staticmethod
    def _forbidden(kind: str, row_id: str) -> RequestError:
        return RequestError(
            403, "forbidden", f"The {kind} {row_id[:60]!r} belongs to another user.", name="OwnershipError"
        )
