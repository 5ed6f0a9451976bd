"""Text from elsewhere, made safe to print and measured.

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
    """Replace control characters, which a terminal would obey, with visible symbols.

    The result is one line: a line break is shown as `↵`.
    """
    # Whatever is replaced is not printable. Most texts are, which is quicker to find out.
    return text if text.isprintable() else text.replace("\r\n", "\n").translate(_VISIBLE)


def fit(text: str, width: int) -> tuple[str, int]:
    """Sanitize text and cut it to at most `width` cells, with an ellipsis where something was cut.

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
    """Private-use characters that replace control characters in a text field, so that nothing is lost there.

    Each is one character and one cell wide. The replacement is reversible: characters of the text that are private-use
    characters themselves are replaced too.
    """

    def __init__(self) -> None:
        self._stand_ins: dict[str, str] = {}
        self._meant: dict[int, str] = {}
        self._shown: dict[int, str] = {}

    def held(self, text: str) -> str:
        """A text as a field holds it, with replacements."""
        return _STOOD_IN_FOR.sub(lambda found: self._stand_in(found[0]), text)

    def meant(self, held: str) -> str:
        """The original text of a field's content."""
        return held.translate(self._meant)

    def shown(self, held: str) -> str:
        """The content of a field as it is painted, of the same length."""
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
