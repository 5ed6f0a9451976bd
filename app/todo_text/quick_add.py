"""What a user types for a to-do: which parts are understood, how, and what is stored for it.

Owns the reading of the quick-add line and of the edit line. Must not know what is stored otherwise.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Final

from app.todo_text.dates import date_at, recurrence_at, soonest, time_at
from app.todo_text.parts import Due, PartKind, Recurrence, escaped, value_of, words_of
from app.todo_text.stored import TodoText, cut, found_words, read, split

_LONGEST_PHRASE: Final = 4


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a typed line that is understood.

    Attributes:
        start: where it begins in the text, in characters.
        end: where it ends.
        kind: `due` (a date, a time of day, or both), `priority`, `tag` or `recurrence`.
        phrase: its text as typed.
        meaning: how it is understood, in a few plain words.
    """

    start: int
    end: int
    kind: PartKind
    phrase: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Understood:
    """A typed text, understood.

    Attributes:
        parts: what is recognised, from left to right; none overlaps another.
        stored: the description to store.
        preview: one line that says how the parts are understood; empty if there are none.
        reading: what `stored` says.
    """

    parts: tuple[Part, ...]
    stored: str
    preview: str
    reading: TodoText


@dataclass(frozen=True, slots=True)
class _Natural:
    start: int
    end: int
    value: date | time | Recurrence
    first_day: date | None = None


def understand(text: str, now: datetime, rejected: Collection[str] = ()) -> Understood:
    """Read what was typed; any text has a reading.

    `due:` and `rec:` words that are typed as such go before dates and repetitions in plain words. Of each kind the
    first counts. A weekday is the next one after today, `next fri` the one of next week; a day without a year is the
    next such day; a time without a date is its next occurrence.

    Args:
        text: what was typed; only its first line is read, the lines after it are notes.
        now: the local time, to which `tomorrow` refers; without a time zone.
        rejected: phrases that stay plain text, as `Part.phrase` gives them; case does not count.
    """
    line, line_break, notes = split(text)
    refused = {phrase.lower() for phrase in rejected}
    words = [found for found in found_words(line) if line[found[0] : found[1]].lower() not in refused]
    kinds: set[PartKind] = {found[2] for found in words}
    natural = _natural(line, now.date(), refused, kinds)
    if not _without(line, [(start, end) for start, end, _, _ in words] + [(n.start, n.end) for n in natural]).strip():
        natural = []
    due = _due(natural, now)
    parts = [Part(start, end, kind, line[start:end], _meaning(value, kind)) for start, end, kind, value in words]
    parts += [
        Part(
            n.start,
            n.end,
            "recurrence" if isinstance(n.value, Recurrence) else "due",
            line[n.start : n.end],
            _meaning(n.value, "recurrence") if isinstance(n.value, Recurrence) else _day(due, now.date()),
        )
        for n in natural
    ]
    parts.sort(key=lambda part: part.start)
    stored = _stored(line, natural, due, refused) + line_break + notes
    reading = read(stored)
    return Understood(tuple(parts), stored, _preview(reading, now.date()) if parts else "", reading)


def phrases_to_keep(description: str, now: datetime) -> tuple[str, ...]:
    """What is to be rejected while a stored description is edited, so that its plain text stays plain.

    With these, `understand(description, now, …).stored` is `description` again.
    """
    line = split(description)[0]
    kept: list[str] = []
    while True:
        understood = understand(line, now, kept)
        more = [part.phrase for part in understood.parts if value_of(part.phrase) is None]
        if not more:
            return tuple(kept)
        kept += more


def _natural(line: str, today: date, refused: set[str], kinds: set[PartKind]) -> list[_Natural]:
    words = list(words_of(line))
    lower = [word[0].lower() for word in words]
    found: list[_Natural] = []
    seen: set[str] = {kind for kind in kinds if kind == "recurrence"} | ({"date", "time"} if "due" in kinds else set())
    index = 0
    while index < len(words):
        read_here = _read_at(lower[index : index + _LONGEST_PHRASE], today)
        if read_here is None:
            index += 1
            continue
        count, kind, value, first_day = read_here
        start, end = words[index].start(), words[index + count - 1].end()
        if line[start:end].lower() not in refused and kind not in seen:
            seen.add(kind)
            found.append(_Natural(start, end, value, first_day if "due" not in kinds else None))
        index += count
    return found


def _read_at(words: list[str], today: date) -> tuple[int, str, date | time | Recurrence, date | None] | None:
    if repeated := recurrence_at(words, today):
        return repeated[0], "recurrence", repeated[1], repeated[2]
    if day := date_at(words, today):
        return day[0], "date", day[1], None
    if clock := time_at(words):
        return clock[0], "time", clock[1], None
    return None


def _due(natural: list[_Natural], now: datetime) -> Due | None:
    day = next((n.value for n in natural if isinstance(n.value, date)), None)
    clock = next((n.value for n in natural if isinstance(n.value, time)), None)
    day = day or next((n.first_day for n in natural if n.first_day is not None), None)
    if day is None and clock is not None:
        day = soonest(clock, now)
    return None if day is None else Due(day, clock)


def _stored(line: str, natural: list[_Natural], due: Due | None, refused: set[str]) -> str:
    """The line with its natural parts replaced by words, and its rejected words made plain."""
    changes: list[tuple[int, int, str]] = []
    missing = due
    for part in natural:
        words = (
            [missing.word] if missing is not None and (part.first_day or not isinstance(part.value, Recurrence)) else []
        )
        missing = None if words else missing
        if isinstance(part.value, Recurrence):
            words.append(part.value.word)
        changes.append((part.start, part.end, " ".join(words)))
    changes += [
        (word.start(), word.end(), escaped(word[0]))
        for word in words_of(line)
        if word[0].lower() in refused and value_of(word[0]) is not None
    ]
    for start, end, word in sorted(changes, reverse=True):
        line = line[:start] + word + line[end:] if word else cut(line, start, end)
    return line


def _without(line: str, spans: list[tuple[int, int]]) -> str:
    for start, end in sorted(spans, reverse=True):
        line = line[:start] + line[end:]
    return line


def _preview(reading: TodoText, today: date) -> str:
    words: list[str] = []
    if reading.due is not None:
        words.append(f"due {_day(reading.due, today)}")
    if reading.priority is not None:
        words.append(f"priority {reading.priority}")
    words += [f"#{tag}" for tag in reading.tags]
    if reading.recurrence is not None:
        words.append(reading.recurrence.text)
    return " · ".join(words)


def _meaning(value: object, kind: PartKind) -> str:
    if isinstance(value, Recurrence):
        return value.text
    if isinstance(value, Due):
        return _day(value, None)
    return f"priority {value}" if kind == "priority" else f"tag {value}"


def _day(due: Due | None, today: date | None) -> str:
    if due is None:
        return ""
    away = (due.date - today).days if today is not None else None
    day = (
        "today"
        if away == 0
        else "tomorrow"
        if away == 1
        else f"{due.date:%a} {due.date.day} {due.date:%b} {due.date.year}"
    )
    return day if due.time is None else f"{day} at {due.time:%H:%M}"
