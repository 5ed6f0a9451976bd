"""What changed between two results of one query, row by row.

Owns the comparison by key. Pure values: no SQL, no event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

from sync.errors import RowKeyError
from sync.sqlite.sql_connection import Row

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RowDiff(Generic[T]):
    """A result of a watched query, and how it differs from the one before.

    A row that did not change is the same object as before, even if it moved.

    Attributes:
        rows: the whole result.
        added: rows whose key is new; in the first result, all.
        removed: rows whose key is gone, as they were.
        updated: pairs of the old and the new row with the same key.
        moved: rows, as they are now, that changed their order; as few as explain the new order. Does not include rows
            that only shifted because others were added or removed.
    """

    rows: list[T]
    added: list[T]
    removed: list[T]
    updated: list[tuple[T, T]]
    moved: list[T]


@dataclass(frozen=True, slots=True)
class KeyedRows(Generic[T]):
    """A result, kept for comparison with the next."""

    raw: dict[Any, Row]
    made: dict[Any, T]


NO_ROWS: KeyedRows[Any] = KeyedRows({}, {})


def keyed(rows: Sequence[Row], key: str, make: Callable[[Row], T], before: KeyedRows[T]) -> KeyedRows[T]:
    """Rows by their keys. Unchanged rows keep their objects.

    Raises:
        RowKeyError: the rows have no such column, or its values are not unique.
    """
    if rows and key not in rows[0].keys():  # noqa: SIM118 - `in` searches the values of a Row
        raise RowKeyError(f"The rows have no column {key!r} to identify them; pass another key.")
    raw: dict[Any, Row] = {}
    made: dict[Any, T] = {}
    for row in rows:
        value = row[key]
        if value in raw:
            raise RowKeyError(f"The key {value!r} occurs twice in the column {key!r}; pass a column that is unique.")
        raw[value] = row
        made[value] = before.made[value] if before.raw.get(value) == row else make(row)
    return KeyedRows(raw, made)


def difference(before: KeyedRows[T], after: KeyedRows[T]) -> RowDiff[T]:
    """How one result differs from another."""
    return RowDiff(
        rows=list(after.made.values()),
        added=[row for key, row in after.made.items() if key not in before.made],
        removed=[row for key, row in before.made.items() if key not in after.made],
        updated=[
            (before.made[key], row)
            for key, row in after.made.items()
            if key in before.made and before.made[key] is not row
        ],
        moved=_moved(before, after),
    )


def _moved(before: KeyedRows[T], after: KeyedRows[T]) -> list[T]:
    positions = {key: position for position, key in enumerate(before.made)}
    kept = [key for key in after.made if key in positions]
    order = [positions[key] for key in kept]
    if all(left < right for left, right in pairwise(order)):
        return []
    stayed = _longest_increasing(order)
    return [after.made[key] for key in kept if positions[key] not in stayed]


def _longest_increasing(numbers: Sequence[int]) -> set[int]:
    """The numbers of a longest increasing subsequence: rows that kept their order among themselves."""
    tails: list[int] = []  # tails[n]: the smallest end of an increasing subsequence of n + 1 numbers
    previous: dict[int, int | None] = {}
    for number in numbers:
        length = bisect_left(tails, number)
        previous[number] = tails[length - 1] if length else None
        tails[length : length + 1] = [number]
    chain: set[int] = set()
    number = tails[-1] if tails else None
    while number is not None:
        chain.add(number)
        number = previous[number]
    return chain
