"""Text that came from elsewhere, made harmless and measured.

Owns how synced text becomes cells of the terminal: one line, no control characters, no more cells than there are.
Pure functions; nothing here parses markup, so that nothing can be taken for it.
"""

from __future__ import annotations

import re
from typing import Final

from rich.cells import cell_len, split_graphemes

ELLIPSIS: Final = "…"
LINE_BREAK: Final = "↵"
"""Stands for a line break in text that is shown on one line."""

_MOST_CODE_POINTS_PER_CELL: Final = 8
_SOME_CODE_POINTS: Final = 64

_VISIBLE: Final[dict[int, str]] = {
    **{code: chr(0x2400 + code) for code in range(0x20)},  # the pictures of the control characters
    **dict.fromkeys(range(0x80, 0xA0), "�"),  # C1: some terminals take these for escape sequences
    **dict.fromkeys(range(0xD800, 0xE000), "�"),  # lone surrogates cannot be written out
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "�"),  # would reorder the whole line
    0x7F: "␡",
    0x0A: LINE_BREAK,
    0x0D: LINE_BREAK,
    0x09: "⇥",
    0x2028: LINE_BREAK,
    0x2029: LINE_BREAK,
}


def sanitized(text: str) -> str:
    """Replace what a terminal would obey by symbols that show it; the rest stays as it is.

    The result is one line: a line break is shown as `↵`.
    """
    # What is replaced is not printable, to Python either; most texts are, and that is known sooner.
    return text if text.isprintable() else text.replace("\r\n", "\n").translate(_VISIBLE)


def fit(text: str, width: int) -> tuple[str, int]:
    """Make text visible and cut it to at most `width` cells, with an ellipsis where something was cut.

    Wide characters and combining sequences are never split. The cost depends on `width`, not on the text's length.

    Returns:
        The text, and how many cells it takes (at most `width`).
    """
    if width <= 0:
        return "", 0
    head = text[: width * _MOST_CODE_POINTS_PER_CELL + _SOME_CODE_POINTS]
    shown = sanitized(head)
    cells = cell_len(shown)
    if cells <= width and len(head) == len(text):
        return shown, cells
    taken = end = 0
    for _, stop, size in split_graphemes(shown)[0]:
        if taken + size > width - 1:
            break
        taken += size
        end = stop
    return shown[:end] + ELLIPSIS, taken + 1


class StandIns:
    """Private characters that stand in a text field for what a terminal would obey, so that nothing is lost there.

    Each stand-in is one character and one cell. Texts that are meant and texts that are held correspond one to one:
    what already is one of those private characters gets a stand-in too.
    """

    def __init__(self) -> None:
        self._stand_ins: dict[str, str] = {}
        self._meant: dict[int, str] = {}
        self._shown: dict[int, str] = {}

    def held(self, text: str) -> str:
        """The text as a field holds it."""
        return _STOOD_IN_FOR.sub(lambda found: self._stand_in(found[0]), text)

    def meant(self, held: str) -> str:
        """The text that a field's content stands for."""
        return held.translate(self._meant)

    def shown(self, held: str) -> str:
        """The content of a field as it can be painted, of the same length."""
        return held.translate(self._shown)

    def _stand_in(self, meant: str) -> str:
        if meant not in self._stand_ins:
            code = _FIRST_STAND_IN + len(self._stand_ins)
            self._stand_ins[meant] = chr(code)
            self._meant[code] = meant
            self._shown[code] = sanitized(meant)
        return self._stand_ins[meant]


_FIRST_STAND_IN: Final = 0x100000
_STOOD_IN_FOR: Final = re.compile(rf"\r\n|[{re.escape(''.join(map(chr, _VISIBLE)))}\U00100000-\U0010FFFF]")
