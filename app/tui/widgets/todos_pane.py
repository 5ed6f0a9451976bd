"""The right pane: the to-dos of one list, and what can be done with a to-do.

Owns the to-dos' rows and their actions. Follows the store's to-dos of the list that it is told to show.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import BindingType
from textual.containers import Vertical
from textual.worker import Worker

from app.store import Store, Todo, TodoList, first_line
from app.tui.actions import Place, bindings, performs
from app.tui.attempts import attempt, retried
from app.tui.editor import EditorError, edited, editor_command
from app.tui.filtering import Filter
from app.tui.literal import visible
from app.tui.messages import RowActivated, RowMarked, RowSelected, TodoSelected
from app.tui.typed import app_of
from app.tui.widgets.entry import EntryRequest
from app.tui.widgets.lines import TitleLine
from app.tui.widgets.lists_pane import UNTITLED
from app.tui.widgets.row_list import DrawnRow, RowList

OPEN_MARK: Final = "○"
DONE_MARK: Final = "✓"
WORDLESS: Final = "(no text)"
NO_MATCH: Final = ("Nothing matches", "", "Press esc to show all to-dos.")
EMPTY: Final = ("Nothing to do here", "", "Press a to add a to-do.")

_NEEDING_A_TODO: Final = frozenset({"edit_todo", "edit_in_editor", "toggle_todo", "delete_todo"})


def draw_todo(todo: Todo) -> DrawnRow:
    """A to-do as a row: a check box and its text."""
    mark = DONE_MARK if todo.completed else OPEN_MARK
    if todo.description:
        return DrawnRow(todo.description, mark, kind="done" if todo.completed else "plain")
    return DrawnRow(WORDLESS, mark, kind="faint")


@performs(Place.TODOS)
class TodosPane(Vertical):
    """The to-dos of one list.

    Args:
        store: where they are kept.
        ask: opens the entry line.
        leave: puts the keyboard to the lists.
        clear_filter: takes the filter away.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.TODOS)

    def __init__(
        self,
        store: Store,
        ask: Callable[[EntryRequest], None],
        leave: Callable[[], None],
        clear_filter: Callable[[], None],
    ) -> None:
        super().__init__()
        self._store = store
        self._ask = ask
        self._leave = leave
        self._clear_filter = clear_filter
        self._title = TitleLine()
        self._todos: list[Todo] = []
        self._filter = Filter(())
        self._rows: RowList[Todo] = RowList(draw_todo)
        self._wanted: TodoList | None = None
        self._shown: TodoList | None = None
        self._following: Worker[None] | None = None

    def compose(self) -> ComposeResult:
        """A title above the rows."""
        yield self._title
        yield self._rows

    @property
    def rows(self) -> RowList[Todo]:
        """The rows."""
        return self._rows

    def show_list(self, todo_list: TodoList | None) -> None:
        """Show a list, as soon as its to-dos are read; until then the one before stays, title and all."""
        before, self._wanted = self._wanted, todo_list
        if todo_list is None:
            self._stop_following()
            self._shown = None
            self._todos = []
            self._rows.set_rows(())
            self._rows.set_empty(())
            self._refresh_title()
        elif before is None or before.id != todo_list.id:
            self._stop_following()
            self._following = attempt(self, self._follow(todo_list.id), group="follow")
        elif self._shown is not None:
            self._shown = todo_list
            self._refresh_title()

    def _stop_following(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None

    async def _follow(self, list_id: str) -> None:
        first = True
        async for todos in self._store.watch_todos(list_id, retried(self)):
            if first:
                first = False
                self._shown = self._wanted
                self._rows.set_rows(())
            self._todos = todos
            self._show_matching(todos)
            self.refresh_bindings()

    def _refresh_title(self) -> None:
        if self._shown is None:
            self._title.set("")
            return
        done = sum(todo.completed for todo in self._todos)
        total = len(self._todos)
        if self._filter:
            progress = f"{len(self._rows.rows):,} of {total:,} match"
        elif not total:
            progress = ""
        elif done == total:
            progress = "all done"
        else:
            progress = f"{total - done:,} open · {done:,} done" if done else f"{total:,} open"
        self._title.set(self._shown.name or UNTITLED, progress)

    def filter(self, wanted: Filter) -> None:
        """Show only the to-dos whose text matches."""
        # Typing on looks only at what matched before.
        among = self._rows.rows if self._filter and wanted.narrows(self._filter) else self._todos
        self._filter = wanted
        self._rows.set_matching(wanted)
        self._show_matching(among)
        self.refresh_bindings()

    def _show_matching(self, among: Sequence[Todo]) -> None:
        matches = self._filter.matches
        self._rows.set_empty(NO_MATCH if self._filter and self._todos else EMPTY)
        shown = [todo for todo in among if matches(todo.description or "")] if self._filter else self._todos
        self._rows.set_rows(shown)
        self._refresh_title()

    def ask_new(self, todo_list: TodoList) -> None:
        """Ask for new to-dos for a list."""

        def add(descriptions: list[str]) -> Awaitable[None]:
            return self._select_last(self._store.add_todos(todo_list.id, descriptions))

        label = f"New to-do in {visible(todo_list.name or UNTITLED)}"
        self._ask(EntryRequest(label, add, repeats=True))

    async def _select_last(self, adding: Awaitable[list[str]]) -> None:
        self._clear_filter()  # what was added is to be seen
        self._rows.select((await adding)[-1])

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Without a to-do, there is nothing to edit, mark or delete."""
        if action in {"next_match", "previous_match", "clear_filter"}:
            return bool(self._filter)
        if action == "leave_todos":
            return True
        return action not in _NEEDING_A_TODO or self._rows.selected is not None

    def action_new_todo(self) -> None:
        """Ask for new to-dos."""
        if self._wanted is not None:
            self.ask_new(self._wanted)

    def action_next_match(self) -> None:
        """Go to the next to-do that matches."""
        self._rows.go_round(1)

    def action_previous_match(self) -> None:
        """Go to the to-do before that matches."""
        self._rows.go_round(-1)

    def action_clear_filter(self) -> None:
        """Show all to-dos again."""
        self._clear_filter()

    def action_leave_todos(self) -> None:
        """Go to the lists."""
        self._leave()

    def action_edit_todo(self) -> None:
        """Ask for another text; lines after the first are kept as they are."""
        todo = self._rows.selected
        if todo is None:
            return

        def edit(texts: list[str]) -> Awaitable[object]:
            return self._store.edit_first_line(todo.id, texts[0])

        self._ask(EntryRequest("Edit to-do", edit, value=first_line(todo.description or "")[0]))

    def action_edit_in_editor(self) -> None:
        """Have the whole text edited in the user's editor, which gets the terminal meanwhile."""
        todo = self._rows.selected
        if todo is None:
            return
        before = todo.description or ""
        try:
            command = editor_command(os.environ)
            with app_of(self).suspend():
                after = edited(before, command)
        except SuspendNotSupported:
            self.notify("This terminal cannot be lent to an editor.", severity="warning", markup=False)
        except EditorError as error:
            self.notify(visible(str(error)), severity="error", markup=False)
        else:
            self._take_edited(todo, before, after)

    def _take_edited(self, todo: Todo, before: str, after: str) -> None:
        if after == before:
            return
        if not after.strip():
            self.notify("The text was left empty: nothing was changed.", severity="warning", markup=False)
            return
        attempt(self, self._store.edit_todo(todo.id, after))

    def action_toggle_todo(self) -> None:
        """Mark the to-do as done or open, and go on to the next one, which takes its place."""
        todo = self._rows.selected
        if todo is not None:
            self._rows.select_neighbour()
            self._toggle(todo)

    def action_delete_todo(self) -> None:
        """Ask whether to delete the to-do."""
        todo = self._rows.selected
        if todo is None:
            return
        from app.tui.screens.confirm import ConfirmScreen

        def delete() -> None:
            attempt(self, self._store.delete_todos([todo.id]))

        text = visible(todo.description or WORDLESS)
        app_of(self).push_screen(ConfirmScreen("Delete this to-do?", text, delete))

    def _toggle(self, todo: Todo) -> None:
        attempt(self, self._store.set_completed([todo.id], completed=not todo.completed))

    @on(RowSelected)
    def _row_selected(self, event: RowSelected) -> None:
        event.stop()
        self.post_message(TodoSelected(self._rows.selected, self._shown.name if self._shown else None))

    @on(RowMarked)
    def _row_marked(self, event: RowMarked) -> None:
        event.stop()
        for todo in self._rows.rows:
            if todo.id == event.row_id:
                if todo is self._rows.selected:
                    self._rows.select_neighbour()
                self._toggle(todo)

    @on(RowActivated)
    def _row_activated(self, event: RowActivated) -> None:
        event.stop()
        self.action_edit_todo()
