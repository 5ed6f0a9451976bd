"""The left pane: the views across lists and the lists, how much is open in each, and what can be done with a list.

Owns their rows and actions. Follows the store's lists and counts for as long as it is mounted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.worker import Worker

from app.settings.keymap import Place
from app.store import SmartView, Store, TodoList, ViewCounts
from app.system.display_text import sanitized
from app.tui.actions import bindings, performs
from app.tui.attempts import attempt, notify_done, notify_retry
from app.tui.messages import ListsCounted, ViewOpened
from app.tui.typed_textual import app_of
from app.tui.widgets.drawn_row import DrawnRow
from app.tui.widgets.entry import EntryRequest
from app.tui.widgets.lines import TitleLine
from app.tui.widgets.row_list import RowActivated, RowList, RowMarked, RowSelected
from app.tui.widgets.surroundings import Surroundings

UNTITLED: Final = "(no name)"
LIST_MARK: Final = "•"

VIEW_NAMES: Final = {
    SmartView.ALL: ("∗", "All"),
    SmartView.TODAY: ("◷", "Today"),
    SmartView.UPCOMING: ("→", "Upcoming"),
    SmartView.OVERDUE: ("!", "Overdue"),
    SmartView.DONE: ("✓", "Done"),
}
"""The glyph and the name of each view across lists."""


@dataclass(frozen=True, slots=True)
class ViewRow:
    """A view across lists, as a row.

    Attributes:
        view: which.
        count: how many to-dos are in it.
    """

    view: SmartView
    count: int

    @property
    def id(self) -> str:
        """Unlike that of any list."""
        return f"view:{self.view.value}"


SidebarRow = TodoList | ViewRow
"""A row of the left pane."""


def draw_sidebar_row(row: SidebarRow) -> DrawnRow:
    """A list or a view as a row: its name, and how many to-dos are open."""
    if isinstance(row, ViewRow):
        glyph, name = VIEW_NAMES[row.view]
        return DrawnRow(name, glyph, tail=f"{row.count:,}" if row.count else "")
    count = f"{row.open_count:,}" if row.open_count else ("✓" if row.done_count else "")
    if row.name:
        return DrawnRow(row.name, LIST_MARK, tail=count)
    return DrawnRow(UNTITLED, LIST_MARK, tail=count, kind="faint")


@performs(Place.LISTS)
class ListsPane(Vertical):
    """Views and lists. Posts `ViewOpened` when the cursor comes to another one, or the one under it changes.

    Args:
        store: where they are kept.
        surroundings: the screen that the pane is on.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.LISTS)

    def __init__(self, store: Store, surroundings: Surroundings) -> None:
        super().__init__()
        self._store = store
        self._surroundings = surroundings
        self._title = TitleLine("Lists")
        self._rows: RowList[SidebarRow] = RowList(draw_sidebar_row)
        self._lists: list[TodoList] = []
        self._views = [ViewRow(view, 0) for view in SmartView]
        self._counting: Worker[None] | None = None

    def compose(self) -> ComposeResult:
        """A title above the rows."""
        yield self._title
        yield self._rows

    def on_mount(self) -> None:
        """Follow the lists."""
        attempt(self, self._follow(), group="follow")
        self.show_day()

    @property
    def rows(self) -> RowList[SidebarRow]:
        """The rows."""
        return self._rows

    @property
    def lists(self) -> Sequence[TodoList]:
        """The lists, oldest first."""
        return self._lists

    @property
    def target(self) -> TodoList | None:
        """The list that new to-dos are for: the one under the cursor, or else the first."""
        row = self._rows.selected
        if isinstance(row, TodoList):
            return row
        return self._lists[0] if self._lists else None

    def show_day(self) -> None:
        """Count for today from now on."""
        if self._counting is not None:
            self._counting.cancel()
        self._counting = attempt(self, self._follow_counts(), group="follow")

    async def _follow(self) -> None:
        async for lists in self._store.watch_lists(notify_retry(self)):
            first = not self._lists
            self._lists = lists
            self._show_rows()
            if first and lists:
                self._rows.select(lists[0].id)
            self._title.set("Lists", f"{len(lists):,}" if len(lists) > 1 else "")
            self.post_message(ListsCounted(len(lists)))
            self.refresh_bindings()

    async def _follow_counts(self) -> None:
        async for counts in self._store.watch_counts():
            self._show_counts(counts)

    def _show_counts(self, counts: ViewCounts) -> None:
        fresh = [ViewRow(row.view, counts.of(row.view)) for row in self._views]
        if fresh != self._views:
            self._views = [old if old == new else new for old, new in zip(self._views, fresh, strict=True)]
            self._show_rows()

    def _show_rows(self) -> None:
        self._rows.set_rows([*self._views, *self._lists] if self._lists else ())

    def ask_new(self) -> None:
        """Ask for the name of a new list."""
        self._surroundings.ask(EntryRequest("New list", self._add))

    def add_sample(self) -> None:
        """Add the sample list and open it."""
        attempt(self, self._open_new(self._store.edit.add_sample_list()))

    def _add(self, names: list[str]) -> Awaitable[None]:
        return self._open_new(self._store.edit.add_list(names[0]))

    async def _open_new(self, adding: Awaitable[str]) -> None:
        self._rows.select(await adding)
        self._surroundings.focus_todos()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Without a list, there is nothing to open, rename or delete."""
        if action == "open_list":
            return self._rows.selected is not None
        return action not in {"rename_list", "delete_list"} or isinstance(self._rows.selected, TodoList)

    def action_new_list(self) -> None:
        """Ask for the name of a new list."""
        self.ask_new()

    def action_open_list(self) -> None:
        """Go to the to-dos."""
        self._surroundings.focus_todos()

    def action_rename_list(self) -> None:
        """Ask for another name."""
        todo_list = self._rows.selected
        if not isinstance(todo_list, TodoList):
            return

        def rename(names: list[str]) -> Awaitable[object]:
            return notify_done(self, self._store.edit.rename_list(todo_list.id, names[0]))

        self._surroundings.ask(EntryRequest("Rename list", rename, value=todo_list.name or ""))

    def action_delete_list(self) -> None:
        """Ask whether to delete the list."""
        todo_list = self._rows.selected
        if not isinstance(todo_list, TodoList):
            return
        from app.tui.screens.confirm import ConfirmScreen

        def delete() -> None:
            attempt(self, notify_done(self, self._store.edit.delete_list(todo_list.id)))

        name = sanitized(todo_list.name or UNTITLED)
        app_of(self).push_screen(ConfirmScreen("Delete this list?", name, delete, _consequence(todo_list)))

    @on(RowSelected)
    def _row_selected(self, event: RowSelected) -> None:
        event.stop()
        row = self._rows.selected
        self.post_message(ViewOpened(row.view if isinstance(row, ViewRow) else row))

    @on(RowMarked)
    def _row_marked(self, event: RowMarked) -> None:
        event.stop()
        self._rows.select(event.row_id)

    @on(RowActivated)
    def _row_activated(self, event: RowActivated) -> None:
        event.stop()
        self._surroundings.focus_todos()


def _consequence(todo_list: TodoList) -> str:
    total = todo_list.open_count + todo_list.done_count
    if not total:
        return "It has no to-dos."
    if total == 1:
        return f"Its one to-do ({'not done' if todo_list.open_count else 'done'}) will be deleted too."
    still_open = f"{todo_list.open_count:,} still open" if todo_list.open_count else "all done"
    return f"Its {total:,} to-dos ({still_open}) will be deleted too."
