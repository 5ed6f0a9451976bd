"""Descriptions as they are stored: what their words mean, and how one part is changed.

Owns the reading of a description, and changes that leave all else in it byte for byte. Must not know how a to-do is
typed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from app.todo_text.parts import Due, PartKind, Recurrence, Value, escaped, meant_words_of, plain, value_of

_LINE_BREAK: Final = re.compile(r"\r\n|\r|\n")
_SPACES: Final = re.compile(r"[ \t]{2,}")


@dataclass(frozen=True, slots=True)
class TodoText:
    """What a description says.

    Attributes:
        title: the first line without the words that stand for something; the whole line if nothing else is in it.
        due: when it is due, or None.
        priority: from 1, the highest, to 4; None if it has none.
        tags: without `#`, in their order, each once.
        recurrence: how often it comes again, or None.
        notes: the lines after the first, as they are.
    """

    title: str
    due: Due | None
    priority: int | None
    tags: tuple[str, ...]
    recurrence: Recurrence | None
    notes: str


def split(description: str) -> tuple[str, str, str]:
    """A description's first line, the line break after it, and the notes."""
    found = _LINE_BREAK.search(description)
    if found is None:
        return description, "", ""
    return description[: found.start()], found[0], description[found.end() :]


def found_words(line: str) -> list[tuple[int, int, PartKind, Value]]:
    """The words of a line that stand for something, with their start and end: of each kind the first, but all tags."""
    found: list[tuple[int, int, PartKind, Value]] = []
    seen: set[PartKind] = set()
    for word in meant_words_of(line):
        known = value_of(word[0])
        if known is None or (known[0] in seen and known[0] != "tag"):
            continue
        seen.add(known[0])
        found.append((word.start(), word.end(), *known))
    return found


def read(description: str) -> TodoText:
    """Read a description; any text has a reading."""
    line, _, notes = split(description)
    values: dict[PartKind, Value] = {}
    tags: dict[str, None] = {}
    for _, _, kind, value in (found := found_words(line)):
        if kind == "tag":
            tags[str(value)] = None
        else:
            values[kind] = value
    due, priority, recurrence = values.get("due"), values.get("priority"), values.get("recurrence")
    return TodoText(
        _title(line, [(start, end) for start, end, _, _ in found]),
        due if isinstance(due, Due) else None,
        priority if isinstance(priority, int) else None,
        tuple(tags),
        recurrence if isinstance(recurrence, Recurrence) else None,
        notes,
    )


def set_due(description: str, due: Due | None) -> str:
    """Set or take away when a to-do is due."""
    return _set(description, "due", due.word if due is not None else None)


def set_priority(description: str, priority: int | None) -> str:
    """Set or take away a priority.

    Raises:
        ValueError: it is not from 1 to 4.
    """
    if priority is not None and not 1 <= priority <= 4:
        raise ValueError(f"a priority is 1, 2, 3 or 4, not {priority}")
    return _set(description, "priority", f"p{priority}" if priority is not None else None)


def set_recurrence(description: str, recurrence: Recurrence | None) -> str:
    """Set or take away how often a to-do comes again."""
    return _set(description, "recurrence", recurrence.word if recurrence is not None else None)


def add_tag(description: str, tag: str) -> str:
    """Add a tag, given with or without `#`, unless it is there.

    Raises:
        ValueError: it cannot be a tag, for instance because it has a space.
    """
    word = "#" + tag.removeprefix("#")
    known = value_of(word)
    if known is None or known[0] != "tag":
        raise ValueError(f"“{tag}” is not a valid tag: use letters, digits, _, - and /")
    line, line_break, notes = split(description)
    present = any(kind == "tag" and value == known[1] for _, _, kind, value in found_words(line))
    return description if present else _appended(line, word) + line_break + notes


def remove_tag(description: str, tag: str) -> str:
    """Take away a tag, given with or without `#`, wherever it stands in the first line."""
    line, line_break, notes = split(description)
    for start, end, kind, value in reversed(found_words(line)):
        if kind == "tag" and value == tag.removeprefix("#"):
            line = cut(line, start, end)
    return line + line_break + notes


def set_title(description: str, title: str) -> str:
    """Replace the title; its words are plain text, whatever they look like, and stand before all others.

    Line breaks in it become spaces.
    """
    line, line_break, notes = split(description)
    words = [escaped(word) for word in _LINE_BREAK.sub(" ", title).split(" ")]
    kept = [line[start:end] for start, end, _, _ in found_words(line)]
    return " ".join([*words, *kept]) + line_break + notes


def cut(line: str, start: int, end: int) -> str:
    """A line without a part of it, and without the space that would be left over."""
    before, after = line[:start], line[end:]
    if before.endswith(" ") and (not after or after.startswith(" ")):
        before = before[:-1]
    elif not before and after.startswith(" "):
        after = after[1:]
    return before + after


def _set(description: str, kind: PartKind, word: str | None) -> str:
    line, line_break, notes = split(description)
    spans = [(start, end) for start, end, found, _ in found_words(line) if found == kind]
    if word is None:
        # Another of the same kind, plain text until now, would count instead.
        while spans:
            line = cut(line, *spans[0])
            spans = [(start, end) for start, end, found, _ in found_words(line) if found == kind]
    elif spans:
        start, end = spans[0]
        line = line[:start] + word + line[end:]
    else:
        line = _appended(line, word)
    return line + line_break + notes


def _appended(line: str, word: str) -> str:
    return f"{line}{'' if not line or line[-1].isspace() else ' '}{word}"


def _title(line: str, found: list[tuple[int, int]]) -> str:
    if not found and "\\" not in line:
        return line
    rest = line
    for start, end in reversed(found):
        rest = rest[:start] + rest[end:]
    if not rest.strip():
        return line
    if found:
        rest = _SPACES.sub(" ", rest).strip()
    return "".join(plain(part) for part in re.split(r"(\s+)", rest)) if "\\" in rest else rest
