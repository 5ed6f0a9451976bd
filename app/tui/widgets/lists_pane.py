"""The left pane: the lists, how much is open in each, and what can be done with a list.

Owns the lists' rows and their actions. Follows the store's lists for as long as it is mounted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical

from app.store import Store, TodoList
from app.tui.actions import Place, bindings, performs
from app.tui.attempts import attempt, retried
from app.tui.literal import visible
from app.tui.messages import ListOpened, ListsCounted, RowActivated, RowSelected
from app.tui.typed import app_of
from app.tui.widgets.entry import EntryRequest
from app.tui.widgets.lines import TitleLine
from app.tui.widgets.row_list import DrawnRow, RowList

UNTITLED = "(no name)"


def draw_list(todo_list: TodoList) -> DrawnRow:
    """A list as a row: its name, and how many to-dos are open."""
    count = f"{todo_list.open_count:,}" if todo_list.open_count else ("✓" if todo_list.done_count else "")
    if todo_list.name:
        return DrawnRow(todo_list.name, tail=count)
    return DrawnRow(UNTITLED, tail=count, kind="faint")


@performs(Place.LISTS)
class ListsPane(Vertical):
    """The lists. Posts `ListOpened` when the list under the cursor is another one or changed.

    Args:
        store: where they are kept.
        ask: opens the entry line.
        leave: puts the keyboard to the to-dos.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.LISTS)

    def __init__(self, store: Store, ask: Callable[[EntryRequest], None], leave: Callable[[], None]) -> None:
        super().__init__()
        self._store = store
        self._ask = ask
        self._leave = leave
        self._title = TitleLine("Lists")
        self._rows: RowList[TodoList] = RowList(draw_list)

    def compose(self) -> ComposeResult:
        """A title above the rows."""
        yield self._title
        yield self._rows

    def on_mount(self) -> None:
        """Follow the lists."""
        attempt(self, self._follow(), group="follow")

    @property
    def rows(self) -> RowList[TodoList]:
        """The rows."""
        return self._rows

    async def _follow(self) -> None:
        async for lists in self._store.watch_lists(retried(self)):
            self._rows.set_rows(lists)
            self._title.set("Lists", f"{len(lists):,}" if len(lists) > 1 else "")
            self.post_message(ListsCounted(len(lists)))
            self.refresh_bindings()

    def ask_new(self) -> None:
        """Ask for the name of a new list."""
        self._ask(EntryRequest("New list", self._add))

    def add_sample(self) -> None:
        """Add the sample list and open it."""
        attempt(self, self._open_new(self._store.add_sample_list()))

    def _add(self, names: list[str]) -> Awaitable[None]:
        return self._open_new(self._store.add_list(names[0]))

    async def _open_new(self, adding: Awaitable[str]) -> None:
        self._rows.select(await adding)
        self._leave()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Without a list, there is nothing to open, rename or delete."""
        return action not in {"open_list", "rename_list", "delete_list"} or self._rows.selected is not None

    def action_new_list(self) -> None:
        """Ask for the name of a new list."""
        self.ask_new()

    def action_open_list(self) -> None:
        """Go to the to-dos."""
        self._leave()

    def action_rename_list(self) -> None:
        """Ask for another name."""
        todo_list = self._rows.selected
        if todo_list is None:
            return

        def rename(names: list[str]) -> Awaitable[object]:
            return self._store.rename_list(todo_list.id, names[0])

        self._ask(EntryRequest("Rename list", rename, value=todo_list.name or ""))

    def action_delete_list(self) -> None:
        """Ask whether to delete the list."""
        todo_list = self._rows.selected
        if todo_list is None:
            return
        from app.tui.screens.confirm import ConfirmScreen

        def delete() -> None:
            attempt(self, self._store.delete_list(todo_list.id))

        name = visible(todo_list.name or UNTITLED)
        app_of(self).push_screen(ConfirmScreen("Delete this list?", name, delete, _loss(todo_list)))

    @on(RowSelected)
    def _row_selected(self, event: RowSelected) -> None:
        event.stop()
        self.post_message(ListOpened(self._rows.selected))

    @on(RowActivated)
    def _row_activated(self, event: RowActivated) -> None:
        event.stop()
        self._leave()


def _loss(todo_list: TodoList) -> str:
    total = todo_list.open_count + todo_list.done_count
    if not total:
        return "It has no to-dos."
    still_open = f"{todo_list.open_count:,} still open" if todo_list.open_count else "all done"
    return f"Its {total:,} to-dos go too, {still_open}." if total > 1 else f"Its one to-do goes too, {still_open}."
