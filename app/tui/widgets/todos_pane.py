"""The right pane: the actions on to-dos, one or several at once.

Owns the actions on to-dos, and what they ask for in the entry line. How to-dos are shown is up to `todo_rows`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import BindingType
from textual.containers import Vertical

from app import todo_text
from app.settings.keymap import Place
from app.store import SmartView, Sort, Store, Todo, TodoList, first_line
from app.store.failures import StoreError
from app.system.display_text import sanitized
from app.system.editor import EditorError, edited, editor_command
from app.tui.actions import bindings, performs
from app.tui.attempts import attempt, notify_done
from app.tui.typed_textual import app_of
from app.tui.widgets.entry import EntryRequest
from app.tui.widgets.lists_pane import LIST_MARK, UNTITLED
from app.tui.widgets.row_list import RowActivated, RowDropped, RowMarked
from app.tui.widgets.surroundings import Surroundings
from app.tui.widgets.todo_rows import SORT_NAMES, TodoRows

_NEEDING_A_TODO: Final = frozenset(
    {
        *("edit_todo", "edit_in_editor", "toggle_todo", "delete_todo", "choose", "choose_range", "move_todo"),
        *("tag_todo", "due_todo", "set_priority", "copy_todo"),
    }
)


@performs(Place.TODOS)
class TodosPane(Vertical):
    """To-dos and their actions.

    Attributes:
        todo_rows: the to-dos that are shown.

    Args:
        store: where they are kept.
        now: the clock, giving aware datetimes in the user's zone.
        surroundings: the screen that the pane is on.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.TODOS)

    def __init__(self, store: Store, now: Callable[[], datetime], surroundings: Surroundings) -> None:
        super().__init__()
        self._store = store
        self._now = now
        self._surroundings = surroundings
        self.todo_rows: Final = TodoRows(store, now)
        self._rows: Final = self.todo_rows.rows

    def compose(self) -> ComposeResult:
        """The to-dos."""
        yield self.todo_rows

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Without a to-do, there is nothing to edit, mark or delete."""
        if action in {"next_match", "previous_match"}:
            return self.todo_rows.is_filtered
        if action == "clear_filter":
            return self.todo_rows.is_filtered and not self._choosing
        if action == "choose_none":
            return self._choosing
        if action in {"move_row_up", "move_row_down"}:
            return self._can_reorder
        if action in {"sort", "toggle_done_shown"}:
            return self.todo_rows.shown_view is not None
        return action not in _NEEDING_A_TODO or self._rows.selected is not None

    @property
    def _choosing(self) -> bool:
        return bool(self._rows.chosen_count) or self._rows.is_choosing_range

    def _chosen_ids(self) -> list[str]:
        return [todo.id for todo in self._rows.chosen]

    def _write(self, writing: Awaitable[str]) -> None:
        """Say in a toast how a write ends, and clear the selection."""
        self._rows.clear_choice()
        attempt(self, notify_done(self, writing))

    # Adding and editing

    def ask_new(self, todo_list: TodoList) -> None:
        """Ask for new to-dos for a list."""

        def add(descriptions: list[str]) -> Awaitable[None]:
            return self._select_last(self._store.edit.add_todos(todo_list.id, self._with_due_of_view(descriptions)))

        label = f"New to-do in {sanitized(todo_list.name or UNTITLED)}"
        self._surroundings.ask(EntryRequest(label, add, repeats=True, understands=True))

    def _with_due_of_view(self, descriptions: list[str]) -> list[str]:
        """To-dos added to the view Today are due today unless they say otherwise."""
        if self.todo_rows.shown_view is not SmartView.TODAY:
            return descriptions
        today = todo_text.Due(self._store.today())
        return [text if todo_text.read(text).due else todo_text.set_due(text, today) for text in descriptions]

    async def _select_last(self, adding: Awaitable[list[str]]) -> None:
        self._surroundings.clear_filter()  # so that what was added is visible
        self._rows.select((await adding)[-1])

    def action_new_todo(self) -> None:
        """Ask for new to-dos."""
        view = self.todo_rows.open_view
        target = view if isinstance(view, TodoList) else next(iter(self._surroundings.lists), None)
        if target is not None:
            self.ask_new(target)

    def action_edit_todo(self) -> None:
        """Ask for another text; lines after the first are kept as they are."""
        todo = self._rows.selected
        if todo is None:
            return

        def edit(texts: list[str]) -> Awaitable[object]:
            return notify_done(self, self._store.edit.edit_first_line(todo.id, texts[0]))

        value = first_line(todo.description or "")[0]
        self._surroundings.ask(EntryRequest("Edit to-do", edit, value=value, understands=True))

    def action_edit_in_editor(self) -> None:
        """Open the whole text in the user's editor, which takes over the terminal meanwhile."""
        todo = self._rows.selected
        if todo is None:
            return
        before = todo.description or ""
        try:
            command = editor_command(os.environ)
            with app_of(self).suspend():
                after = edited(before, command)
        except SuspendNotSupported:
            self.notify("This terminal cannot open an editor.", severity="warning", markup=False)
        except EditorError as error:
            self.notify(sanitized(str(error)), severity="error", markup=False)
        else:
            self._save_edited(todo, before, after)

    def _save_edited(self, todo: Todo, before: str, after: str) -> None:
        if after == before:
            return
        if not after.strip():
            self.notify("The text was empty, so nothing was changed.", severity="warning", markup=False)
            return
        self._write(self._store.edit.edit_todo(todo.id, after))

    # Changing one or several

    def action_toggle_todo(self) -> None:
        """Mark to-dos as done, or as open if all are done, and go on to the next one."""
        chosen = self._rows.chosen
        if len(chosen) == 1 and chosen[0] is self._rows.selected:
            self._rows.select_neighbour()
        self._toggle(chosen)

    def _toggle(self, todos: Sequence[Todo]) -> None:
        completed = not all(todo.completed for todo in todos)
        self._write(self._store.edit.set_completed([todo.id for todo in todos], completed=completed))

    def action_delete_todo(self) -> None:
        """Delete to-dos."""
        self._write(self._store.edit.delete_todos(self._chosen_ids()))

    def action_set_priority(self, priority: int) -> None:
        """Set a priority, or remove it with 0."""
        done = f"Set priority {priority} for" if priority else "Removed the priority from"
        self._write(
            self._store.edit.change_texts(
                self._chosen_ids(), lambda text: todo_text.set_priority(text, priority or None), done
            )
        )

    def action_due_todo(self) -> None:
        """Ask when to-dos are due."""
        ids = self._chosen_ids()

        def set_due(texts: list[str]) -> Awaitable[object]:
            typed = texts[0].strip()
            reading = todo_text.understand(f"x {typed}", self._now().replace(tzinfo=None)).reading
            if typed and (reading.due is None or reading.title != "x"):
                return _refused(
                    f"“{sanitized(typed)}” is not a valid date. Try tomorrow 9am, fri, in 3d, 15 jan or 2026-12-01."
                )
            done = "Set the due date of" if reading.due else "Removed the due date from"
            self._rows.clear_choice()
            change: Callable[[str], str] = lambda text: todo_text.set_due(text, reading.due)  # noqa: E731
            return notify_done(self, self._store.edit.change_texts(ids, change, done))

        self._surroundings.ask(
            EntryRequest(f"Due date for {self._subject(ids)} (empty removes it)", set_due, may_be_empty=True)
        )

    def action_tag_todo(self) -> None:
        """Ask for tags."""
        ids = self._chosen_ids()

        def tag(texts: list[str]) -> Awaitable[object]:
            words = texts[0].split()
            try:
                for word in words:
                    _tagged("", word)
            except ValueError as error:
                return _refused(f"{sanitized(str(error))}.")

            def change(text: str) -> str:
                for word in words:
                    text = _tagged(text, word)
                return text

            self._rows.clear_choice()
            return notify_done(self, self._store.edit.change_texts(ids, change, "Changed the tags of"))

        self._surroundings.ask(EntryRequest(f"Tags for {self._subject(ids)} (-tag removes one)", tag))

    def action_move_todo(self) -> None:
        """Ask for the list to move to-dos to."""
        from app.tui.screens.pick import Choice, PickScreen

        ids = self._chosen_ids()
        view = self.todo_rows.shown_view
        here = view.id if isinstance(view, TodoList) else None
        choices = [
            Choice(each.id, each.name or UNTITLED, f"{each.open_count:,}", LIST_MARK)
            for each in self._surroundings.lists
            if each.id != here
        ]
        if not choices:
            self.notify("There is no other list to move to.", markup=False)
            return

        def move(list_id: str) -> None:
            self._write(self._store.edit.move_todos(ids, list_id))

        app_of(self).push_screen(PickScreen(f"Move {self._subject(ids)} to", choices, move))

    def action_copy_todo(self) -> None:
        """Copy the texts of to-dos."""
        todos = self._rows.chosen
        app_of(self).copy_to_clipboard("\n".join(todo.description or "" for todo in todos))
        self._rows.clear_choice()
        self.notify("Copied." if len(todos) == 1 else f"Copied {len(todos):,} to-dos.", timeout=2, markup=False)

    def _subject(self, ids: Sequence[str]) -> str:
        return "this to-do" if len(ids) == 1 else f"{len(ids):,} to-dos"

    # Choosing and finding

    def action_choose(self) -> None:
        """Select the to-do, or deselect it."""
        self._rows.toggle_choice()

    def action_choose_range(self) -> None:
        """Select while moving."""
        self._rows.toggle_range()

    def action_choose_all(self) -> None:
        """Select all that are shown, or none."""
        self._rows.choose_all()

    def action_choose_none(self) -> None:
        """Clear the selection."""
        self._rows.clear_choice()

    def action_next_match(self) -> None:
        """Go to the next to-do that matches."""
        self._rows.cycle(1)

    def action_previous_match(self) -> None:
        """Go to the to-do before that matches."""
        self._rows.cycle(-1)

    def action_clear_filter(self) -> None:
        """Clear the filter."""
        self._surroundings.clear_filter()

    def action_leave_todos(self) -> None:
        """Go to the lists."""
        self._surroundings.focus_lists()

    # Arranging

    def action_sort(self) -> None:
        """Ask for another order."""
        from app.tui.screens.pick import Choice, PickScreen

        arrangement = self.todo_rows.arrangement
        by_hand = isinstance(self.todo_rows.shown_view, TodoList)
        sorts = [sort for sort in Sort if by_hand or sort is not Sort.MANUAL]
        choices = [Choice(sort.value, SORT_NAMES[sort][:1].upper() + SORT_NAMES[sort][1:]) for sort in sorts]

        def sort_by(value: str) -> None:
            self.todo_rows.rearrange(replace(self.todo_rows.arrangement, sort=Sort(value)))

        app_of(self).push_screen(PickScreen("Sort", choices, sort_by, arrangement.sort.value))

    def action_toggle_done_shown(self) -> None:
        """Show completed to-dos at the end, or hide them."""
        arrangement = self.todo_rows.arrangement
        self.todo_rows.rearrange(replace(arrangement, shows_done=not arrangement.shows_done))

    @property
    def _can_reorder(self) -> bool:
        selected = self._rows.selected
        return self._rows.drags and not self.todo_rows.is_filtered and selected is not None and not selected.completed

    def action_move_row_up(self) -> None:
        """Put the to-do before the one above it."""
        self._move_row(-1)

    def action_move_row_down(self) -> None:
        """Put the to-do behind the one below it."""
        self._move_row(1)

    def _move_row(self, step: int) -> None:
        selected = self._rows.selected
        index = next((index for index, todo in enumerate(self._rows.rows) if todo is selected), None)
        if selected is not None and index is not None:
            self._reorder(selected.id, index + step)

    def _reorder(self, todo_id: str, index: int) -> None:
        """Move an open to-do to an index among the open ones."""
        others = [todo.id for todo in self._rows.rows if not todo.completed and todo.id != todo_id]
        if not self._rows.drags or self.todo_rows.is_filtered or not 0 <= index <= len(others):
            return
        after = others[index - 1] if index else None
        before = others[index] if index < len(others) else None
        attempt(self, self._store.edit.place_todo(todo_id, after=after, before=before))

    # Messages

    @on(RowMarked)
    def _row_marked(self, event: RowMarked) -> None:
        event.stop()
        for todo in self._rows.rows:
            if todo.id == event.row_id:
                if todo is self._rows.selected:
                    self._rows.select_neighbour()
                self._toggle([todo])

    @on(RowActivated)
    def _row_activated(self, event: RowActivated) -> None:
        event.stop()
        self.action_edit_todo()

    @on(RowDropped)
    def _row_dropped(self, event: RowDropped) -> None:
        event.stop()
        self._reorder(event.row_id, event.index)


def _tagged(text: str, word: str) -> str:
    if word.startswith("-"):
        return todo_text.remove_tag(text, word[1:])
    return todo_text.add_tag(text, word)


async def _refused(sentence: str) -> None:
    raise StoreError(sentence)
