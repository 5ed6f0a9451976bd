"""What a client's writes do to the rows, and which ops they leave in the buckets.

The rules of ownership and of lost lists are here. Works on a connection whose transaction the
caller holds; a RequestError raised in the middle undoes the whole of it. Every value is bound, every
identifier comes from `tables`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from app.backend.errors import RequestError
from app.backend.oplog import OperationLog
from app.backend.tables import LISTS, TODOS, Row, Table, now, table_named


class CrudEntry(msgspec.Struct):
    """One write of a client."""

    op: Literal["PUT", "PATCH", "DELETE"]
    table: str
    id: str
    data: dict[str, Any] | None = None


class RowWriter:
    """Applies the writes of one user that come in one request; `request` has all of them."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        log: OperationLog,
        request: Iterable[CrudEntry],
        *,
        user_id: str,
    ) -> None:
        self._connection = connection
        self._log = log
        self._user_id = user_id
        self._position = -1
        self._last_deletions = {
            (entry.table, entry.id): position for position, entry in enumerate(request) if entry.op == "DELETE"
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
        values = table.values(entry.id, entry.data or {})
        if table is LISTS:
            self._apply_to_list(entry, values)
        else:
            self._apply_to_todo(entry, values)

    def _apply_to_list(self, entry: CrudEntry, values: Row) -> None:
        before = self._fetch(LISTS, entry.id)
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
            self._store(LISTS, after)
            self._log.record(self._connection, "lists", before, after)

    def _apply_to_todo(self, entry: CrudEntry, values: Row) -> None:
        before = self._fetch(TODOS, entry.id)
        old_list = None if before is None else str(before["list_id"])
        if old_list is not None and self._owner(old_list) != self._user_id:
            raise self._forbidden("to-do", entry.id)
        if entry.op == "DELETE":
            if before is not None:
                self._connection.execute("DELETE FROM todos WHERE id = ?", [entry.id])
                self._log.record(self._connection, "todos", before, None)
            return
        after = self._merge(TODOS, entry, before, values)
        if after is None:
            return
        new_list = self._list_for(entry, str(after["list_id"]), old_list)
        if new_list is None:
            return
        after["list_id"] = new_list
        if after == before:
            return
        self._store(TODOS, after)
        self._log.record(self._connection, "todos", before, after)

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
        empty: Row = dict.fromkeys(table.row_names())
        return {**(before or empty), **values, "id": entry.id}

    def _delete_list(self, the_list: Row) -> None:
        names = TODOS.row_names()
        todos = self._connection.execute(
            f"SELECT {', '.join(names)} FROM todos WHERE list_id = ? ORDER BY rowid", [the_list["id"]]
        ).fetchall()
        self._connection.execute("DELETE FROM lists WHERE id = ?", [the_list["id"]])
        self._connection.execute("DELETE FROM todos WHERE list_id = ?", [the_list["id"]])
        self._log.record(self._connection, "lists", the_list, None)
        for todo in todos:
            self._log.record(self._connection, "todos", dict(zip(names, todo, strict=True)), None)

    def _fetch(self, table: Table, row_id: str) -> Row | None:
        names = table.row_names()
        found = self._connection.execute(
            f"SELECT {', '.join(names)} FROM {table.name} WHERE id = ?", [row_id]
        ).fetchone()
        return None if found is None else dict(zip(names, found, strict=True))

    def _store(self, table: Table, row: Row) -> None:
        names = ", ".join(row)
        marks = ", ".join("?" * len(row))
        updates = ", ".join(f"{name} = excluded.{name}" for name in row)
        self._connection.execute(
            f"INSERT INTO {table.name} ({names}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {updates}",
            list(row.values()),
        )

    def _owner(self, list_id: str) -> str | None:
        found = self._connection.execute("SELECT owner_id FROM lists WHERE id = ?", [list_id]).fetchone()
        return None if found is None else str(found[0])

    @staticmethod
    def _forbidden(kind: str, row_id: str) -> RequestError:
        return RequestError(
            403, "forbidden", f"The {kind} {row_id[:60]!r} belongs to another user.", name="OwnershipError"
        )
