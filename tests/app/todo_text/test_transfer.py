"""Lists as text, and back."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.todo_text.transfer import READERS, WRITERS, ExportedList, ExportedTodo, TransferError

ODD = [
    "p1",
    "\\p1",
    "x done",
    "(A) call",
    "# no list",
    "- [ ] none",
    "2026-03-14 x",
    "list:a",
    "created:b",
    "\\",
    "\\n",
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [*ODD, "\\", "\\n", "a\n\nb", "a\r\nb", " b "]
)
STAMP = st.datetimes().map(lambda moment: moment.isoformat(timespec="milliseconds") + "Z")
TODOS = st.builds(ExportedTodo, TEXT, st.just(False), STAMP) | st.builds(
    ExportedTodo, TEXT, st.just(True), STAMP, STAMP
)
LISTS = st.lists(st.builds(ExportedList, TEXT, st.lists(TODOS, max_size=4)), max_size=4)


@pytest.mark.parametrize("name", ["json", "todo.txt"])
@given(lists=LISTS)
@settings(max_examples=300)
def test_nothing_is_lost(name: str, lists: list[ExportedList]):
    assert READERS[name](WRITERS[name](lists)) == lists


@given(lists=LISTS)
@settings(max_examples=300)
def test_markdown_loses_only_times(lists: list[ExportedList]):
    timeless = [
        ExportedList(each.name, [ExportedTodo(t.description, t.completed) for t in each.todos]) for each in lists
    ]
    assert READERS["markdown"](WRITERS["markdown"](lists)) == timeless


def test_the_todo_txt_of_another_program():
    text = "(A) 2026-03-01 Call mom +family @phone due:2026-03-14\nx 2026-03-02 2026-03-01 Buy milk\n\nPlain\r\n"
    (found,) = READERS["todo.txt"](text)
    assert found == ExportedList(
        "todo.txt",
        [
            ExportedTodo("Call mom +family @phone due:2026-03-14 p1", created_at="2026-03-01T00:00:00Z"),
            ExportedTodo("Buy milk", True, "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"),
            ExportedTodo("Plain"),
        ],
    )


def test_the_markdown_of_another_program():
    text = "Intro\n\n* [ ] First\n  more\n\n## Work\n- [X] Second\n- no box\n  - [ ] nested\n"
    assert READERS["markdown"](text) == [
        ExportedList("Markdown", [ExportedTodo("First\nmore")]),
        ExportedList("Work", [ExportedTodo("Second", True), ExportedTodo("nested")]),
    ]


def test_what_other_programs_can_read():
    lists = [ExportedList("Home", [ExportedTodo("Pay rent p1 #home", created_at="2026-03-14T09:00:00.000Z")])]
    assert WRITERS["todo.txt"](lists) == (
        "(A) 2026-03-14 Pay rent p1 #home list:Home created:2026-03-14T09%3A00%3A00.000Z\n"
    )
    assert WRITERS["markdown"](lists) == "# Home\n- [ ] Pay rent p1 #home\n"
    head, row = csv.reader(io.StringIO(WRITERS["csv"](lists)))
    assert dict(zip(head, row, strict=True)) | {"title": "Pay rent", "priority": "1", "tags": "home"} == dict(
        zip(head, row, strict=True)
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"lists": 1}',
        '{"lists": [{"name": 1, "todos": []}]}',
        "[" * 100_000,
        '{"lists": [{}]}',
        json.dumps({"lists": [{"name": "a", "todos": [{"text": "b", "completed": 1}]}]}),
    ],
)
def test_json_that_is_something_else_is_refused(text: str):
    with pytest.raises(TransferError, match=r"\.$"):
        READERS["json"](text)


@given(text=st.text())
def test_any_text_is_read_or_refused(text: str):
    for read in READERS.values():
        try:
            read(text)
        except TransferError:
            continue
