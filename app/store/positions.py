"""The position of a to-do that was moved by hand: a text that sorts between those of its neighbours.

Owns that arithmetic. One to-do is moved by writing one row, however long its list is; the position of the others is the
time at which they were created. Pure functions.
"""

from __future__ import annotations

from typing import Final

_LOWEST: Final = 0x20
_HIGHEST: Final = 0x7E
_SURROGATES: Final = range(0xD800, 0xE000)


def between(low: str, high: str | None) -> str | None:
    """A short text that sorts after `low` and before `high`, by code points; None if there is none.

    Args:
        low: the position before; empty for the beginning.
        high: the position after, or None for the end.
    """
    if high is not None and low >= high:
        return None
    made = ""
    bounded = high is not None
    for index in range(max(len(low), len(high or "")) + 1):
        least = ord(low[index]) if index < len(low) else _LOWEST - 1
        most = ord(high[index]) if bounded and high is not None and index < len(high) else _HIGHEST + 1
        if bounded and high is not None and index >= len(high):
            return None  # `made` is `high` itself
        middle = (least + most) // 2
        if most - least > 1 and middle not in _SURROGATES:
            # One that ended with the lowest character would leave no room before it.
            return made + (chr(middle) if middle != _LOWEST else chr(_LOWEST) + chr((_LOWEST + _HIGHEST) // 2))
        if index >= len(low):
            made += chr(most)  # go down along `high`, until there is room below it
        else:
            made += chr(least)
            bounded = bounded and least == most
    return None


def numbered(count: int) -> list[str]:
    """Positions for a whole list, with room between them; they sort before every time of creation."""
    return [f"{index:09d}" for index in range(1, count + 1)]
