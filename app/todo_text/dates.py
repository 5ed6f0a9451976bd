"""Dates and times in plain English words.

Owns which words are dates, times and repetitions, and what they mean on a given day. Must not know how they
are stored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Final

from app.todo_text.parts import Recurrence, Unit
from app.todo_text.recurrence import months_later

_WEEKDAYS: Final = {
    name: number
    for number, names in enumerate(
        ("mon monday", "tue tues tuesday", "wed wednesday", "thu thur thurs thursday", "fri friday", "sat saturday")
    )
    for name in names.split()
} | {"sun": 6, "sunday": 6}
_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        [
            "jan january",
            "feb february",
            "mar march",
            "apr april",
            "may",
            "jun june",
            "jul july",
            "aug august",
            "sep sept september",
            "oct october",
            "nov november",
            "dec december",
        ],
        start=1,
    )
    for name in names.split()
}
_DAYS: Final = {"today": 0, "tod": 0, "tomorrow": 1, "tom": 1}
_UNITS: Final[dict[str, Unit]] = {
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("weekday", "weekdays"), "b"),
    **dict.fromkeys(("w", "week", "weeks"), "w"),
    **dict.fromkeys(("m", "month", "months"), "m"),
    **dict.fromkeys(("y", "year", "years"), "y"),
}
_AMOUNT: Final = re.compile(r"(\d{1,4})([a-z]+)", re.ASCII)
_ISO: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DAY_OF_MONTH: Final = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?", re.ASCII)
_YEAR: Final = re.compile(r"[12]\d{3}", re.ASCII)
_HALF_DAY: Final = re.compile(r"(\d{1,2})(?::(\d\d))?(am|pm)", re.ASCII)
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d\d)", re.ASCII)
_HOUR: Final = re.compile(r"\d{1,2}", re.ASCII)


def date_at(words: Sequence[str], today: date) -> tuple[int, date] | None:
    """The date that the first of some lower-case words make, and how many of them; the longest reading counts."""
    if words[0] in ("on", "by") and len(words) > 1:
        found = _date(words[1:], today)
        return None if found is None else (found[0] + 1, found[1])
    return _date(words, today)


def time_at(words: Sequence[str]) -> tuple[int, time] | None:
    """As `date_at`, for a time of day."""
    at = words[0] == "at" and len(words) > 1
    rest = words[1:] if at else words
    first, count = rest[0], 1
    if len(rest) > 1 and rest[1] in ("am", "pm") and _HOUR.fullmatch(first):
        first, count = first + rest[1], 2
    hour = minute = -1
    if match := _HALF_DAY.fullmatch(first):
        hour, minute = int(match[1]), int(match[2] or 0)
        hour = hour % 12 + (12 if match[3] == "pm" else 0) if 1 <= hour <= 12 else -1
    elif match := _CLOCK.fullmatch(first):
        hour, minute = int(match[1]), int(match[2])
    elif at and _HOUR.fullmatch(first):
        hour, minute = int(first), 0
    if not (0 <= hour < 24 and 0 <= minute < 60):
        return None
    return count + at, time(hour, minute)


def recurrence_at(words: Sequence[str], today: date) -> tuple[int, Recurrence, date | None] | None:
    """As `date_at`, for a repetition; with its first day, if it names a day of the week."""
    if words[0] != "every" or len(words) < 2:
        return None
    second = words[1]
    if second in _WEEKDAYS:
        return 2, Recurrence(1, "w"), next_weekday(today, _WEEKDAYS[second])
    if second == "other" and len(words) > 2 and words[2] in _UNITS:
        return 3, Recurrence(2, _UNITS[words[2]]), None
    if second in _UNITS:
        return 2, Recurrence(1, _UNITS[second]), None
    amount = _amount(words[1:])
    if amount is None or amount[1] == 0:
        return None
    return amount[0] + 1, Recurrence(amount[1], amount[2]), None


def next_weekday(today: date, weekday: int) -> date:
    """The next such day of the week after today; 0 is Monday."""
    return today + timedelta(days=(weekday - today.weekday() - 1) % 7 + 1)


def soonest(clock: time, now: datetime) -> date:
    """The day on which it will be such a time next."""
    return now.date() if clock > now.time() else now.date() + timedelta(days=1)


def _date(words: Sequence[str], today: date) -> tuple[int, date] | None:
    first = words[0]
    try:
        if first in _DAYS:
            return 1, today + timedelta(days=_DAYS[first])
        if first in _WEEKDAYS:
            return 1, next_weekday(today, _WEEKDAYS[first])
        if first == "next" and len(words) > 1:
            return _next(words[1], today)
        if first == "in" and len(words) > 1:
            return _later(words[1:], today, extra=1)
        if (match := _AMOUNT.fullmatch(first)) and match[2] in ("d", "w"):
            return _later(words, today, extra=0)
        if _ISO.fullmatch(first):
            return 1, date.fromisoformat(first)
        return _day_and_month(words, today)
    except (ValueError, OverflowError):
        return None


def _next(word: str, today: date) -> tuple[int, date] | None:
    monday = today + timedelta(days=7 - today.weekday())
    if word == "week":
        return 2, monday
    if word in _WEEKDAYS:
        return 2, monday + timedelta(days=_WEEKDAYS[word])
    if word == "month":
        return 2, months_later(today.replace(day=1), 1)
    if word == "year":
        return 2, date(today.year + 1, 1, 1)
    return None


def _amount(words: Sequence[str]) -> tuple[int, int, Unit] | None:
    if (match := _AMOUNT.fullmatch(words[0])) and match[2] in _UNITS:
        return 1, int(match[1]), _UNITS[match[2]]
    if len(words) > 1 and words[1] in _UNITS and re.fullmatch(r"\d{1,4}", words[0], re.ASCII):
        return 2, int(words[0]), _UNITS[words[1]]
    return None


def _later(words: Sequence[str], today: date, *, extra: int) -> tuple[int, date] | None:
    amount = _amount(words)
    if amount is None:
        return None
    used, count, unit = amount
    match unit:
        case "m" | "y":
            return used + extra, months_later(today, count * (12 if unit == "y" else 1))
        case "b":
            return None
        case _:
            return used + extra, today + timedelta(days=count * (7 if unit == "w" else 1))


def _day_and_month(words: Sequence[str], today: date) -> tuple[int, date] | None:
    if len(words) < 2:
        return None
    for month_word, day_word in ((words[1], words[0]), (words[0], words[1])):
        day = _DAY_OF_MONTH.fullmatch(day_word)
        if month_word in _MONTHS and day is not None:
            if len(words) > 2 and _YEAR.fullmatch(words[2]):
                return 3, date(int(words[2]), _MONTHS[month_word], int(day[1]))
            return 2, _next_such_day(today, _MONTHS[month_word], int(day[1]))
    return None


def _next_such_day(today: date, month: int, day: int) -> date:
    for year in range(today.year, today.year + 9):
        try:
            found = date(year, month, day)
        except ValueError:
            continue
        if found >= today:
            return found
    raise ValueError("no such day")
