"""The to-dos of one view, kept as they are in the database.

Owns how they are mended: after a commit only the to-dos that it changed are read, and put in their places; what did not
change stays the same object. Which they are and in which order is `app.store.views`'.
"""

from __future__ import annotations

import asyncio
import json
import operator
import sqlite3
from bisect import bisect_left
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import date
from typing import Final

from app.store import views
from app.store.rows import Todo, todo_of_row
from app.store.views import Arrangement, Order, SmartView, Sort, order_of_row
from sync import PowerSyncDatabase

_MOST_MENDED: Final = 200
"""If more changed, all are read: that is not slower then."""


@dataclass(frozen=True, slots=True)
class ViewRead:
    """What a view holds now.

    Attributes:
        arrangement: how it is arranged.
        todos: in their order. Those that did not change are the same objects as in the read before.
        changed: those among them that came or changed since the read before; None in the first read.
    """

    arrangement: Arrangement
    todos: list[Todo]
    changed: tuple[Todo, ...] | None


class ViewFollower:
    """Reads the to-dos of one view, again and again.

    Args:
        view: a view across lists, or the id of a list.
        arrangement: the order.
        today: the local day.
    """

    def __init__(
        self, database: PowerSyncDatabase, view: SmartView | str, arrangement: Arrangement, today: date
    ) -> None:
        self._database = database
        self._arrangement = arrangement
        self._sql, self._parameters = views.todos_query(view, arrangement, today)
        self._some_sql, _ = views.todos_query(view, arrangement, today, only=True)
        self._tables = ["todos"]
        if isinstance(view, SmartView):
            self._tables.append("lists")
        if arrangement.sort is Sort.MANUAL:
            self._tables.append("todo_positions")
        self._todos: list[Todo] = []
        self._orders: dict[str, Order] = {}

    async def reads(self) -> AsyncGenerator[ViewRead]:
        """What the view holds, now and after each commit that changes it.

        Raises:
            sqlite3.Error: the database cannot be read.
            DatabaseClosedError: the database was closed.
        """
        first = True
        async with aclosing(self._database.on_row_change(self._tables)) as changes:
            async for tables in changes:
                ids = _ids_of_todos(tables)
                mended = ids is not None and len(ids) <= _MOST_MENDED
                changed = await self._read_some(ids) if mended and ids is not None else await self._read_all()
                if first or changed is not None:
                    yield ViewRead(self._arrangement, self._todos, None if first else changed)
                first = False

    async def _read_all(self) -> tuple[Todo, ...] | None:
        rows = await self._database.get_all(self._sql, self._parameters)
        before = self._todos
        self._todos, self._orders = await asyncio.to_thread(_made, rows, before)
        if len(before) == len(self._todos) and all(map(operator.is_, before, self._todos)):
            return None
        known = set(map(id, before))
        return tuple(todo for todo in self._todos if id(todo) not in known)

    async def _read_some(self, ids: Collection[str]) -> tuple[Todo, ...] | None:
        """Read these to-dos again; None if nothing of them is another, nor in another place."""
        parameters = {**self._parameters, "only": json.dumps(list(ids))}
        rows = {row["id"]: row for row in await self._database.get_all(self._some_sql, parameters)}
        known = {row_id: self._todos[self._place(self._todos, row_id)] for row_id in ids if row_id in self._orders}
        read = {row_id: todo_of_row(row) for row_id, row in rows.items()}
        unchanged = {row_id: todo for row_id, todo in known.items() if read.get(row_id) == todo}
        orders = {row_id: order_of_row(row) for row_id, row in rows.items()}
        moved = {row_id for row_id in (*known, *read) if self._orders.get(row_id) != orders.get(row_id)}
        changed = tuple(todo for row_id, todo in read.items() if row_id not in unchanged)
        if not moved and not changed:
            return None
        todos = list(self._todos)
        # What changed goes out first, all of it: while one is where it was and another where it is now, the list is in
        # no order in which a place could be found.
        again = moved | {todo.id for todo in changed}
        for place in sorted((self._place(todos, row_id) for row_id in again if row_id in known), reverse=True):
            del todos[place]
        for row_id in again:
            self._orders.pop(row_id, None)
            if row_id in orders:
                self._orders[row_id] = orders[row_id]
                todos.insert(self._place(todos, row_id), unchanged.get(row_id, read[row_id]))
        self._todos = todos
        return changed

    def _place(self, todos: list[Todo], row_id: str) -> int:
        """Where a to-do is among others, or would be."""
        return bisect_left(todos, self._orders[row_id], key=lambda todo: self._orders[todo.id])


def _ids_of_todos(tables: Mapping[str, frozenset[str] | None]) -> set[str] | None:
    """The to-dos that were changed; None if any may have been. The name of a list is shown with each of its to-dos."""
    found: set[str] = set()
    for table, ids in tables.items():
        if ids is None or table == "lists":
            return None
        found |= ids
    return found


def _made(rows: Iterable[sqlite3.Row], last: Iterable[Todo]) -> tuple[list[Todo], dict[str, Order]]:
    """All to-dos of a view with their orders; on a thread, for there may be very many."""
    known = {todo.id: todo for todo in last}
    todos: list[Todo] = []
    orders: dict[str, Order] = {}
    for row in rows:
        todo = todo_of_row(row)
        before = known.get(todo.id)
        todos.append(before if before is not None and before == todo else todo)
        orders[todo.id] = order_of_row(row)
    return todos, orders
