"""Views across lists, their counts, and orders: what SQL finds is what the words of a to-do say."""

from __future__ import annotations

import json
from datetime import date

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app import todo_text
from app.store import Arrangement, SmartView, Sort, Store, ViewCounts
from app.store.views import with_due
from sync import PowerSyncDatabase

from .test_store import first, todos_of

TODAY = date(2026, 3, 14)

WORDS = st.sampled_from(
    [
        "Pay",
        "due:2026-03-14",
        "due:2026-03-14T09:00",
        "due:2026-02-30",
        "due:2026-03-1",
        "due:2026-03-14T25:00",
        "due:2026-03-14x",
        "xdue:2026-03-14",
        "\\due:2026-03-14",
        "due:",
        "p1",
        "P2",
        "p12",
        "#p3",
        "\n",
        "\r",
        "\t",
    ]
)


async def texts(store: Store, view: SmartView | str, arrangement: Arrangement | None = None) -> list[str | None]:
    todos = await store.todos(view, arrangement=arrangement)
    return [todo.description for todo in todos]


async def filled(store: Store) -> tuple[str, str]:
    home, work = await store.edit.add_list("Home"), await store.edit.add_list("Work")
    await store.edit.add_todos(home, ["Rent due:2026-03-14T09:00", "Taxes due:2026-03-01 p1", "Paint"])
    work_ids = await store.edit.add_todos(work, ["Report due:2026-03-14", "Trip due:2026-04-01", "Old due:2026-03-13"])
    await store.edit.set_completed([work_ids[2]], completed=True)
    return home, work


async def test_views_across_lists(store: Store):
    await filled(store)
    assert await texts(store, SmartView.TODAY) == ["Report due:2026-03-14", "Rent due:2026-03-14T09:00"]
    assert await texts(store, SmartView.OVERDUE) == ["Taxes due:2026-03-01 p1"]
    assert await texts(store, SmartView.UPCOMING) == ["Trip due:2026-04-01"]
    assert await texts(store, SmartView.DONE) == ["Old due:2026-03-13"]
    assert len(await texts(store, SmartView.ALL)) == 5


async def test_to_dos_across_lists_tell_their_list(store: Store):
    home, _ = await filled(store)
    todos = await store.todos(SmartView.TODAY)
    assert [todo.list_name for todo in todos] == ["Work", "Home"]
    assert [todo.list_name for todo in await todos_of(store, home)] == [None] * 3


async def test_counts_of_the_views(store: Store):
    assert await first(store.watch_counts()) == ViewCounts()
    await filled(store)
    counts = await first(store.watch_counts())
    assert counts == ViewCounts(all=5, today=2, upcoming=1, overdue=1, done=1)
    assert [counts.of(view) for view in SmartView] == [5, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        (Sort.DUE, ["b due:2026-01-02 p2", "a due:2026-01-02T09:00", "D p1", "c"]),
        (Sort.PRIORITY, ["D p1", "b due:2026-01-02 p2", "c", "a due:2026-01-02T09:00"]),
        (Sort.NAME, ["a due:2026-01-02T09:00", "b due:2026-01-02 p2", "c", "D p1"]),
        (Sort.AGE, ["D p1", "c", "b due:2026-01-02 p2", "a due:2026-01-02T09:00"]),
        (Sort.MANUAL, ["D p1", "c", "b due:2026-01-02 p2", "a due:2026-01-02T09:00"]),
    ],
)
async def test_orders(store: Store, sort: Sort, order: list[str]):
    list_id = await store.edit.add_list("Home")
    ids = await store.edit.add_todos(list_id, ["done p1", "D p1", "c", "b due:2026-01-02 p2", "a due:2026-01-02T09:00"])
    await store.edit.set_completed(ids[:1], completed=True)
    assert await texts(store, list_id, Arrangement(sort)) == [*order, "done p1"]
    assert await texts(store, list_id, Arrangement(sort, shows_done=False)) == order


async def test_the_priority_that_sorts_is_the_one_that_the_words_say(store: Store):
    home = await store.edit.add_list("Home")
    descriptions = [
        "a",
        "b p12",
        "c xp1",
        "d #p1",
        "e \\p1",
        "f p3 p1",
        "g p3\nnote p1",
        "h p2\nnote",
        "i p4\r\nnote",
        "j\tp2\tnow",
        "p1 k",
        "P3 l",
        "\np1",
    ]
    await store.edit.add_todos(home, descriptions)
    by_words = sorted(descriptions, key=lambda description: todo_text.read(description).priority or 5)
    assert await texts(store, home, Arrangement(Sort.PRIORITY)) == by_words


async def test_arrangements_are_remembered_by_view(store: Store):
    list_id = await store.edit.add_list("Home")
    assert await store.arrangement(list_id) == Arrangement(Sort.MANUAL)
    assert (await store.arrangement(SmartView.TODAY)).sort is Sort.DUE
    for sort in (Sort.NAME, Sort.PRIORITY):
        await store.arrange(list_id, Arrangement(sort, shows_done=False))
        assert await store.arrangement(list_id) == Arrangement(sort, shows_done=False)
    assert (await store.arrangement(SmartView.TODAY)).sort is Sort.DUE


async def test_what_is_of_this_device_is_not_uploaded(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Home")
    one, two = await store.edit.add_todos(list_id, ["One", "Two"])
    before = (await database.upload_queue_stats()).entries
    await store.edit.place_todo(two, after=None, before=one)
    await store.arrange(list_id, Arrangement(Sort.NAME))
    assert (await database.upload_queue_stats()).entries == before > 0
    tables = {entry.table async for transaction in database.crud_transactions() for entry in transaction.crud}
    assert tables == {"lists", "todos"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=20))
@example(
    [
        "overdue:2026-03-14",
        "overdue:2026-03-13 due:2026-03-14",
        "Pay\tdue:2026-03-14\tnow",
        "Pay\n due:2026-03-14",
        "Pay\r due:2026-03-14",
        "Pay due:2026-03-14T09:00\n",
        "Pay due:2026-03-14T09:00x",
        "Pay due:2026-03-14T09:60",
        "Pay due:2026-03-14T24:00",
    ]
)
async def test_sql_finds_the_due_date_that_the_words_say(database: PowerSyncDatabase, descriptions: list[str]):
    rows = await database.get_all(
        with_due("SELECT value AS description FROM json_each(?)"),
        [json.dumps(descriptions)],
    )
    assert [row["due"] for row in rows] == [due_in_sql(description) for description in descriptions]


def due_in_sql(description: str) -> str | None:
    """What SQL takes for the due date: the first word that begins with `due:`. It hides later ones even if invalid."""
    lines = description.splitlines() or [""]
    due_words = [word for word in lines[0].split() if word.startswith("due:")]
    due = todo_text.read(due_words[0]).due if due_words else None
    return None if due is None else due.word.removeprefix("due:")


async def test_a_word_that_only_ends_like_a_due_date_is_none(store: Store):
    home = await store.edit.add_list("Home")
    await store.edit.add_todos(home, ["Pay overdue:2026-03-15 due:2026-03-13", "Book overdue:2026-03-13"])
    assert await texts(store, SmartView.OVERDUE) == ["Pay overdue:2026-03-15 due:2026-03-13"]
    assert await first(store.watch_counts()) == ViewCounts(all=2, overdue=1)
