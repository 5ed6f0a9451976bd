"""The small words at the right of a to-do: when it is due, how urgent it is, its tags, and how it stands with syncing.

Owns their wording, their order, and which of them give way where there is little room. Pure functions; the colours are
`app.tcss`', and no two badges differ by colour alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final, Literal

from app.system.display_text import sanitized
from app.todo_text import Due, TodoText, read

BadgeKind = Literal["late", "due", "later", "priority", "tag", "recurrence", "notes", "list", "waiting", "bad", "fresh"]

_WEEK: Final = 7
_MOST_TAGS: Final = 4


@dataclass(frozen=True, slots=True)
class Badge:
    """One badge.

    Attributes:
        text: short and plain.
        kind: what it stands for.
    """

    text: str
    kind: BadgeKind


WAITING: Final = Badge("↑", "waiting")
UPLOADING: Final = Badge("⇡", "waiting")
REJECTED: Final = Badge("✗", "bad")
FRESH: Final = Badge("✦", "fresh")


@lru_cache(maxsize=4096)
def read_cached(description: str) -> TodoText:
    """`read`, for descriptions that are painted again and again."""
    return read(description)


def badges_of(text: TodoText, now: datetime, *, completed: bool, list_name: str | None = None) -> Iterator[Badge]:
    """The badges of a to-do, the most important one last: it stays at the right edge.

    Args:
        text: what its description says.
        now: the local time.
        completed: whether it is done; then nothing about it is late.
        list_name: the name of its list, where to-dos of several lists are shown together.
    """
    if list_name:
        yield Badge(sanitized(list_name), "list")
    if text.notes.strip():
        yield Badge("≡", "notes")
    for tag in text.tags[:_MOST_TAGS]:
        yield Badge(f"#{sanitized(tag)}", "tag")
    if text.recurrence is not None:
        yield Badge("↻", "recurrence")
    if text.priority is not None:
        yield Badge(f"p{text.priority}", "priority")
    if text.due is not None:
        yield Badge(due_words(text.due, now), _due_kind(text.due, now, completed=completed))


def due_words(due: Due, now: datetime) -> str:
    """When something is due, in a few words: `today 09:00`, `2 days late`, `fri`, `1 Dec 2027`."""
    days = (due.date - now.date()).days
    clock = f" {due.time:%H:%M}" if due.time is not None else ""
    if days < -1:
        return f"{-days:,} days late"
    if days == -1:
        return "yesterday"
    if days == 0:
        return f"today{clock}"
    if days == 1:
        return f"tomorrow{clock}"
    if days < _WEEK:
        return f"{due.date:%a}{clock}"
    year = f" {due.date.year}" if due.date.year != now.year else ""
    return f"{due.date.day} {due.date:%b}{year}"


def is_late(due: Due, now: datetime) -> bool:
    """Whether the day, or the time of the day, is over."""
    if due.time is None:
        return due.date < now.date()
    return (due.date, due.time) < (now.date(), now.time())


def _due_kind(due: Due, now: datetime, *, completed: bool) -> BadgeKind:
    if completed:
        return "later"
    if is_late(due, now):
        return "late"
    return "due" if (due.date - now.date()).days <= 1 else "later"
