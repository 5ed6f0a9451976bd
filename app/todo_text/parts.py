"""The parts of a to-do's description, and the words that stand for them.

Owns how a due date, a priority, a tag and a recurrence are written and recognised as single words. Must not know how
they are typed in natural language, nor what else is in a description.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, time
from typing import Final, Literal

PartKind = Literal["due", "priority", "tag", "recurrence"]
Unit = Literal["d", "b", "w", "m", "y"]

_DUE: Final = re.compile(r"due:(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d))?", re.ASCII)
_PRIORITY: Final = re.compile(r"p([1-4])", re.ASCII | re.IGNORECASE)
_TAG: Final = re.compile(r"#([\w][\w/-]*)")
_RECURRENCE: Final = re.compile(r"rec:(\+?)([1-9]\d{0,3})([dbwmy])", re.ASCII)
_FIRST: Final = "pP#rd"
_WORD: Final = re.compile(r"\S+")
_MEANT: Final = re.compile(rf"(?<!\S)[{_FIRST}]\S*")
_UNITS: Final[dict[str, tuple[str, str]]] = {
    "d": ("day", "days"),
    "b": ("weekday", "weekdays"),
    "w": ("week", "weeks"),
    "m": ("month", "months"),
    "y": ("year", "years"),
}


@dataclass(frozen=True, slots=True)
class Due:
    """When a to-do is due, in local time.

    Attributes:
        date: the day.
        time: the time of day, to the minute and without a zone; None if the whole day is meant.
    """

    date: date
    time: time | None = None

    @property
    def word(self) -> str:
        """The word that is stored, as `due:2026-12-01T09:00`."""
        clock = f"T{self.time:%H:%M}" if self.time is not None else ""
        return f"due:{self.date.isoformat()}{clock}"


@dataclass(frozen=True, slots=True)
class Recurrence:
    """How often a to-do recurs.

    Attributes:
        count: how many units, from 1 to 9,999.
        unit: `d` days, `b` days from Monday to Friday, `w` weeks, `m` months, `y` years.
        strict: whether missed dates are kept, instead of going on to the first one after the completion.
    """

    count: int
    unit: Unit
    strict: bool = False

    @property
    def word(self) -> str:
        """The word that is stored, as `rec:1m`."""
        return f"rec:{'+' if self.strict else ''}{self.count}{self.unit}"

    @property
    def text(self) -> str:
        """In plain words, as `every 2 weeks`."""
        one, several = _UNITS[self.unit]
        return f"every {one}" if self.count == 1 else f"every {self.count} {several}"


Value = Due | Recurrence | int | str
"""What a word stands for: a due date, a recurrence, a priority (1 to 4) or the name of a tag."""


def words_of(line: str) -> Iterator[re.Match[str]]:
    """The words of a line: what is between white space."""
    return _WORD.finditer(line)


def meant_words_of(line: str) -> Iterator[re.Match[str]]:
    """The words that may stand for something, judged by their first character: faster than `value_of` for each."""
    return _MEANT.finditer(line)


def value_of(word: str) -> tuple[PartKind, Value] | None:
    """What a word stands for, or None if it is plain text."""
    if word[:1] not in _FIRST:
        return None
    if match := _PRIORITY.fullmatch(word):
        return "priority", int(match[1])
    if match := _TAG.fullmatch(word):
        return "tag", match[1]
    if match := _RECURRENCE.fullmatch(word):
        unit: Unit = match[3]  # pyright: ignore[reportAssignmentType] -- the pattern has no others
        return "recurrence", Recurrence(int(match[2]), unit, strict=bool(match[1]))
    if match := _DUE.fullmatch(word):
        try:
            clock = time.fromisoformat(match[2]) if match[2] else None
            return "due", Due(date.fromisoformat(match[1]), clock)
        except ValueError:
            return None
    return None


def plain(word: str) -> str:
    """A word as it is shown: without the backslash that keeps it plain text."""
    return word[1:] if word.startswith("\\") and value_of(word.lstrip("\\")) is not None else word


def escaped(word: str) -> str:
    """A word as it is stored so that it stays plain text."""
    return "\\" + word if value_of(word.lstrip("\\")) is not None else word
