"""The main screen: lists at the left, to-dos at the right, the state of synchronization below.

Owns which pane is active, the welcome, and what keys do anywhere. What is in a pane is the pane's affair.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Final

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.screen import Screen

from app.settings.keymap import Place
from app.store import Store, TodoList, Undone
from app.store.sync_report import RejectedChange
from app.system.display_text import fit, sanitized
from app.tui.actions import bindings, keymap_of, performs
from app.tui.attempts import DONE_SECONDS, attempt, notify_retry
from app.tui.messages import ListsCounted, TodoSelected, ViewOpened
from app.tui.typed_textual import app_of
from app.tui.widgets.detail_pane import DetailPane
from app.tui.widgets.entry import Entry, EntryRequest, quit_keys
from app.tui.widgets.filter_bar import FilterBar
from app.tui.widgets.lines import KeyBar, StatusLine
from app.tui.widgets.lists_pane import LIST_MARK, UNTITLED, VIEW_NAMES, ListsPane
from app.tui.widgets.todos_pane import TodosPane
from app.tui.widgets.welcome import Welcome
from app.tui.words import state_of
from sync import SyncStatus

if TYPE_CHECKING:
    from app.tui.screens.sync import SyncScreen

_TOAST_CELLS: Final = 60
_DAY_SECONDS: Final = 20.0
"""How often to check whether a new day has begun."""


@performs(Place.ANYWHERE)
class MainScreen(Screen[None]):
    """The main screen.

    Args:
        store: what it shows.
        now: the clock, giving aware datetimes.
        log: returns the last lines of the log, the newest first.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.ANYWHERE)
    AUTO_FOCUS = None

    def __init__(self, store: Store, now: Callable[[], datetime], log: Callable[[], list[str]]) -> None:
        super().__init__()
        self._log_lines = log
        self._store = store
        self._now = now
        self._entry = Entry(self._focus_rows, now)
        self._lists_pane = ListsPane(store, self)
        self._todos_pane = TodosPane(store, now, self)
        self._todo_rows = self._todos_pane.todo_rows
        self._detail_pane = DetailPane(now)
        self._filter_bar = FilterBar(self._todo_rows.filter, self.focus_todos)
        self._welcome = Welcome()
        self._status_line = StatusLine(now)
        self._list_count: int | None = None
        self._day = store.today()
        self._status = store.status
        self._todos_active = False
        self._problem: str | None = None
        self._sync_screen: SyncScreen | None = None

    def compose(self) -> ComposeResult:
        """The panes, and under them the entry line, the status line and the key bar."""
        with Horizontal(id="panes"):
            yield self._lists_pane
            yield self._todos_pane
            yield self._detail_pane
        yield self._welcome
        yield self._filter_bar
        yield self._entry
        yield self._status_line
        yield KeyBar()

    def on_mount(self) -> None:
        """Follow the state of synchronization."""
        self._activate(todos=False)
        attempt(self, self._follow_status(), group="follow")
        attempt(self, self._follow_rejected(), group="follow")
        self.set_interval(_DAY_SECONDS, self._check_day)

    def _check_day(self) -> None:
        if self._store.today() != self._day:
            self._day = self._store.today()
            self._lists_pane.show_day()
            self._todo_rows.show_day()

    @property
    def status(self) -> SyncStatus:
        """The state of synchronization that is shown."""
        return self._status

    def show_problem(self, problem: str | None) -> None:
        """Show why there is nothing to sync with, in the status line."""
        self._problem = problem
        self._status_line.show_problem(problem)
        if self._sync_screen is not None:
            self._sync_screen.show_problem(problem)

    def show_status(self, status: SyncStatus) -> None:
        """Show a state of synchronization."""
        self._status = status
        self._status_line.show(status)
        self._todo_rows.show_uploading(uploading=status.uploading and status.upload_error is None)
        self.set_class(state_of(status) != "connected", "-offline")
        self._refresh_welcome()
        self.refresh_bindings()

    async def _follow_status(self) -> None:
        async for status in self._store.watch_status():
            self.show_status(status)

    async def _follow_rejected(self) -> None:
        known: set[str] | None = None
        async for rejected in self._store.report.watch_rejected(notify_retry(self)):
            self._status_line.show_rejected(len(rejected))
            self._todo_rows.show_rejected(frozenset(row for change in rejected for row in change.row_ids))
            if known is not None:
                self._announce_rejected([change for change in rejected if change.id not in known])
            known = {change.id for change in rejected}

    def _announce_rejected(self, fresh: list[RejectedChange]) -> None:
        if not fresh or self._sync_screen in app_of(self).screen_stack:
            return
        what = ", ".join(fresh[-1].tried[:1]) if len(fresh) == 1 else f"{len(fresh):,} changes"
        key = keymap_of(self).first("anywhere.sync")
        message = f"The backend rejected: {fit(what, _TOAST_CELLS)[0]}. Press {key} to see why."
        app_of(self).notify(message, severity="warning", markup=False)

    # What is shown

    @property
    def _welcoming(self) -> bool:
        return self._list_count == 0

    @property
    def _expecting(self) -> bool:
        status = self._status
        return not status.has_synced and (status.connected or state_of(status) == "connecting")

    def _refresh_welcome(self) -> None:
        self.set_class(self._welcoming, "-welcome")
        self._welcome.show(expecting=self._expecting)

    @on(ListsCounted)
    def _lists_counted(self, event: ListsCounted) -> None:
        before, self._list_count = self._list_count, event.count
        self._refresh_welcome()
        if not event.count:
            self._activate(todos=False)
        elif not before:
            self._activate(todos=self._todos_active)
        self.refresh_bindings()

    @on(ViewOpened)
    def _view_opened(self, event: ViewOpened) -> None:
        if not self._todo_rows.is_open(event.view):
            self._filter_bar.close()
        if isinstance(event.view, TodoList):
            self._store.prioritize_list(event.view.id)
        self._todo_rows.show(event.view)

    @on(TodoSelected)
    def _todo_selected(self, event: TodoSelected) -> None:
        self._detail_pane.show(event.todo, event.list_name)

    # What the panes need: see `Surroundings`

    @property
    def lists(self) -> Sequence[TodoList]:
        """All lists, oldest first."""
        return self._lists_pane.lists

    def ask(self, request: EntryRequest) -> None:
        """Open the entry line."""
        self._entry.ask(request)

    def focus_lists(self) -> None:
        """Give the keyboard to the lists."""
        self._activate(todos=False)

    def focus_todos(self) -> None:
        """Give the keyboard to the to-dos."""
        self._activate(todos=True)

    def clear_filter(self) -> None:
        """Clear the filter of the open view."""
        self._filter_bar.close()

    # Which pane has the keyboard

    def _activate(self, *, todos: bool) -> None:
        self._todos_active = todos
        self.set_class(todos, "-todos")
        if not self._entry.is_open:
            self._focus_rows()

    def _focus_rows(self) -> None:
        self.set_focus(self._todo_rows.rows if self._todos_active else self._lists_pane.rows)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """A click may have changed the active pane."""
        if event.widget in {self._todo_rows.rows, self._lists_pane.rows}:
            self._todos_active = event.widget is self._todo_rows.rows
            self.set_class(self._todos_active, "-todos")

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """No action while something is typed; some actions only at certain times."""
        if self._entry.has_keyboard or self._filter_bar.has_keyboard:
            return False
        if action == "connect":
            return not self._status.wanted
        if action == "disconnect":
            return self._status.wanted
        if action == "add_sample":
            return self._welcoming and not self._expecting
        if action == "add_first_list":
            return self._welcoming
        if action in {"add_todo", "add_list", "switch_pane", "filter", "toggle_details", "jump"}:
            return not self._welcoming
        return True

    def action_add_todo(self) -> None:
        """Ask for new to-dos, where they can be seen."""
        # The list under the cursor is meant, even while its to-dos are still being read.
        todo_list = self._lists_pane.target
        if todo_list is not None:
            self._activate(todos=True)
            self._todos_pane.ask_new(todo_list)

    def action_add_list(self) -> None:
        """Ask for a new list."""
        self._lists_pane.ask_new()

    def action_add_first_list(self) -> None:
        """Ask for a first list."""
        self._lists_pane.ask_new()

    def action_add_sample(self) -> None:
        """Add the sample list."""
        self._lists_pane.add_sample()

    def action_undo(self) -> None:
        """Undo the last step."""
        attempt(self, self._undo_or_redo(self._store.edit.undo(), "Undone", "undo", "redo"))

    def action_redo(self) -> None:
        """Redo what was undone last."""
        attempt(
            self,
            self._undo_or_redo(self._store.edit.redo(), "Redone", "redo", "undo"),
        )

    async def _undo_or_redo(self, doing: Awaitable[Undone | None], done: str, verb: str, back: str) -> None:
        undone = await doing
        if undone is None:
            self.notify(f"Nothing to {verb}.", timeout=DONE_SECONDS, markup=False)
            return
        message = f"{done}: {sanitized(undone.label)}."
        if undone.kept == 1:
            message += " 1 row was left alone because it has changed since."
        elif undone.kept:
            message += f" {undone.kept:,} rows were left alone because they have changed since."
        else:
            message += f" Press {keymap_of(self).first(f'anywhere.{back}')} to {back}."
        self.notify(message, timeout=DONE_SECONDS, markup=False)

    def action_jump(self) -> None:
        """Go to a list or view by name."""
        from app.tui.screens.pick import Choice, PickScreen

        choices = [
            *(Choice(each.id, each.name or UNTITLED, f"{each.open_count:,}", LIST_MARK) for each in self.lists),
            *(Choice(f"view:{view.value}", name, mark=glyph) for view, (glyph, name) in VIEW_NAMES.items()),
        ]

        def jump(row_id: str) -> None:
            self._lists_pane.rows.select(row_id)
            self._activate(todos=True)

        app_of(self).push_screen(PickScreen("Go to", choices, jump))

    def action_filter(self) -> None:
        """Filter the to-dos."""
        self._activate(todos=True)
        self._filter_bar.ask()

    def action_toggle_details(self) -> None:
        """Show or hide the details, which need no key where there is much room."""
        self.toggle_class("-no-details" if self.has_class("-wide") else "-details")

    def action_switch_pane(self) -> None:
        """Go to the other pane."""
        self._activate(todos=not self._todos_active)

    def action_connect(self) -> None:
        """Start syncing."""
        attempt(self, self._store.connect(), group="connect")

    def action_disconnect(self) -> None:
        """Stop syncing."""
        attempt(self, self._store.disconnect(), group="connect")

    def action_sync(self) -> None:
        """Open the sync screen."""
        from app.tui.screens.sync import SyncScreen

        self._sync_screen = SyncScreen(self._store, self._now, self._log_lines)
        self._sync_screen.show_problem(self._problem)
        app_of(self).push_screen(self._sync_screen)

    def action_help(self) -> None:
        """Show all keys."""
        from app.tui.screens.help import HelpScreen

        app_of(self).push_screen(HelpScreen())

    def action_quit(self) -> None:
        """Quit, unless a text is half typed: then, the first time, its field gets the focus instead."""
        if not self._entry.warn_before_quit():
            app_of(self).exit()

    def action_tell_quit(self) -> None:
        """Show how to quit: in some programs this key quits, in others it copies."""
        app_of(self).notify(quit_keys(self), markup=False)
