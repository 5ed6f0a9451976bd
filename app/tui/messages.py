"""The messages in which the panes report to the main screen; those of a row list are in `row_list`.

Owns their types and fields. A message says what happened and carries values only. What has to happen before the next
key is looked at, such as moving the keyboard elsewhere, is no message but a plain call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from app.store import SmartView, Todo, TodoList


@dataclass
class ViewOpened(Message):
    """Another list or view is to be shown, or the shown one has changed.

    Attributes:
        view: the list, the view across lists, or None if there is none.
    """

    view: TodoList | SmartView | None

    def can_replace(self, message: Message) -> bool:
        """Only the newest one matters."""
        return isinstance(message, ViewOpened)


@dataclass
class TodoSelected(Message):
    """The cursor is on another to-do, or that to-do has changed.

    Attributes:
        todo: the to-do, or None if there is none.
        list_name: the name of its list, or None.
    """

    todo: Todo | None
    list_name: str | None

    def can_replace(self, message: Message) -> bool:
        """Only the newest selection matters."""
        return isinstance(message, TodoSelected)


@dataclass
class ListsCounted(Message):
    """The lists were read.

    Attributes:
        count: how many there are.
    """

    count: int
