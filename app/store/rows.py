"""Lists and to-dos as values.

Owns these types, and how they are made of rows of SQL. Must not know any statement.
"""

from __future__ import annotations

import re
import sqlite3
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TodoList:
    """One list.

    Attributes:
        id: UUID, as text.
        name: as synced, any text; None if the row has none.
        created_at: ISO 8601 as synced, or None.
        open_count: to-dos that are not completed.
        done_count: completed to-dos.
    """

    id: str
    name: str | None
    created_at: str | None
    open_count: int
    done_count: int


@dataclass(frozen=True, slots=True)
class Todo:
    """One to-do.

    Attributes:
        id: UUID, as text.
        list_id: id of its list.
        description: as synced, any text; None if the row has none. `app.todo_text.read` tells what it says.
        completed: whether it is done.
        created_at: ISO 8601 as synced, or None.
        completed_at: ISO 8601 as synced, or None.
        list_name: the name of its list where to-dos of several lists are read together, otherwise None.
    """

    id: str
    list_id: str
    description: str | None
    completed: bool
    created_at: str | None
    completed_at: str | None
    list_name: str | None = None


def first_line(text: str) -> tuple[str, str]:
    """Split text into its first line and the rest, which begins with the line break or is empty."""
    line_break = re.search(r"\r\n|\r|\n", text)
    end = line_break.start() if line_break else len(text)
    return text[:end], text[end:]


def list_of_row(row: sqlite3.Row) -> TodoList:
    """A row of `app.store.views.LISTS`."""
    return TodoList(row["id"], row["name"], row["created_at"], row["open_count"], row["done_count"])


def todo_of_row(row: sqlite3.Row) -> Todo:
    """A row of `app.store.views.todos_query`. Very many share the id and the name of their list: each is kept once."""
    list_id, list_name = row["list_id"], row["list_name"]
    return Todo(
        row["id"],
        list_id and sys.intern(list_id),
        row["description"],
        bool(row["completed"]),
        row["created_at"],
        row["completed_at"],
        list_name and sys.intern(list_name),
    )
