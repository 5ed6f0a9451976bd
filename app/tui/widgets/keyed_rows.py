"""Rows with ids, and where one of them is when others come and go.

Pure functions. Must not know how rows are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

_NEAR: Final = 64


class Keyed(Protocol):
    """A row: any immutable object with an id. Another object is another content."""

    @property
    def id(self) -> str:
        """What makes it the same row when its content changes."""
        ...


def index_of(rows: Sequence[Keyed], row_id: str) -> int | None:
    """Where the row with this id is, or None."""
    return next((index for index, row in enumerate(rows) if row.id == row_id), None)


def locate(old: Sequence[Keyed], index: int, rows: Sequence[Keyed]) -> int:
    """Where the row that was at `index` of `old` is now; if it is gone, where its nearest surviving neighbour is."""
    if not old or not rows:
        return 0
    row_id = old[index].id
    # Mostly it is where it was, or a few rows came or went before it.
    for distance in range(_NEAR):
        for candidate in (index - distance, index + distance):
            if 0 <= candidate < len(rows) and rows[candidate].id == row_id:
                return candidate
    indices = {row.id: number for number, row in enumerate(rows)}
    for row in (*old[index:], *reversed(old[:index])):
        if (found := indices.get(row.id)) is not None:
            return found
    return min(index, len(rows) - 1)
