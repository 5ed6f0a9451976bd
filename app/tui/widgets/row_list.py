"""A list of rows that stays quick at any length, and keeps the cursor on its row while rows come and go.

Owns the cursor, scrolling and painting of keyed rows. Knows nothing of lists and to-dos: whoever makes it says how a
row is drawn. Only lines in sight are ever drawn, and only those whose row object changed are drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from app.settings.keymap import Place
from app.system.display_text import fit
from app.tui.actions import bindings, performs
from app.tui.filtering import Filter
from app.tui.widgets.drawn_row import MARK_COLUMNS, PARTS, DrawnRow, RowStyle, painted_row
from app.tui.widgets.keyed_rows import Keyed, index_of, locate

_CURSOR_BAR: Final = "▌"
_CHOSEN_BAR: Final = "┃"
_CURSOR_ON_CHOSEN: Final = "█"
_DROP_BAR: Final = "▸"


R = TypeVar("R", bound=Keyed)


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
    """A row was dragged onto another one.

    Attributes:
        rows: the list.
        row_id: id of the row.
        index: the index of the row that it was dropped on.
    """

    rows: RowList[Any]
    row_id: str
    index: int


@performs(Place.ROWS)
class RowList(ScrollView, Generic[R], can_focus=True, inherit_bindings=False):
    """Rows with a cursor.

    Posts `RowSelected`, `RowActivated`, `RowMarked`, `RowsChosen` and, if rows can be dragged, `RowDropped`.

    Args:
        draw: makes a row visible; called for rows in sight only.
        empty: lines to show while there are no rows: a title, then explanations; plain text.

    Attributes:
        drags: whether rows can be dragged.
    """

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.ROWS)
    COMPONENT_CLASSES: ClassVar[set[str]] = set(PARTS)

    def __init__(self, draw: Callable[[R], DrawnRow], *, empty: Sequence[str] = ()) -> None:
        super().__init__()
        self._draw = draw
        self._empty = tuple(empty)
        self._rows: Sequence[R] = ()
        self._cursor = 0
        self._awaited: str | None = None
        self._chosen: set[str] = set()
        self._range_from: str | None = None
        self._range_base: set[str] = set()
        self._dragged: str | None = None
        self._drop_at: int | None = None
        self._drag_ended = False
        self.drags = False
        self._matching = Filter(())
        self._part_styles: dict[str, Style] = {}

    # What it shows

    @property
    def rows(self) -> Sequence[R]:
        """The rows, as given to `set_rows`."""
        return self._rows

    @property
    def selected(self) -> R | None:
        """The row under the cursor, or None if there are no rows."""
        return self._rows[self._cursor] if self._rows else None

    @property
    def selected_id(self) -> str | None:
        """The id of the row under the cursor, or None if there are no rows."""
        row = self.selected
        return row.id if row is not None else None

    def set_rows(self, rows: Sequence[R]) -> None:
        """Show other rows. Unchanged rows should be the same objects as before: only the others are painted.

        The cursor stays on its row, and the row on its line of the screen as far as scrolling can do that. If the row
        is gone, the cursor goes to the next one that is still there, or else to the one before. While the cursor is
        out of sight, the topmost row keeps its line instead.
        """
        before = self._in_sight()
        selected_before = self.selected
        old, top, cursor = self._rows, self.scroll_offset.y, self._cursor
        anchor = cursor if top <= cursor < top + self._page else min(top, max(len(old) - 1, 0))
        self._rows = rows
        self._cursor = locate(old, cursor, rows)
        moved = (self._cursor if anchor == cursor else locate(old, anchor, rows)) - anchor
        self.virtual_size = Size(0, len(rows))
        if self._awaited is not None and (found := index_of(rows, self._awaited)) is not None:
            self._awaited = None
            self._cursor = found
            self._scroll_to_cursor()
        else:
            self._scroll_to_row(top + moved)
        if self._chosen:
            self._forget_gone()
        if self.selected is not selected_before:
            self._post_selected()
        self._refresh_changed(before)

    def select(self, row_id: str) -> None:
        """Put the cursor on a row and bring it into sight; if the row is not there yet, as soon as it comes."""
        found = index_of(self._rows, row_id)
        if found is None:
            self._awaited = row_id
        else:
            self._move_to(found)

    def select_neighbour(self) -> None:
        """Put the cursor on the next row, or on the previous one if it is on the last."""
        self._move_to(self._cursor + 1 if self._cursor + 1 < len(self._rows) else self._cursor - 1)

    # Choosing several

    @property
    def chosen(self) -> list[R]:
        """The rows that were chosen, in their order; without any, the one under the cursor."""
        if not self._chosen:
            return [row for row in [self.selected] if row is not None]
        return [row for row in self._rows if row.id in self._chosen]

    @property
    def chosen_count(self) -> int:
        """How many rows were chosen."""
        return len(self._chosen)

    @property
    def is_choosing_range(self) -> bool:
        """Whether moving the cursor chooses what lies between."""
        return self._range_from is not None

    def toggle_choice(self) -> None:
        """Choose the row under the cursor, or undo that, and go to the next one."""
        row = self.selected
        if row is not None:
            self._range_from = None
            self._chosen ^= {row.id}
            self._choice_changed()
            self._move_to(self._cursor + 1)

    def toggle_range(self) -> None:
        """Choose from the row under the cursor to wherever it moves, until this is called again."""
        if self._range_from is not None:
            self._range_from = None
        elif self.selected is not None:
            self._range_from = self.selected.id
            self._range_base = set(self._chosen)
            self._extend_range()
        self._choice_changed()

    def choose_all(self) -> None:
        """Choose all rows; if they are, none."""
        every = {row.id for row in self._rows}
        self._range_from = None
        self._chosen = set() if self._chosen == every else every
        self._choice_changed()

    def clear_choice(self) -> None:
        """Clear the selection."""
        if self._chosen or self._range_from is not None:
            self._range_from = None
            self._chosen.clear()
            self._choice_changed()

    def _extend_range(self) -> None:
        start = index_of(self._rows, self._range_from) if self._range_from is not None else None
        if start is None:
            self._range_from = None
            return
        first, last = sorted((start, self._cursor))
        self._chosen = self._range_base | {row.id for row in self._rows[first : last + 1]}
        self._choice_changed()

    def _forget_gone(self) -> None:
        left = self._chosen & {row.id for row in self._rows}
        if left != self._chosen:
            self._chosen = left
            self._choice_changed()

    def _choice_changed(self) -> None:
        self.refresh()
        self.post_message(RowsChosen(self, len(self._chosen)))

    def set_empty(self, lines: Sequence[str]) -> None:
        """Change what is shown while there are no rows: a title, then explanations; plain text."""
        if tuple(lines) != self._empty:
            self._empty = tuple(lines)
            if not self._rows:
                self.refresh()

    def set_matching(self, matching: Filter) -> None:
        """Make visible from now on where a filter matches; which rows there are is up to `set_rows`."""
        if matching != self._matching:
            self._matching = matching
            self.refresh()

    # Painting

    def notify_style_update(self) -> None:
        """Forget the styles of the old theme or focus."""
        super().notify_style_update()
        self._part_styles.clear()

    def render_line(self, y: int) -> Strip:
        """Paint one line of what is in sight."""
        width = self.scrollable_content_region.width
        if not self._rows:
            return self._empty_line(y, width)
        index = y + self.scroll_offset.y
        if index >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        return self._row_line(self._rows[index], width, index=index)

    def _row_line(self, row: R, width: int, *, index: int) -> Strip:
        under_cursor, chosen = index == self._cursor, row.id in self._chosen
        base = self.rich_style
        if chosen:
            base += self._part("chosen")
        if under_cursor:
            base += self._part("cursor")
        bar = (_CURSOR_ON_CHOSEN if chosen else _CURSOR_BAR) if under_cursor else (_CHOSEN_BAR if chosen else " ")
        if index == self._drop_at:
            bar = _DROP_BAR
        return painted_row(self._draw(row), width, RowStyle(base, self._part, bar, self._matching))

    def _empty_line(self, y: int, width: int) -> Strip:
        number = y - max(0, (self._page - len(self._empty)) // 3)
        if not 0 <= number < len(self._empty):
            return Strip.blank(width, self.rich_style)
        part = self._part("empty-text" if number else "empty-title")
        text, cells = fit(self._empty[number], width - 2)
        left = max(1, (width - cells) // 2)
        base = self.rich_style
        strip = Strip([Segment(" " * left, base), Segment(text, base + part)])
        return strip.adjust_cell_length(width, base)

    def _part(self, name: str) -> Style:
        style = self._part_styles.get(name)
        if style is None:
            style = self.get_component_rich_style(f"row-list--{name}", partial=True)
            self._part_styles[name] = style
        return style

    def _in_sight(self) -> tuple[int, list[tuple[R, bool]]]:
        top = self.scroll_offset.y
        rows = self._rows[top : top + self._page]
        return top, [(row, top + line == self._cursor) for line, row in enumerate(rows)]

    def _refresh_changed(self, before: tuple[int, list[tuple[R, bool]]]) -> None:
        old_top, old_lines = before
        top, lines = self._in_sight()
        if top != old_top:
            return  # scrolling has painted all of it
        if not lines or not old_lines:
            self.refresh()
            return
        for line in range(max(len(lines), len(old_lines))):
            new = lines[line] if line < len(lines) else None
            old = old_lines[line] if line < len(old_lines) else None
            if new is None or old is None or new[0] is not old[0] or new[1] != old[1]:
                self.refresh_line(top + line)

    # Moving

    @property
    def _page(self) -> int:
        return max(1, self.scrollable_content_region.height)

    def _move_to(self, index: int) -> None:
        self._awaited = None
        if not self._rows:
            return
        before = self._in_sight()
        moved = self._cursor != (index := max(0, min(index, len(self._rows) - 1)))
        self._cursor = index
        if self._range_from is not None:
            self._extend_range()
        self._scroll_to_cursor()
        self._refresh_changed(before)
        if moved:
            self._post_selected()

    def _scroll_to_cursor(self) -> None:
        top = self.scroll_offset.y
        if self._cursor < top:
            self._scroll_to_row(self._cursor)
        elif self._cursor >= top + self._page:
            self._scroll_to_row(self._cursor - self._page + 1)

    def _scroll_to_row(self, top: int) -> None:
        if top != self.scroll_offset.y:
            self.scroll_to(y=top, animate=False, force=True)

    def _post_selected(self) -> None:
        self.post_message(RowSelected(self, self.selected_id))

    def on_resize(self) -> None:
        """Keep the cursor in sight when the terminal shrinks."""
        self._scroll_to_cursor()

    def action_cursor_down(self) -> None:
        """Go to the next row."""
        self._move_to(self._cursor + 1)

    def action_cursor_up(self) -> None:
        """Go to the previous row."""
        self._move_to(self._cursor - 1)

    def cycle(self, step: int) -> None:
        """Move the cursor by this many rows, from the last to the first and back."""
        if self._rows:
            self._move_to((self._cursor + step) % len(self._rows))

    def action_page_down(self) -> None:
        """Go one page down."""
        self._move_to(self._cursor + self._page)

    def action_page_up(self) -> None:
        """Go one page up."""
        self._move_to(self._cursor - self._page)

    def action_first(self) -> None:
        """Go to the first row."""
        self._move_to(0)

    def action_last(self) -> None:
        """Go to the last row."""
        self._move_to(len(self._rows) - 1)

    # The mouse

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Begin to drag the row under the pointer."""
        self._drag_ended = False
        index = self._index_at(event)
        if index is not None and self.drags and event.button == 1:
            self._dragged = self._rows[index].id

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Show where a dragged row would be dropped."""
        if self._dragged is None or event.button != 1:
            self._end_drag()
            return
        index = self._index_at(event)
        if index is None or (self._drop_at is None and self._rows[index].id == self._dragged):
            return
        if self._drop_at is None:
            self.capture_mouse()
        if index != self._drop_at:
            self._drop_at = index
            self.refresh()

    def on_mouse_up(self, event: events.MouseUp) -> None:
        """Drop a dragged row."""
        dragged, at = self._dragged, self._drop_at
        self._end_drag()
        if dragged is not None and at is not None:
            event.stop()
            self.post_message(RowDropped(self, dragged, at))

    def _end_drag(self) -> None:
        self._dragged = None
        if self._drop_at is not None:
            self._drop_at = None
            self._drag_ended = True
            self.release_mouse()
            self.refresh()

    def _index_at(self, event: events.MouseEvent) -> int | None:
        offset = event.get_content_offset(self)
        index = -1 if offset is None else offset.y + self.scroll_offset.y
        return index if 0 <= index < len(self._rows) else None

    def on_click(self, event: events.Click) -> None:
        """Select the row under the pointer; on its mark, mark it; twice, activate it."""
        offset = event.get_content_offset(self)
        index = self._index_at(event)
        if offset is None or index is None:
            return
        event.stop()
        if self._drag_ended:
            self._drag_ended = False  # dropping a row is no click
            return
        row = self._rows[index]
        if offset.x in MARK_COLUMNS and self._draw(row).mark:
            self.post_message(RowMarked(self, row.id))
            return
        self._move_to(index)
        if event.chain == 2:
            self.post_message(RowActivated(self, row.id))
