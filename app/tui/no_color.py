"""No colour at all, for users who set `NO_COLOR`: glyphs, weight and reverse video stand in for it.

Owns how a painted segment loses its colours. What is reversed then is in `app.tcss`, under `:nocolor`.
"""

from __future__ import annotations

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter


class WithoutColor(LineFilter):
    """Leaves text and weight, and takes every colour."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 -- Textual's signature
        """Called by Textual for each line."""
        return [Segment(text, None if style is None else _plain(style), control) for text, style, control in segments]


@lru_cache(maxsize=1024)
def _plain(style: Style) -> Style:
    return Style(
        bold=style.bold, italic=style.italic, underline=style.underline, strike=style.strike, reverse=style.reverse
    )
