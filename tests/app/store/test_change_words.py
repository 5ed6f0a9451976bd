"""Changes in the words of lists and to-dos."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from app.store.change_words import KnownTexts, concerns_the_user, describe_conflict, describe_entry
from sync import Conflict, CrudEntry

KNOWN = KnownTexts({("lists", "l"): "Home", ("todos", "t"): "Milk"})


@pytest.mark.parametrize(
    ("op", "table", "row_id", "data", "words"),
    [
        ("PUT", "lists", "new", {"name": "Work"}, "Add the list “Work”"),
        ("PATCH", "lists", "l", {"name": "House"}, "Rename the list “Home” to “House”"),
        ("PATCH", "lists", "l", {"owner_id": "x"}, "Change the list “Home”"),
        ("DELETE", "lists", "l", None, "Delete the list “Home”"),
        ("PUT", "todos", "new", {"description": "Eggs", "list_id": "l"}, "Add the to-do “Eggs” to “Home”"),
        ("PUT", "todos", "new", {"list_id": "gone"}, "Add the to-do (no text) to a list that no longer exists"),
        ("PATCH", "todos", "t", {"description": "Oat milk"}, "Change the to-do “Milk” to “Oat milk”"),
        ("PATCH", "todos", "t", {"completed": 1, "completed_by": "me"}, "Mark the to-do “Milk” as done"),
        ("PATCH", "todos", "t", {"completed": 0}, "Mark the to-do “Milk” as open"),
        ("PATCH", "todos", "t", {"list_id": "l"}, "Change the to-do “Milk”"),
        ("DELETE", "todos", "unknown", None, "Delete the to-do (no text)"),
        ("PATCH", "others", "o", {"a": 1}, "PATCH others o"),
    ],
)
def test_what_an_entry_does(
    op: Literal["PUT", "PATCH", "DELETE"], table: str, row_id: str, data: dict[str, Any] | None, words: str
):
    assert describe_entry(CrudEntry(1, 1, op, table, row_id, data), KNOWN) == words


@pytest.mark.parametrize(
    ("table", "row_id", "column", "mine", "theirs", "words"),
    [
        ("todos", "t", "description", "Oat milk", "Milk", ("Text of the to-do “Milk”", "“Oat milk”", "“Milk”")),
        ("lists", "l", "name", "House", None, ("Name of the list “Home”", "“House”", "(no text)")),
        ("todos", "t", "completed", 1, 0, ("Status of the to-do “Milk”", "done", "open")),
        ("todos", "t", "list_id", "l", None, ("list_id of the to-do “Milk”", "l", "None")),
        ("todos", "t", None, None, {"description": "Milk"}, ("The to-do “Milk”", "deleted", "kept")),
        ("others", "o", None, {"a": 1}, None, ("Others (no text)", "kept", "deleted")),
    ],
)
def test_what_a_conflict_is_about(
    table: str, row_id: str, column: str | None, mine: Any, theirs: Any, words: tuple[str, str, str]
):
    conflict = Conflict(1, table, row_id, column, mine, theirs, datetime(2026, 3, 14, tzinfo=UTC))
    assert describe_conflict(conflict, KNOWN) == words


@pytest.mark.parametrize(("column", "shown"), [("completed", True), (None, True), ("completed_at", False)])
def test_who_did_it_and_when_is_no_conflict_for_people(column: str | None, shown: bool):
    conflict = Conflict(1, "todos", "t", column, 1, 0, datetime(2026, 3, 14, tzinfo=UTC))
    assert concerns_the_user(conflict) is shown
