"""The to-dos of one view, kept as they are in the database.

Owns how they are updated: after a commit only the to-dos that it changed are read and sorted in; what did not change
stays the same object. Which to-dos a view contains, and in which order, is decided by `app.store.views`.
"""

from __future__ import annotations

import json
import operator
import sqlite3
from bisect import bisect_left
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import date
from typing import Final

from app.store import views
from app.store.rows import Todo, todo_of_row
from app.store.views import Arrangement, Order, SmartView, Sort, order_of, usual_sort_key
from sync import PowerSyncDatabase

_MOST_UPDATED: Final = 200
"""If more have changed, all are read: that is no slower then."""

_BEGINNING: Final = 500
"""Of a longer view, this many to-dos are given before the rest is read."""


@dataclass(frozen=True, slots=True)
class ViewRead:
    """What a view contains now.

    Attributes:
        arrangement: how it is arranged.
        todos: in their order. Those that did not change are the same objects as in the previous read.
        changed: those among them that are new or changed since the previous read; None at first.
        is_whole: whether these are all; of a long view, the beginning is given first.
    """

    arrangement: Arrangement
    todos: list[Todo]
    changed: tuple[Todo, ...] | None
    is_whole: bool = True


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
        self._by_id: dict[str, Todo] = {}
        self._unusual: dict[str, str | int] = {}

    async def reads(self) -> AsyncGenerator[ViewRead]:
        """What the view contains, now and after each commit that changes it.

        Raises:
            sqlite3.Error: the database cannot be read.
            DatabaseClosedError: the database was closed.
        """
        first = True
        async with aclosing(self._database.on_row_change(self._tables)) as changes:
            async for tables in changes:
                ids = _ids_of_todos(tables)
                if ids is not None and len(ids) <= _MOST_UPDATED:
                    changed = await self._read_some(ids)
                else:
                    before = self._todos
                    async for beginning in self._read_all():
                        if first:
                            yield ViewRead(self._arrangement, beginning, None, is_whole=False)
                    changed = _difference(before, self._todos)
                if first or changed is not None:
                    yield ViewRead(self._arrangement, self._todos, None if first else changed)
                first = False

    async def _read_all(self) -> AsyncGenerator[list[Todo]]:
        """Read all to-dos; if there are many, gives the first of them on the way."""
        todos: list[Todo] = []
        unusual: dict[str, str | int] = {}
        async with aclosing(self._database.iterate(self._sql, self._parameters)) as rows:
            async for row in rows:
                if len(todos) == _BEGINNING:
                    yield list(todos)
                todos.append(self._todo_of(row, unusual))
        self._todos, self._unusual, self._by_id = todos, unusual, {todo.id: todo for todo in todos}

    def _todo_of(self, row: sqlite3.Row, unusual: dict[str, str | int]) -> Todo:
        """The to-do of a row: the same object as before if it is the same."""
        todo = todo_of_row(row)
        if not todo.completed and row["sort_key"] != usual_sort_key(todo, self._arrangement.sort):
            unusual[todo.id] = row["sort_key"]
        before = self._by_id.get(todo.id)
        return before if before is not None and before == todo else todo

    def _order(self, todo: Todo) -> Order:
        usual = usual_sort_key(todo, self._arrangement.sort)
        return order_of(todo, self._unusual.get(todo.id, usual))

    async def _read_some(self, ids: Collection[str]) -> tuple[Todo, ...] | None:
        """Read these to-dos again; None if none of them has changed or moved."""
        parameters = {**self._parameters, "only": json.dumps(list(ids))}
        unusual: dict[str, str | int] = {}
        rows = await self._database.get_all(self._some_sql, parameters)
        read = {row["id"]: self._todo_of(row, unusual) for row in rows}
        changed = tuple(todo for row_id, todo in read.items() if self._by_id.get(row_id) is not todo)
        gone = [row_id for row_id in ids if row_id in self._by_id and row_id not in read]
        moved = [row_id for row_id in ids if self._unusual.get(row_id) != unusual.get(row_id)]
        outdated = {*gone, *moved, *(todo.id for todo in changed)}
        if not outdated:
            return None
        # All outdated ones are removed first: a list with some at their old index and some at their new one is not
        # sorted, and cannot be searched by bisection.
        todos = list(self._todos)
        for index in sorted(
            (self._index_of(todos, each) for each in map(self._by_id.get, outdated) if each), reverse=True
        ):
            del todos[index]
        for row_id in outdated:
            self._by_id.pop(row_id, None)
            self._unusual.pop(row_id, None)
            if (todo := read.get(row_id)) is not None:
                self._by_id[row_id] = todo
                if row_id in unusual:
                    self._unusual[row_id] = unusual[row_id]
                todos.insert(self._index_of(todos, todo), todo)
        self._todos = todos
        return changed

    def _index_of(self, todos: list[Todo], todo: Todo) -> int:
        """The index at which a to-do is, or would be inserted."""
        return bisect_left(todos, self._order(todo), key=self._order)


def _ids_of_todos(tables: Mapping[str, frozenset[str] | None]) -> set[str] | None:
    """The to-dos that were changed; None if any may have been. The name of a list is shown with each of its to-dos."""
    found: set[str] = set()
    for table, ids in tables.items():
        if ids is None or table == "lists":
            return None
        found |= ids
    return found


def _difference(before: list[Todo], after: list[Todo]) -> tuple[Todo, ...] | None:
    """What is new or changed; None if nothing has changed or moved."""
    if len(before) == len(after) and all(map(operator.is_, before, after)):
        return None
    known = set(map(id, before))
    return tuple(todo for todo in after if id(todo) not in known)
