"""The one-line widgets around the rows: a pane's title, the status line and the key bar.

Owns how their words are laid out when there is little room. What the words are comes from `app.tui.words` and
`app.tui.actions`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import ClassVar, Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.strip import Strip
from textual.widget import Widget

from app.settings.keymap import ACTIONS, Action
from app.system.display_text import fit, sanitized
from app.tui.actions import keymap_of
from app.tui.typed_textual import app_of, on_bindings_updated, screen_of
from app.tui.words import StatusWords, status_words
from sync import SyncStatus

STATUS_REFRESH_SECONDS: Final = 15.0
COUNTDOWN_SECONDS: Final = 1.0
"""How often the words are looked at again: the age of the last sync, and the time until the next attempt."""

_GAP: Final = 2
_LEAST_REASON: Final = 24
"""In fewer cells, the beginning of a reason says nothing."""


class Line(Widget):
    """A widget of one line: its parts are segments, painted from the left."""

    ALLOW_SELECT = False

    def segments(self, width: int) -> list[Segment]:
        """What to paint in `width` cells."""
        raise NotImplementedError

    def render_line(self, y: int) -> Strip:
        """Paint the line."""
        width = self.size.width
        if y:
            return Strip.blank(width, self.rich_style)
        return Strip(self.segments(width)).adjust_cell_length(width, self.rich_style)

    def part(self, name: str) -> Style:
        """The style of a component class."""
        return self.rich_style + self.get_component_rich_style(name, partial=True)


class TitleLine(Line):
    """A title at the left, and something smaller at the right."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"title-line--tail"}

    def __init__(self, title: str = "", tail: str = "") -> None:
        super().__init__()
        self._title = title
        self._tail = tail

    @property
    def title(self) -> str:
        """The title, as it was given."""
        return self._title

    def set(self, title: str, tail: str = "") -> None:
        """Change both texts; they may be any text."""
        if (title, tail) != (self._title, self._tail):
            self._title, self._tail = title, tail
            self.refresh()

    def segments(self, width: int) -> list[Segment]:
        """Title and tail; the tail gets what the title leaves, and half of the line at least."""
        tail, tail_cells = fit(self._tail, max(width // 2, width - cell_len(self._title[:width]) - _GAP))
        title, cells = fit(self._title, width - (tail_cells + _GAP if tail else 0))
        return [
            Segment(title, self.rich_style),
            Segment(" " * (width - cells - tail_cells), self.rich_style),
            Segment(tail, self.part("title-line--tail")),
        ]


class StatusLine(Line):
    """The state of synchronization, in words and glyphs. Its class is the state's name with a dash before it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"status-line--glyph", "status-line--right"}

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__()
        self._now = now
        self._status: SyncStatus | None = None
        self._problem: str | None = None
        self._rejected = 0
        self._words: StatusWords | None = None

    def on_mount(self) -> None:
        """Keep the age of the last sync and the time until the next attempt true."""
        self.set_interval(STATUS_REFRESH_SECONDS, self._refresh_words)
        self.set_interval(COUNTDOWN_SECONDS, self._count_down)

    def show(self, status: SyncStatus) -> None:
        """Show a status from now on."""
        self._status = status
        self._refresh_words()

    def show_problem(self, problem: str | None) -> None:
        """Show a reason before those of the status from now on, or none."""
        self._problem = problem
        self._refresh_words()

    def show_rejected(self, count: int) -> None:
        """Show how many writes the backend refused, from now on."""
        self._rejected = count
        self._refresh_words()

    def segments(self, width: int) -> list[Segment]:
        """The longest wording that fits, a reason if there is room for one, and the last sync at the right edge."""
        words = self._words
        if words is None:
            return []
        room = width - cell_len(words.glyph) - 1
        left, right = _best(words, room)
        gap = room - cell_len(left) - cell_len(right)
        return [
            Segment(f"{words.glyph} ", self.part("status-line--glyph")),
            Segment(left, self.rich_style),
            Segment(" " * gap, self.rich_style),
            Segment(right, self.part("status-line--right")),
        ]

    def _count_down(self) -> None:
        if self._status is not None and self._status.next_retry_at is not None:
            self._refresh_words()

    def _refresh_words(self) -> None:
        if self._status is None:
            return
        words = status_words(self._status, self._now(), self._problem, self._rejected)
        if words != self._words:
            if self._words is not None:
                self.remove_class(f"-{self._words.state}")
            self.add_class(f"-{words.state}")
            self._words = words
            self.refresh()


def _best(words: StatusWords, room: int) -> tuple[str, str]:
    if words.reason:
        with_reason = _with_reason(words, room)
        if with_reason is not None:
            return with_reason
    for left in words.left:
        for right in words.right:
            if cell_len(left) + _GAP + cell_len(right) <= room:
                return left, right
    for left in words.left:
        if cell_len(left) <= room:
            return left, ""
    return fit(words.left[-1], room)[0], ""


def _with_reason(words: StatusWords, room: int) -> tuple[str, str] | None:
    """State and reason, and the last sync if the whole reason leaves room for it; None if a reason has no room."""
    for left in words.left:
        rest = room - cell_len(left)
        reason, cells = fit(words.reason, rest)
        if reason == sanitized(words.reason):
            return left + reason, next((right for right in words.right if cells + _GAP + cell_len(right) <= rest), "")
        if rest >= _LEAST_REASON:
            return left + reason, ""
    return None


class KeyBar(Line):
    """The keys that work now, with what they do. Clicking one presses it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"key-bar--key", "key-bar--label"}

    def __init__(self) -> None:
        super().__init__()
        self._painted: list[Action] = []

    def on_mount(self) -> None:
        """Follow the bindings in force."""
        on_bindings_updated(self, self._bindings_updated)

    def _bindings_updated(self) -> None:
        # This is called after each change of what is shown, mostly with the same bindings; a needless frame would delay
        # the next one.
        if self._in_force() != self._painted:
            self.refresh()

    def segments(self, width: int) -> list[Segment]:
        """As many keys as fit, the most useful ones, in the registry's order."""
        key, label = self.part("key-bar--key"), self.part("key-bar--label")
        segments: list[Segment] = []
        for action in self._fitting(width):
            segments.append(Segment(keymap_of(self).first(action.id), key))
            segments.append(Segment(f" {action.label}{' ' * _GAP}", label))
        return segments

    def on_click(self, event: events.Click) -> None:
        """Press the key under the pointer."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        end = 0
        for action in self._fitting(self.size.width):
            end += self._cells(action)
            if offset.x < end:
                app_of(self).simulate_key(keymap_of(self).of_action(action.id)[0])
                return

    def _fitting(self, width: int) -> list[Action]:
        actions = self._painted = self._in_force()
        room = width + _GAP
        kept: set[str] = set()
        for action in sorted(actions, key=lambda action: -action.weight):
            if self._cells(action) <= room:
                room -= self._cells(action)
                kept.add(action.id)
        return [action for action in actions if action.id in kept]

    def _cells(self, action: Action) -> int:
        return cell_len(keymap_of(self).first(action.id)) + 1 + cell_len(action.label) + _GAP

    def _in_force(self) -> list[Action]:
        active = {binding.binding.id for binding in screen_of(self).active_bindings.values()}
        return [action for action in ACTIONS if action.label and action.id in active]
