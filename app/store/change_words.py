"""Changes of rows, described as what a person did to lists and to-dos.

Owns this wording only: pure functions of entries of the upload queue and of what is known about their rows. The texts
of lists and to-dos are in it as they are; whoever shows them makes them harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sync import Conflict, CrudEntry

_NO_TEXT: Final = "(no text)"
_TEXT_COLUMNS: Final = {"lists": "name", "todos": "description"}
_TEXT_NAMES: Final = {"lists": "Name", "todos": "Text"}
_BOOKKEEPING: Final = {"created_at", "created_by", "completed_at", "completed_by", "owner_id"}
_THINGS: Final = {"lists": "the list", "todos": "the to-do"}


@dataclass(frozen=True, slots=True)
class KnownTexts:
    """What lists and to-dos are called, as far as this device knows.

    Attributes:
        texts: names and descriptions, by table and id of the row.
    """

    texts: Mapping[tuple[str, str], str]

    def of(self, table: str, row_id: str) -> str | None:
        """The text of a row, or None if it is not known."""
        return self.texts.get((table, row_id))


def counted(count: int) -> str:
    """A number of changes, in words."""
    return "1 change" if count == 1 else f"{count:,} changes"


def describe_entry(entry: CrudEntry, known: KnownTexts) -> str:
    """What an entry does, as a phrase that begins with a verb."""
    if entry.table not in _TEXT_COLUMNS:
        return f"{entry.op} {entry.table} {entry.id}"
    data = entry.data or {}
    before, after = known.of(entry.table, entry.id), data.get(_TEXT_COLUMNS[entry.table])
    thing = f"{_THINGS[entry.table]} {_quoted(before if entry.op != 'PUT' else after)}"
    if entry.op == "DELETE":
        return f"Delete {thing}"
    if entry.op == "PUT":
        return f"Add {thing}{_to_list(entry, known) if entry.table == 'todos' else ''}"
    if entry.table == "lists":
        return f"Rename {thing} to {_quoted(after)}" if "name" in data else f"Change {thing}"
    if "description" in data:
        return f"Change {thing} to {_quoted(after)}"
    if "completed" in data:
        return f"Mark {thing} as done" if data["completed"] else f"Mark {thing} as open"
    return f"Change {thing}"


def describe_conflict(conflict: Conflict, known: KnownTexts) -> tuple[str, str, str]:
    """What a conflict is about, what was written here, and what is there instead."""
    thing = _THINGS.get(conflict.table, conflict.table)
    row = f"{thing} {_quoted(known.of(conflict.table, conflict.row_id))}"
    if conflict.column is None:
        mine, theirs = ("deleted" if side is None else "kept" for side in (conflict.mine, conflict.theirs))
        return row[:1].upper() + row[1:], mine, theirs
    if conflict.column == _TEXT_COLUMNS.get(conflict.table):
        return f"{_TEXT_NAMES[conflict.table]} of {row}", _quoted(conflict.mine), _quoted(conflict.theirs)
    if conflict.column == "completed":
        mine, theirs = ("done" if side else "open" for side in (conflict.mine, conflict.theirs))
        return f"Status of {row}", mine, theirs
    return f"{conflict.column} of {row}", str(conflict.mine), str(conflict.theirs)


def concerns_the_user(conflict: Conflict) -> bool:
    """Whether a conflict is about something that is shown, and not about who did it and when."""
    return conflict.column not in _BOOKKEEPING


def text_column(table: str) -> str:
    """The column with the text of a row."""
    return _TEXT_COLUMNS[table]


def text_of(table: str, values: Mapping[str, Any] | None) -> str | None:
    """The text of a row, among its values; None if it is not there."""
    text = (values or {}).get(_TEXT_COLUMNS.get(table, ""))
    return text if isinstance(text, str) else None


def _to_list(entry: CrudEntry, known: KnownTexts) -> str:
    name = known.of("lists", str((entry.data or {}).get("list_id")))
    return " to a list that no longer exists" if name is None else f" to {_quoted(name)}"


def _quoted(text: object) -> str:
    return f"“{text}”" if text else _NO_TEXT
