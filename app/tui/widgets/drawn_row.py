"""One row of a list as cells: cursor, mark, text, badges and tail, in whatever room there is.

Owns that layout. Pure functions; which rows there are, and which one the cursor is on, is `row_list`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from app.system.display_text import fit
from app.todo_text.badges import Badge
from app.tui.filtering import Filter

MARK_COLUMNS: Final = range(1, 4)
"""The columns in which a click means the mark: the mark itself and the space around it."""

_RIGHT_MARGIN: Final = 2

PARTS: Final = frozenset(
    f"row-list--{part}"
    for part in (
        *("cursor", "bar", "mark", "done", "faint", "tail", "match", "chosen", "empty-title", "empty-text"),
        *("late", "due", "later", "priority", "tag", "recurrence", "notes", "list", "waiting", "bad", "fresh"),
    )
)
"""The component classes of a row's parts."""


@dataclass(frozen=True, slots=True)
class DrawnRow:
    """How a row looks.

    Attributes:
        text: any text; it is made harmless and cut to fit.
        mark: one cell before the text, such as a check box, or empty.
        tail: short plain text at the right edge, such as a count.
        badges: small words before the tail; where there is little room, the first go first.
        kind: how prominent it is.
    """

    text: str
    mark: str = ""
    tail: str = ""
    badges: tuple[Badge, ...] = ()
    kind: Literal["plain", "done", "faint"] = "plain"


@dataclass(frozen=True, slots=True)
class RowStyle:
    """What a row is painted with.

    Attributes:
        base: the style of the whole row.
        part: gives the style of a part, by its name without `row-list--`.
        bar: the one cell at the left edge.
        matching: whose matches stand out in the text.
    """

    base: Style
    part: Callable[[str], Style]
    bar: str
    matching: Filter


def painted_row(drawn: DrawnRow, width: int, style: RowStyle) -> Strip:
    """A row in `width` cells."""
    base, part = style.base, style.part
    segments = [Segment(style.bar, base + part("bar"))]
    room = width - 2 - _RIGHT_MARGIN
    if drawn.mark:
        segments.append(Segment(f" {drawn.mark} ", base + part("mark")))
        room -= 2
    else:
        segments.append(Segment(" ", base))
    tail, tail_cells = fit(drawn.tail, max(0, room // 2))
    badges, badge_cells = _fitting_badges(drawn, room - tail_cells)
    rest = tail_cells + badge_cells
    text, cells = fit(drawn.text, room - (rest + 1 if rest else 0))
    text_style = base if drawn.kind == "plain" else base + part(drawn.kind)
    done = 0
    for start, end in style.matching.spans(text):
        segments.append(Segment(text[done:start], text_style))
        segments.append(Segment(text[start:end], text_style + part("match")))
        done = end
    segments.append(Segment(text[done:], text_style))
    segments.append(Segment(" " * max(0, room - cells - rest), base))
    for number, (badge, shown) in enumerate(badges):
        segments.append(Segment(" " * bool(number), base))
        segments.append(Segment(shown, base + part(badge.kind)))
    segments.append(Segment(tail + " " * _RIGHT_MARGIN, base + part("tail")))
    return Strip(segments).adjust_cell_length(width, base)


def _fitting_badges(drawn: DrawnRow, room: int) -> tuple[list[tuple[Badge, str]], int]:
    """The last badges that fit into half of the room, or into what the text leaves; and how many cells they take."""
    room = max(room // 2, room - cell_len(drawn.text[:room]) - 1)
    kept: list[tuple[Badge, str]] = []
    taken = 0
    for badge in reversed(drawn.badges):
        shown, cells = fit(badge.text, room)
        more = cells + bool(kept)
        if taken + more > room or not cells:
            break
        taken += more
        kept.insert(0, (badge, shown))
    return kept, taken
