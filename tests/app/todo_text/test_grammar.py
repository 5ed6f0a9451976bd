"""What is typed, what is stored for it, and what that says."""

import subprocess
import sys
from datetime import date, datetime, time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.todo_text import (
    Due,
    Recurrence,
    add_tag,
    next_description,
    next_due,
    phrases_to_keep,
    read,
    remove_tag,
    set_due,
    set_priority,
    set_title,
    understand,
)

NOW = datetime(2026, 11, 26, 12, 0)  # noqa: DTZ001 -- local time; a Thursday

_WORDS = [
    "Pay",
    "rent",
    "today",
    "tom",
    "fri",
    "next",
    "week",
    "in",
    "2",
    "weeks",
    "3d",
    "15",
    "jan",
    "2027",
    "2026-12-01",
    "9am",
    "at",
    "9",
    "21:00",
    "p1",
    "p2",
    "p9",
    "#home",
    "#ñ",
    "every",
    "month",
    "other",
    "mon",
    "due:2026-12-01T09:00",
    "due:nonsense",
    "rec:1m",
    "rec:+2w",
    "\\p1",
    "\\\\p1",
    "\\",
    "\\#x",
    "#",
]
_LINES = st.lists(st.sampled_from(_WORDS) | st.text(max_size=4)).map(" ".join)
TEXTS = st.text() | _LINES | st.lists(_LINES, max_size=3).map("\n".join)


def test_the_example_of_the_quick_add_line():
    understood = understand("Pay rent tomorrow 9am p1 #home every month", NOW)
    assert understood.stored == "Pay rent due:2026-11-27T09:00 p1 #home rec:1m"
    assert [(part.kind, part.phrase) for part in understood.parts] == [
        ("due", "tomorrow"),
        ("due", "9am"),
        ("priority", "p1"),
        ("tag", "#home"),
        ("recurrence", "every month"),
    ]
    assert understood.preview == "due tomorrow at 09:00 · priority 1 · #home · every month"
    assert understood.reading.title == "Pay rent"


@pytest.mark.parametrize(
    ("typed", "due"),
    [
        ("today", "2026-11-26"),
        ("tod", "2026-11-26"),
        ("tom", "2026-11-27"),
        ("fri", "2026-11-27"),
        ("Thursday", "2026-12-03"),
        ("on monday", "2026-11-30"),
        ("next week", "2026-11-30"),
        ("next fri", "2026-12-04"),
        ("next month", "2026-12-01"),
        ("in 3d", "2026-11-29"),
        ("in 2 weeks", "2026-12-10"),
        ("2w", "2026-12-10"),
        ("in 3 months", "2027-02-26"),
        ("15 jan", "2027-01-15"),
        ("jan 15th", "2027-01-15"),
        ("15 jan 2028", "2028-01-15"),
        ("29 feb", "2028-02-29"),
        ("2026-12-01", "2026-12-01"),
        ("9am", "2026-11-27T09:00"),
        ("9:30", "2026-11-27T09:30"),
        ("21:00", "2026-11-26T21:00"),
        ("12 am", "2026-11-27T00:00"),
        ("at 9 tom", "2026-11-27T09:00"),
        ("12:00", "2026-11-27T12:00"),
        ("12:01", "2026-11-26T12:01"),
        ("every mon", "2026-11-30"),
    ],
)
def test_dates_in_plain_words(typed, due):
    assert understand(f"Call {typed}", NOW).stored.startswith(f"Call due:{due}")


def test_the_longest_phrase_is_read_to_its_end():
    assert understand("Call on 15 jan 2028", NOW).stored == "Call due:2028-01-15"


@pytest.mark.parametrize(
    "typed", ["31 feb", "9:70", "13pm", "in 9999 years", "2026-02-30", "at noon", "every", "p5", "#"]
)
def test_what_is_no_date_stays_text(typed):
    assert understand(f"Call {typed}", NOW).stored == f"Call {typed}"


@pytest.mark.parametrize(
    ("typed", "word"),
    [
        ("every day", "rec:1d"),
        ("every weekday", "rec:1b"),
        ("every 2 weeks", "rec:2w"),
        ("every other year", "rec:2y"),
        ("every 3m", "rec:3m"),
        ("rec:+1m", "rec:+1m"),
    ],
)
def test_repetitions_in_plain_words(typed, word):
    assert understand(f"Call {typed}", NOW).stored == f"Call {word}"


def test_what_is_rejected_stays_text():
    assert understand("Watch Friday tom", NOW, ["friday"]).stored == "Watch Friday due:2026-11-27"
    rejected = understand("Buy p1 cable", NOW, ["p1"])
    assert (rejected.stored, rejected.parts) == ("Buy \\p1 cable", ())
    assert (rejected.reading.title, rejected.reading.priority) == ("Buy p1 cable", None)


@pytest.mark.parametrize("text", ["tomorrow", "15 jan 2028", "every month", "due:2026-12-01"])
def test_a_title_that_is_only_a_date_keeps_its_words(text):
    understood = understand(text, NOW)
    assert understood.stored == text
    assert understood.reading.title == text


def test_the_first_of_two_due_words_counts():
    text = "Pay due:2026-12-01 rent due:2027-01-01T09:00"
    reading = read(text)
    assert reading.due == Due(date(2026, 12, 1))
    assert reading.title == "Pay rent due:2027-01-01T09:00"
    assert set_due(text, Due(date(2028, 2, 29))) == "Pay due:2028-02-29 rent due:2027-01-01T09:00"
    assert set_due(text, None) == "Pay rent"


def test_text_of_other_clients_is_shown_as_it_is():
    reading = read("due:nonsense p9")
    assert (reading.title, reading.due, reading.priority) == ("due:nonsense p9", None, None)


def test_one_part_is_changed_and_nothing_else():
    text = "Pay  rent due:2026-12-01 p1 #home\r\nnote p2"
    assert set_due(text, Due(date(2027, 1, 1), time(9))) == "Pay  rent due:2027-01-01T09:00 p1 #home\r\nnote p2"
    assert set_due(text, None) == "Pay  rent p1 #home\r\nnote p2"
    assert set_priority(text, 3) == "Pay  rent due:2026-12-01 p3 #home\r\nnote p2"
    assert add_tag(text, "work") == "Pay  rent due:2026-12-01 p1 #home #work\r\nnote p2"
    assert remove_tag(text, "home") == "Pay  rent due:2026-12-01 p1\r\nnote p2"
    assert set_title(text, "Buy p1") == "Buy \\p1 due:2026-12-01 p1 #home\r\nnote p2"


@pytest.mark.parametrize(
    ("due", "recurrence", "completed", "following"),
    [
        (date(2026, 1, 31), Recurrence(1, "m"), date(2026, 1, 31), date(2026, 2, 28)),
        (date(2024, 2, 29), Recurrence(1, "y"), date(2024, 2, 29), date(2025, 2, 28)),
        (date(2026, 1, 31), Recurrence(1, "m"), date(2026, 3, 1), date(2026, 3, 31)),
        (date(2026, 1, 31), Recurrence(1, "m", strict=True), date(2026, 5, 1), date(2026, 2, 28)),
        # Neglected so long that a step counted a few days too short would pass over the next one.
        (date(2000, 1, 31), Recurrence(1, "m"), date(2026, 11, 26), date(2026, 11, 30)),
        (date(2000, 11, 27), Recurrence(1, "m"), date(2026, 11, 26), date(2026, 11, 27)),
        (date(1, 1, 1), Recurrence(1, "y"), date(2026, 11, 26), date(2027, 1, 1)),
        (date(2026, 11, 27), Recurrence(1, "b"), date(2026, 11, 27), date(2026, 11, 30)),
        (None, Recurrence(3, "d"), date(2026, 11, 26), date(2026, 11, 29)),
        (date(2026, 12, 5), Recurrence(1, "w"), date(2026, 11, 26), date(2026, 12, 12)),
        (date.max, Recurrence(1, "d"), date(2026, 11, 26), None),
    ],
)
def test_when_a_to_do_comes_again(due, recurrence, completed, following):
    result = next_due(None if due is None else Due(due, None), recurrence, completed)
    assert result == (None if following is None else Due(following, None))


def test_the_next_of_a_recurring_to_do_keeps_all_else():
    assert next_description("Rent due:2026-12-01T09:00 p1 rec:1m\nnote", date(2026, 12, 1)) == (
        "Rent due:2027-01-01T09:00 p1 rec:1m\nnote"
    )
    assert next_description("Rent due:2026-12-01", date(2026, 12, 1)) is None


@given(TEXTS)
def test_parts_lie_in_the_text_and_do_not_overlap(text):
    end = 0
    for part in understand(text, NOW).parts:
        assert end <= part.start < part.end <= len(text)
        assert text[part.start : part.end] == part.phrase
        end = part.end


@given(TEXTS)
def test_what_is_stored_is_stored_again_after_editing(text):
    stored = understand(text, NOW).stored
    assert understand(stored, NOW, phrases_to_keep(stored, NOW)).stored == stored
    assert understand(text, NOW, phrases_to_keep(text, NOW)).stored == text


@given(TEXTS, st.sampled_from([None, 1, 4]), st.none() | st.dates().map(Due))
def test_what_is_set_is_read(text, priority, due):
    assert read(set_priority(text, priority)).priority == priority
    assert read(set_due(text, due)).due == due
    assert "x" in read(add_tag(text, "x")).tags
    assert "x" not in read(remove_tag(text, "x")).tags


def test_the_grammar_is_light():
    code = (
        "import sys, app.todo_text; print([n for n in ('pydantic', 'textual', 'httpx', 'sqlite3') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]"
