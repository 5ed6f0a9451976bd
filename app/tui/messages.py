"""The messages that widgets send each other.

Owns their types and fields. A message says what happened and carries values only. What has to happen before the next
key is looked at, such as moving the keyboard elsewhere, is no message but a plain call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.message import Message

if TYPE_CHECKING:
    from app.store import SmartView, Todo, TodoList
    from app.tui.widgets.row_list import RowList


@dataclass
class RowSelected(Message):
    """The cursor of a row list is on another row, or that row's content changed.

    Attributes:
        rows: the list.
        row_id: id of the row, or None if there is none.
    """

    rows: RowList[Any]
    row_id: str | None

    def can_replace(self, message: Message) -> bool:
        """Only the newest selection of a list matters."""
        return isinstance(message, RowSelected) and message.rows is self.rows


@dataclass
class RowActivated(Message):
    """A row was double-clicked.

    Attributes:
        rows: the list.
        row_id: id of the row.
    """

    rows: RowList[Any]
    row_id: str


@dataclass
class RowMarked(Message):
    """The mark (check box) of a row was clicked.

    Attributes:
        rows: the list.
        row_id: id of the row.
    """

    rows: RowList[Any]
    row_id: str


@dataclass
class RowsChosen(Message):
    """Other rows are chosen.

    Attributes:
        rows: the list.
        count: how many; 0 if none are.
    """

    rows: RowList[Any]
    count: int

    def can_replace(self, message: Message) -> bool:
        """Only the newest choice of a list matters."""
        return isinstance(message, RowsChosen) and message.rows is self.rows


@dataclass
class RowDropped(Message):
    """A row was dragged to another place.

    Attributes:
        rows: the list.
        row_id: id of the row.
        index: the place of the row that it was dropped on.
    """

    rows: RowList[Any]
    row_id: str
    index: int


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
