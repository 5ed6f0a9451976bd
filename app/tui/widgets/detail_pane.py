"""The details of one to-do: its whole text, and when it was created and completed.

Owns how that is laid out. Which to-do it is, and whether there is room for the pane, is up to the main screen.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from app.store import Todo
from app.system.display_text import sanitized
from app.todo_text import TodoText
from app.todo_text.badges import due_words, read_cached
from app.tui.widgets.lines import TitleLine
from app.tui.words import moment

_MOST_CHARACTERS: Final = 20_000
"""Of a longer text only the beginning is shown: nobody scrolls through more, and wrapping it would take a while."""

_FIELD_CELLS: Final = 11


class DetailText(Static):
    """The text of the pane."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "detail-text--title",
        "detail-text--notes",
        "detail-text--field",
        "detail-text--value",
    }


class DetailPane(VerticalScroll, can_focus=False):
    """The details of one to-do.

    Args:
        now: the clock, giving aware datetimes.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__()
        self._now = now
        self._text = DetailText(markup=False)
        self._todo: Todo | None = None
        self._list_name: str | None = None

    def compose(self) -> ComposeResult:
        """A title above the text."""
        yield TitleLine("Details")
        yield self._text

    def show(self, todo: Todo | None, list_name: str | None) -> None:
        """Show a to-do of a list, or nothing."""
        other = (todo.id if todo else None) != (self._todo.id if self._todo else None)
        if todo is self._todo and list_name == self._list_name:
            return
        self._todo, self._list_name = todo, list_name
        if self.display:
            self._paint()
            if other:
                self.scroll_home(animate=False)

    def on_show(self) -> None:
        """Paint what was to be shown while there was no room."""
        self._paint()

    def _paint(self) -> None:
        self._text.update(self._rendered())

    def _rendered(self) -> Text:
        todo = self._todo
        if todo is None:
            return Text("")
        title, notes, field, value = (
            self._text.get_component_rich_style(f"detail-text--{part}", partial=True)
            for part in ("title", "notes", "field", "value")
        )
        description = todo.description or ""
        reading = read_cached(description[:_MOST_CHARACTERS])
        text = Text.assemble((sanitized(reading.title), title), overflow="fold")
        lines = [sanitized(line) for line in reading.notes.splitlines()]
        if any(lines):
            text.append("\n\n" + "\n".join(lines), notes)
        if len(description) > _MOST_CHARACTERS:
            text.append(f"\n… and {len(description) - _MOST_CHARACTERS:,} more characters", field)
        text.append("\n")
        for name, value_text in self._fields(todo, reading):
            text.append(f"\n{name:<{_FIELD_CELLS}}", field)
            text.append(value_text, value)
        return text

    def _fields(self, todo: Todo, reading: TodoText) -> list[tuple[str, str]]:
        now = self._now()
        due, recurrence = reading.due, reading.recurrence
        clock = f" {due.time:%H:%M}" if due is not None and due.time is not None else ""
        fields = [
            ("Due", f"{due_words(due, now)} ({due.date}{clock})" if due is not None else ""),
            ("Priority", f"{reading.priority}" if reading.priority is not None else ""),
            ("Tags", sanitized(" ".join(f"#{tag}" for tag in reading.tags))),
            ("Repeats", recurrence.text if recurrence is not None else ""),
            ("List", sanitized(self._list_name or "")),
            ("Created", moment(todo.created_at, now)),
            ("Completed", moment(todo.completed_at, now) if todo.completed else ""),
        ]
        return [(name, text) for name, text in fields if text]
