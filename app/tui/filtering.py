"""Which texts a filter matches, and where.

Owns how the text in the filter is read: as words that must all occur, in any case and any order. Pure
functions; what is filtered, and how a match looks, is up to the widgets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar


class Described(Protocol):
    """Something that can be filtered by its text."""

    @property
    def description(self) -> str | None:
        """Any text."""
        ...


D = TypeVar("D", bound=Described)


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter for texts.

    Attributes:
        words: what must occur; none matches everything.
    """

    words: tuple[str, ...]
    _folded: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _anyone: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        longest_first = sorted(self.words, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE) if longest_first else None
        object.__setattr__(self, "_folded", tuple(word.casefold() for word in self.words))
        object.__setattr__(self, "_anyone", pattern)

    @classmethod
    def of(cls, typed: str) -> Filter:
        """The filter for a typed text."""
        return cls(tuple(dict.fromkeys(typed.split())))

    def __bool__(self) -> bool:
        """Whether it has any words."""
        return bool(self.words)

    def matches(self, text: str) -> bool:
        """Whether all words occur in a text."""
        folded = text.casefold()
        return all(word in folded for word in self._folded)

    def select(self, rows: Sequence[D]) -> Sequence[D]:
        """The rows whose description it matches; takes a few milliseconds for a hundred thousand."""
        for word in sorted(self._folded, key=len, reverse=True):
            rows = [row for row in rows if word in (row.description or "").casefold()]
        return rows

    def narrows(self, other: Filter) -> bool:
        """Whether another filter matches everything that this one matches, so that only those need searching."""
        return all(any(word in mine for mine in self._folded) for word in other._folded)

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the words are in a text, from left to right, in characters; none overlaps another."""
        if self._anyone is not None:
            for found in self._anyone.finditer(text):
                yield found.span()
