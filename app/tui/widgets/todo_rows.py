"""The to-dos of a list or of a view across lists, as rows under a title.

Owns which view is on the screen and what is shown of its to-dos: the order, the filter, the badges, and the sync state
of each. The actions on them are in `todos_pane`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.timer import Timer
from textual.worker import Worker

from app.store import Arrangement, SmartView, Sort, Store, Todo, TodoList, ViewRead
from app.todo_text.badges import FRESH, REJECTED, UPLOADING, WAITING, badges_of, read_cached
from app.tui.attempts import attempt, notify_retry
from app.tui.filtering import Filter
from app.tui.messages import TodoSelected
from app.tui.widgets.drawn_row import DrawnRow
from app.tui.widgets.lines import TitleLine
from app.tui.widgets.lists_pane import UNTITLED, VIEW_NAMES
from app.tui.widgets.row_list import RowList, RowsChosen, RowSelected

OPEN_MARK: Final = "○"
DONE_MARK: Final = "✓"
NO_TEXT: Final = "(no text)"
NO_MATCH: Final = ("No matches", "", "Press esc to show all to-dos.")
EMPTY: Final = ("Nothing to do here", "", "Press a to add a to-do.")
EMPTY_VIEW: Final = ("Nothing here",)

FRESH_SECONDS: Final = 5.0
UPLOAD_SECONDS: Final = 0.3
_MOST_FRESH: Final = 50
"""If more change at once, as in a long download, none is pointed out."""

SORT_NAMES: Final = {
    Sort.MANUAL: "manually",
    Sort.DUE: "by due date",
    Sort.PRIORITY: "by priority",
    Sort.NAME: "by name",
    Sort.AGE: "by date added",
}

_NOTHING_READ: Final = ViewRead(Arrangement(), [], None)


class TodoRows(Vertical):
    """To-dos under a title. Posts `TodoSelected`.

    Owns which view is on the screen: it is opened by `show`, and whoever needs to know it asks here.

    Args:
        store: where they are kept.
        now: the clock, giving aware datetimes in the user's zone.
    """

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        super().__init__()
        self._store = store
        self._now = now
        self._title = TitleLine()
        self._filter = Filter(())
        self._rows: RowList[Todo] = RowList(self._draw)
        self._open: TodoList | SmartView | None = None
        self._shown: TodoList | SmartView | None = None
        self._read = _NOTHING_READ
        self._following: Worker[None] | None = None
        self._waiting: frozenset[str] = frozenset()
        self._rejected: frozenset[str] = frozenset()
        self._is_uploading = False
        self._upload_lasts: Timer | None = None
        self._fresh: dict[str, Todo] = {}

    def compose(self) -> ComposeResult:
        """A title above the rows."""
        yield self._title
        yield self._rows

    def on_mount(self) -> None:
        """Follow what waits to be uploaded."""
        attempt(self, self._follow_waiting(), group="follow")

    @property
    def rows(self) -> RowList[Todo]:
        """The rows."""
        return self._rows

    # Which view is on the screen

    @property
    def open_view(self) -> TodoList | SmartView | None:
        """The list or view that the user has opened; its to-dos may still be being read."""
        return self._open

    @property
    def shown_view(self) -> TodoList | SmartView | None:
        """The list or view whose to-dos are the rows: the open one, or until that is read the one before."""
        return self._shown

    @property
    def arrangement(self) -> Arrangement:
        """How the rows are arranged."""
        return self._read.arrangement

    @property
    def is_filtered(self) -> bool:
        """Whether a filter is set."""
        return bool(self._filter)

    def is_open(self, view: TodoList | SmartView | None) -> bool:
        """Whether this is the open list or view, whatever its name and counts are now."""
        return _key(view) == _key(self._open)

    def show(self, view: TodoList | SmartView | None) -> None:
        """Show a list or view, as soon as its to-dos are read; until then the one before stays, title and all."""
        was_open = self.is_open(view)
        self._open = view
        if view is None:
            self._stop_following()
            self._shown = None
            self._read = _NOTHING_READ
            self._rows.set_rows(())
            self._rows.set_empty(())
            self._refresh_title()
        elif not was_open:
            self._restart_following()
        elif _key(self._shown) == _key(view):
            self._shown = view
            self._refresh_title()

    def show_day(self) -> None:
        """Show the to-dos of today from now on."""
        if self._open is not None:
            self._restart_following()

    def show_rejected(self, row_ids: frozenset[str]) -> None:
        """Mark the rows of which a change was rejected, from now on."""
        if row_ids != self._rejected:
            self._rejected = row_ids
            self._rows.refresh()

    def show_uploading(self, *, uploading: bool) -> None:
        """Mark what waits as being uploaded, or no longer; an upload that takes only a moment is not shown."""
        if not uploading:
            if self._upload_lasts is not None:
                self._upload_lasts.stop()
                self._upload_lasts = None
            self._mark_uploading(uploading=False)
        elif self._upload_lasts is None:
            self._upload_lasts = self.set_timer(UPLOAD_SECONDS, lambda: self._mark_uploading(uploading=True))

    def _mark_uploading(self, *, uploading: bool) -> None:
        if uploading != self._is_uploading:
            self._is_uploading = uploading
            self._rows.refresh()

    def filter(self, wanted: Filter) -> None:
        """Show only the to-dos whose text matches."""
        # Typing on looks only at what matched before.
        among = self._rows.rows if self._filter and wanted.narrows(self._filter) else self._read.todos
        self._filter = wanted
        self._rows.set_matching(wanted)
        self._show_matching(among)
        self.refresh_bindings()

    def rearrange(self, arrangement: Arrangement) -> None:
        """Change how the open view is arranged, and remember that."""
        view = _key(self._open)
        if view is not None and arrangement != self._read.arrangement:
            attempt(self, self._remember_arrangement(view, arrangement))

    async def _remember_arrangement(self, view: SmartView | str, arrangement: Arrangement) -> None:
        await self._store.arrange(view, arrangement)
        if _key(self._open) == view:
            self._restart_following()

    def _restart_following(self) -> None:
        self._stop_following()
        view = _key(self._open)
        if view is not None:
            self._following = attempt(self, self._follow(view), group="follow")

    def _stop_following(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None

    async def _follow(self, view: SmartView | str) -> None:
        other = _key(self._shown) != view
        first = True
        async for read in self._store.watch_view(view, notify_retry(self)):
            if not read.is_whole and not other:
                continue  # it is shown already, perhaps in another order: a part of it would move the cursor
            if first:
                first = False
                self._shown = self._open
                self._rows.drags = isinstance(view, str) and read.arrangement.sort is Sort.MANUAL
                if other:
                    self._rows.clear_choice()
                    self._rows.set_rows(())
            elif read.changed is not None:
                self._point_out(read.changed)
            self._read = read
            self._show_matching(read.todos)
            self.refresh_bindings()

    async def _follow_waiting(self) -> None:
        async for waiting in self._store.watch_waiting():
            if waiting != self._waiting:
                self._waiting = waiting
                self._rows.refresh()

    def _point_out(self, changed: Sequence[Todo]) -> None:
        """Mark for a moment what has just been changed elsewhere."""
        if not self._store.status.has_synced:
            return
        fresh = {todo.id: todo for todo in changed if not self._store.edit.wrote_lately(todo.id)}
        if fresh and len(fresh) <= _MOST_FRESH:
            self._fresh |= fresh
            self.set_timer(FRESH_SECONDS, lambda: self._forget_fresh(fresh))

    def _forget_fresh(self, fresh: dict[str, Todo]) -> None:
        self._fresh = {row_id: todo for row_id, todo in self._fresh.items() if fresh.get(row_id) is not todo}
        self._rows.refresh()

    def _show_matching(self, among: Sequence[Todo]) -> None:
        if self._filter and self._read.todos:
            self._rows.set_empty(NO_MATCH)
        else:
            self._rows.set_empty(EMPTY_VIEW if isinstance(self._shown, SmartView) else EMPTY)
        shown = self._filter.select(among) if self._filter else self._read.todos
        self._rows.set_rows(shown)
        self._refresh_title()

    # How it looks

    def _refresh_title(self) -> None:
        if self._shown is None:
            self._title.set("")
        elif isinstance(self._shown, SmartView):
            self._title.set(VIEW_NAMES[self._shown][1], self._progress())
        else:
            self._title.set(self._shown.name or UNTITLED, self._progress())

    def _progress(self) -> str:
        chosen = self._rows.chosen_count
        if chosen:
            return f"{chosen:,} selected"
        if not self._read.is_whole:
            return "…"
        todos = self._read.todos
        total = len(todos)
        if self._filter:
            return f"{len(self._rows.rows):,} of {total:,} match"
        if not total:
            return ""
        done = total - bisect_left(todos, 1, key=lambda todo: int(todo.completed))  # they come last
        if isinstance(self._shown, TodoList) and not self.arrangement.shows_done:
            done = self._shown.done_count
            total += done
        if done == total:
            progress = "all done" if isinstance(self._shown, TodoList) else f"{done:,} done"
        else:
            progress = f"{total - done:,} open · {done:,} done" if done else f"{total:,} open"
        sort = self.arrangement.sort
        is_usual = sort is Sort.MANUAL or not isinstance(self._shown, TodoList)
        return progress if is_usual else f"{progress} · {SORT_NAMES[sort]}"

    def _draw(self, todo: Todo) -> DrawnRow:
        mark = DONE_MARK if todo.completed else OPEN_MARK
        text = read_cached(todo.description or "")
        now = self._now()
        badges = list(badges_of(text, now, completed=todo.completed, list_name=todo.list_name))
        if todo.id in self._fresh:
            badges.append(FRESH)
        if todo.id in self._rejected:
            badges.append(REJECTED)
        elif todo.id in self._waiting:
            badges.append(UPLOADING if self._is_uploading else WAITING)
        drawn = DrawnRow(text.title, mark, badges=tuple(badges), kind="done" if todo.completed else "plain")
        return drawn if text.title.strip() else replace(drawn, text=NO_TEXT, kind="faint")

    # Messages

    @on(RowSelected)
    def _row_selected(self, event: RowSelected) -> None:
        event.stop()
        todo = self._rows.selected
        name = self._shown.name if isinstance(self._shown, TodoList) else (todo.list_name if todo else None)
        self.post_message(TodoSelected(todo, name))

    @on(RowsChosen)
    def _rows_chosen(self, event: RowsChosen) -> None:
        event.stop()
        self._refresh_title()
        self.refresh_bindings()


def _key(view: TodoList | SmartView | None) -> SmartView | str | None:
    return view.id if isinstance(view, TodoList) else view
