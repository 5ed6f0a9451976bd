"""The store, against a real database file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.store import SAMPLE_TODOS, SUBSCRIPTION_TTL, Store, Todo, TodoList, first_line
from app.store.failures import StoreError
from app.store.schema import APP_SCHEMA
from app.store.writes import MAX_CHARACTERS, MAX_ROWS
from sync import PowerSyncDatabase
from tests.app.conftest import NOW

T = TypeVar("T")


async def first(results: AsyncIterator[T], accepted: Callable[[T], bool] = lambda _: True) -> T:
    """The first result that is accepted."""
    async with asyncio.timeout(10), aclosing(results):
        async for result in results:
            if accepted(result):
                return result
    raise AssertionError("the watch ended early")


async def lists_of(store: Store) -> list[TodoList]:
    return await first(store.watch_lists())


async def todos_of(store: Store, list_id: str) -> list[Todo]:
    return await store.todos(list_id)


async def test_a_new_database_has_no_lists(store: Store):
    assert await lists_of(store) == []


async def test_a_list_is_added_with_owner_and_time(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Groceries")
    assert await lists_of(store) == [TodoList(list_id, "Groceries", "2026-03-14T09:26:53.000Z", 0, 0)]
    assert (await database.get("SELECT owner_id FROM lists"))["owner_id"] == "user-1"


async def test_lists_come_in_the_order_in_which_they_were_made(store: Store):
    names = ["c", "a", "b"]
    for name in names:
        await store.edit.add_list(name)
    assert [todo_list.name for todo_list in await lists_of(store)] == names


async def test_a_store_knows_what_it_wrote_itself(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Groceries")
    await database.execute("INSERT INTO todos (id, list_id) VALUES ('theirs', ?)", [list_id])
    assert store.edit.wrote_lately(list_id)
    assert not store.edit.wrote_lately("theirs")


async def test_whatever_is_not_zero_is_completed(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Groceries")
    await database.execute(
        "INSERT INTO todos (id, list_id, completed) VALUES ('a', ?1, 2), ('b', ?1, 0), ('c', ?1, NULL)", [list_id]
    )
    assert [(each.open_count, each.done_count) for each in await lists_of(store)] == [(2, 1)]


async def test_counts_follow_the_todos(store: Store):
    list_id = await store.edit.add_list("Groceries")
    await store.edit.add_list("Empty")
    milk, _ = await store.edit.add_todos(list_id, ["Milk", "Bread"])
    await store.edit.set_completed([milk], completed=True)
    assert [(x.open_count, x.done_count) for x in await lists_of(store)] == [(1, 1), (0, 0)]


async def test_a_list_is_renamed(store: Store):
    list_id = await store.edit.add_list("Grocries")
    await store.edit.rename_list(list_id, "Groceries")
    assert [x.name for x in await lists_of(store)] == ["Groceries"]


async def test_deleting_a_list_takes_its_todos_in_one_transaction(store: Store, database: PowerSyncDatabase):
    kept = await store.edit.add_list("Kept")
    await store.edit.add_todo(kept, "Stay")
    gone = await store.edit.add_list("Gone")
    await store.edit.add_todos(gone, ["One", "Two"])
    await store.edit.delete_list(gone)
    assert [x.id for x in await lists_of(store)] == [kept]
    assert [row["description"] for row in await database.get_all("SELECT description FROM todos")] == ["Stay"]
    transactions = [transaction async for transaction in database.crud_transactions()]
    assert len(transactions[-1].crud) == 3


async def sizes_of_uploads(database: PowerSyncDatabase) -> list[tuple[int, int]]:
    """Entries and bytes of each transaction that waits for upload, as one request."""
    return [
        (len(transaction.crud), len(json.dumps([[e.op, e.table, e.id, e.data] for e in transaction.crud]).encode()))
        async for transaction in database.crud_transactions()
    ]


@pytest.mark.parametrize(
    ("count", "text"), [(5000, "line"), (100, "x" * 10_000), (60, "\x01" * 9_999)], ids=["many", "long", "escaped"]
)
async def test_very_many_todos_are_small_uploads_in_order(
    store: Store, database: PowerSyncDatabase, count: int, text: str
):
    list_id = await store.edit.add_list("Long")
    texts = [f"{number}" if text == "line" else text for number in range(count)]
    todo_ids = await store.edit.add_todos(list_id, texts)
    assert [(todo.id, todo.description) for todo in await todos_of(store, list_id)] == list(
        zip(todo_ids, texts, strict=True)
    )
    sizes = await sizes_of_uploads(database)
    assert sum(entries for entries, _ in sizes) == count + 1
    assert max(entries for entries, _ in sizes) <= MAX_ROWS
    assert max(size for _, size in sizes) < 100_000


@pytest.mark.parametrize("count", [0, MAX_ROWS - 1, MAX_ROWS, 1000])
async def test_deleting_a_long_list_is_small_uploads_the_list_last(
    store: Store, database: PowerSyncDatabase, count: int
):
    list_id = await store.edit.add_list("Long")
    await store.edit.add_todos(list_id, [f"{number}" for number in range(count)])
    before = len(await sizes_of_uploads(database))
    await store.edit.delete_list(list_id)
    assert await lists_of(store) == []
    assert await database.get_all("SELECT id FROM todos") == []
    uploads = [transaction.crud async for transaction in database.crud_transactions()][before:]
    assert sum(len(crud) for crud in uploads) == count + 1
    assert max(len(crud) for crud in uploads) <= MAX_ROWS
    assert uploads[-1][-1].table == "lists"
    assert len(uploads) == count // MAX_ROWS + 1


async def test_long_texts_are_refused_but_may_be_shortened(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Groceries")
    long = "x" * (MAX_CHARACTERS + 1)
    too_long = r": a text is longer than 10,000 characters; please shorten it\.$"
    with pytest.raises(StoreError, match=too_long):
        await store.edit.add_todos(list_id, ["short", long])
    with pytest.raises(StoreError, match=too_long):
        await store.edit.add_list(long)
    with pytest.raises(StoreError, match=too_long):
        await store.edit.rename_list(list_id, long)
    assert await todos_of(store, list_id) == []
    await database.execute("INSERT INTO todos (id, list_id, description) VALUES ('t', ?, ?)", [list_id, f"abc\n{long}"])
    with pytest.raises(StoreError, match=too_long):
        await store.edit.edit_first_line("t", "abcd")
    await store.edit.edit_first_line("t", "a")
    assert [todo.description for todo in await todos_of(store, list_id)] == [f"a\n{long}"]


@pytest.mark.parametrize("rest", ["", "\nsecond", "\r\nsecond\nthird", "\rsecond"])
async def test_editing_the_first_line_keeps_the_others(store: Store, rest: str):
    list_id = await store.edit.add_list("Groceries")
    todo_id = await store.edit.add_todo(list_id, f"Milk{rest}")
    await store.edit.edit_first_line(todo_id, "Tea")
    assert [todo.description for todo in await todos_of(store, list_id)] == [f"Tea{rest}"]


@given(st.text(st.sampled_from("a\r\n")))
def test_the_first_line_and_the_rest_make_the_whole(text: str):
    head, rest = first_line(text)
    assert head + rest == text
    assert "\n" not in head
    assert "\r" not in head
    assert rest[:1] in {"", "\r", "\n"}


@asynccontextmanager
async def held(database: PowerSyncDatabase, sql: str) -> AsyncGenerator[None]:
    """Hold the writer in another task; the statement that it runs is committed at the end."""
    begun, release = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with database.write_transaction() as transaction:
            await transaction.execute(sql)
            begun.set()
            await release.wait()

    holding = asyncio.create_task(hold())
    await begun.wait()
    try:
        yield
    finally:
        release.set()
        await holding


async def test_a_write_goes_on_when_nobody_waits_for_it_any_more(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Groceries")
    assert await store.flush(0) == 0
    async with held(database, "SELECT 1"):
        store.edit.add_todo(list_id, "Milk").cancel()
        assert await store.flush(0.01) == 1
    assert await store.flush(5) == 0
    assert [todo.description for todo in await todos_of(store, list_id)] == ["Milk"]


async def test_flush_counts_what_failed_meanwhile(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Groceries")
    async with held(database, "DELETE FROM lists"):
        store.edit.add_todo(list_id, "Milk").cancel()
        flushing = asyncio.create_task(store.flush(5))
        await asyncio.sleep(0)
    assert await flushing == 1


async def test_todos_added_together_keep_their_order(store: Store):
    list_id = await store.edit.add_list("Groceries")
    await store.edit.add_todos(list_id, list("zyxabc"))
    assert [todo.description for todo in await todos_of(store, list_id)] == list("zyxabc")


async def test_completed_todos_come_last_the_latest_first(store: Store):
    list_id = await store.edit.add_list("Groceries")
    a, b, _, d = await store.edit.add_todos(list_id, ["a", "b", "c", "d"])
    for todo_id in (b, a, d):
        await store.edit.set_completed([todo_id], completed=True)
    assert [todo.description for todo in await todos_of(store, list_id)] == ["c", "d", "a", "b"]


async def test_completing_notes_when_and_by_whom_and_opening_again_clears_it(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Groceries")
    todo_id = await store.edit.add_todo(list_id, "Milk")
    columns = "SELECT completed, completed_at, completed_by, created_by FROM todos"
    assert tuple(await database.get(columns)) == (0, None, None, "user-1")
    await store.edit.set_completed([todo_id], completed=True)
    assert tuple(await database.get(columns)) == (1, "2026-03-14T09:26:53.002Z", "user-1", "user-1")
    await store.edit.set_completed([todo_id], completed=False)
    assert tuple(await database.get(columns)) == (0, None, None, "user-1")


async def test_a_todo_is_edited_and_deleted(store: Store):
    list_id = await store.edit.add_list("Groceries")
    todo_id = await store.edit.add_todo(list_id, "Mlik")
    await store.edit.edit_todo(todo_id, "Milk")
    assert [todo.description for todo in await todos_of(store, list_id)] == ["Milk"]
    await store.edit.delete_todos([todo_id])
    assert await todos_of(store, list_id) == []


async def test_unchanged_rows_stay_the_same_objects(store: Store):
    list_id = await store.edit.add_list("Groceries")
    milk, _ = await store.edit.add_todos(list_id, ["Milk", "Bread"])
    async with asyncio.timeout(10), aclosing(store.watch_view(list_id)) as reads:
        before = (await anext(reads)).todos
        await store.edit.edit_todo(milk, "Oat milk")
        after = (await anext(reads)).todos
    assert after[1] is before[1]
    assert after[0] is not before[0]


async def test_a_watch_tells_what_another_process_wrote(store: Store, tmp_path: Path):
    list_id = await store.edit.add_list("Groceries")
    async with asyncio.timeout(10), aclosing(store.watch_view(list_id)) as reads:
        assert (await anext(reads)).todos == []
        async with PowerSyncDatabase(tmp_path / "todo.db", APP_SCHEMA) as other:
            await Store(other, "user-1", _never, now=lambda: NOW).edit.add_todo(list_id, "Milk")
            assert [todo.description for todo in (await anext(reads)).todos] == ["Milk"]


async def _never() -> None:
    raise AssertionError("nobody connects here")


async def test_rows_with_missing_or_unknown_fields_are_shown(store: Store, database: PowerSyncDatabase):
    await database.execute("INSERT INTO lists (id) VALUES ('l')")
    await database.execute("INSERT INTO todos (id, list_id, completed) VALUES ('t', 'l', NULL)")
    await database.execute("INSERT INTO todos (id, list_id, completed, created_at) VALUES ('u', 'l', 7, 'once')")
    assert await lists_of(store) == [TodoList("l", None, None, 1, 1)]
    assert await todos_of(store, "l") == [
        Todo("t", "l", None, completed=False, created_at=None, completed_at=None),
        Todo("u", "l", None, completed=True, created_at="once", completed_at=None),
    ]


async def test_the_sample_list_explains_the_app(store: Store):
    list_id = await store.edit.add_sample_list()
    assert tuple(todo.description for todo in await todos_of(store, list_id)) == SAMPLE_TODOS


async def test_what_was_deleted_elsewhere_is_not_written_silently(store: Store):
    with pytest.raises(StoreError, match=r"^The to-do was not changed: it has been deleted\.$"):
        await store.edit.edit_todo("gone", "text")
    with pytest.raises(StoreError, match=r"^The list was not renamed: it has been deleted\.$"):
        await store.edit.rename_list("gone", "name")
    with pytest.raises(StoreError, match=r"^The to-do was not added: the list has been deleted\.$"):
        await store.edit.add_todo("gone", "text")
    with pytest.raises(StoreError, match=r"^The to-dos were not added: the list has been deleted\.$"):
        await store.edit.add_todos("gone", ["one", "two"])


async def test_a_full_disk_is_one_sentence_and_changes_nothing(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Groceries")
    await database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreError, match=r"^The to-do was not added: the disk is full\.$"):
        await store.edit.add_todo(list_id, "x" * 10_000)
    await database.execute("PRAGMA max_page_count = 1000000")
    assert await todos_of(store, list_id) == []


async def test_a_closed_database_is_one_sentence_and_ends_the_watches(tmp_path: Path):
    database = PowerSyncDatabase(tmp_path / "other.db", APP_SCHEMA)
    await database.open()
    store = Store(database, "user-1", _never, now=lambda: NOW)
    list_id = await store.edit.add_list("Groceries")
    async with asyncio.timeout(10):
        lists = store.watch_lists()
        await anext(lists)
        keeping = asyncio.create_task(store.keep_subscribed())
        await first(store.watch_status(), lambda status: len(status.streams) == 1)
        await database.close()
        assert [result async for result in lists] == []
        await keeping
    with pytest.raises(StoreError, match=r"^The to-do was not added: the database is closed\.$"):
        await store.edit.add_todo(list_id, "Milk")


async def test_every_known_list_is_subscribed_the_open_one_first(store: Store, database: PowerSyncDatabase):
    a, b = [await store.edit.add_list(name) for name in "ab"]
    store.prioritize_list(b)
    keeping = asyncio.create_task(store.keep_subscribed())
    await first(store.watch_status(), lambda status: len(status.streams) == 2)
    c = await store.edit.add_list("c")
    await first(store.watch_status(), lambda status: len(status.streams) == 3)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    rows = await database.get_all("SELECT local_params, ttl FROM ps_stream_subscriptions ORDER BY id")
    assert [json.loads(row["local_params"]) for row in rows] == [{"list": list_id} for list_id in (b, a, c)]
    assert {row["ttl"] for row in rows} == {int(SUBSCRIPTION_TTL.total_seconds())}


async def test_connect_calls_what_it_was_given_and_disconnect_is_idempotent(store: Store, connects: list[str]):
    await store.connect()
    assert connects == ["connect"]
    await store.disconnect()
    await store.disconnect()
    assert not store.status.wanted
