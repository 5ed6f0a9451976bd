"""When a recurring to-do is due next.

Owns the arithmetic of calendars: days, weekdays, weeks, months and years. Must not know how a recurrence is typed.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import date, timedelta

from app.todo_text.parts import Due, Recurrence
from app.todo_text.stored import read, set_due


def next_due(due: Due | None, recurrence: Recurrence, completed_on: date) -> Due | None:
    """When a to-do is due next, at the same time of day; None if that is after the year 9999.

    `rec:1m` steps from the due date, and on until the date lies after the completion: missed dates are skipped,
    and a to-do that is done early or late keeps its day. `rec:+1m` is strict: one step from the due date, even
    into the past. Without a due date both count from the completion. A day that a month does not have becomes its last.

    Args:
        due: when it was due.
        recurrence: how often it recurs.
        completed_on: the local day on which it was completed.
    """
    start = due.date if due is not None else completed_on
    clock = due.time if due is not None else None
    try:
        steps = 1
        if not recurrence.strict and start < completed_on:
            steps = max(1, _whole_steps(start, completed_on, recurrence))
        while True:
            day = _moved(start, recurrence, steps)
            if recurrence.strict or day > completed_on or due is None:
                return Due(day, clock)
            steps += 1
    except (OverflowError, ValueError):
        return None


def next_description(description: str, completed_on: date) -> str | None:
    """The description of the to-do that follows a completed one, or None if it does not recur."""
    parts = read(description)
    if parts.recurrence is None:
        return None
    following = next_due(parts.due, parts.recurrence, completed_on)
    return None if following is None else set_due(description, following)


def _whole_steps(start: date, end: date, recurrence: Recurrence) -> int:
    """At most as many steps as lead from one day to another: to begin with, instead of going them one by one."""
    days = {"d": 1, "b": 2, "w": 7, "m": 31, "y": 366}[recurrence.unit]
    return (end - start).days // (days * recurrence.count)


def _moved(day: date, recurrence: Recurrence, steps: int) -> date:
    count = recurrence.count * steps
    match recurrence.unit:
        case "d":
            return day + timedelta(days=count)
        case "w":
            return day + timedelta(weeks=count)
        case "b":
            return _weekdays_later(day, count)
        case "m":
            return months_later(day, count)
        case "y":
            return months_later(day, 12 * count)


def _weekdays_later(day: date, count: int) -> date:
    if day.weekday() > 4:
        day -= timedelta(days=day.weekday() - 4)
    weeks, rest = divmod(day.weekday() + count, 5)
    return day + timedelta(days=7 * weeks + rest - day.weekday())


def months_later(day: date, months: int) -> date:
    """The same day of a later month, or that month's last.

    Raises:
        ValueError: it is after the year 9999.
    """
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    if year > date.max.year:
        raise ValueError("after the last year")
    return day.replace(year=year, month=month + 1, day=min(day.day, monthrange(year, month + 1)[1]))
