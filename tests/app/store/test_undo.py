"""Undoing and redoing, against a real database file."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from app import todo_text
from app.store import Store, Undone
from app.store.failures import StoreError
from app.store.journal import KEPT_STEPS, Journal, Step
from app.store.schema import APP_SCHEMA
from app.store.writes import MAX_ROWS
from sync import PowerSyncDatabase
from tests.app.conftest import NOW

from .test_store import lists_of, sizes_of_uploads, todos_of

Rows = list[tuple[object, ...]]


async def content(database: PowerSyncDatabase) -> tuple[Rows, Rows, Rows]:
    """All that undoing has to bring back."""
    lists, todos, positions = [
        [tuple(row) for row in await database.get_all(f"SELECT * FROM {table} ORDER BY id")]
        for table in ("lists", "todos", "todo_positions")
    ]
    return lists, todos, positions


async def filled(store: Store) -> tuple[str, list[str]]:
    list_id = await store.edit.add_list("Home")
    return list_id, await store.edit.add_todos(list_id, ["Milk p1", "Bread", "Rent due:2026-03-14 rec:1m"])


ACTIONS: dict[str, Callable[[Store, str, list[str]], Awaitable[object]]] = {
    "Added the list “Work”": lambda store, _list_id, _ids: store.edit.add_list("Work"),
    "Added the list “First steps”": lambda store, _list_id, _ids: store.edit.add_sample_list(),
    "Renamed the list to “House”": lambda store, list_id, _ids: store.edit.rename_list(list_id, "House"),
    "Deleted the list “Home”": lambda store, list_id, _ids: store.edit.delete_list(list_id),
    "Added “Eggs”": lambda store, list_id, _ids: store.edit.add_todo(list_id, "Eggs"),
    "Added 2 to-dos": lambda store, list_id, _ids: store.edit.add_todos(list_id, ["Eggs", "Salt"]),
    "Changed “Milk”": lambda store, _list_id, ids: store.edit.edit_todo(ids[0], "Oat milk"),
    "Completed “Milk”": lambda store, _list_id, ids: store.edit.set_completed(ids[:1], completed=True),
    "Completed 3 to-dos": lambda store, _list_id, ids: store.edit.set_completed(ids, completed=True),
    "Deleted 2 to-dos": lambda store, _list_id, ids: store.edit.delete_todos(ids[1:]),
    "Tagged 3 to-dos": lambda store, _list_id, ids: store.edit.change_texts(
        ids, lambda text: todo_text.add_tag(text, "x"), "Tagged"
    ),
    "Moved “Rent”": lambda store, _list_id, ids: store.edit.place_todo(ids[2], after=None, before=ids[0]),
}


@pytest.mark.parametrize("label", ACTIONS)
async def test_each_action_is_undone_and_redone(store: Store, database: PowerSyncDatabase, label: str):
    list_id, ids = await filled(store)
    before = await content(database)
    await ACTIONS[label](store, list_id, ids)
    after = await content(database)
    assert after != before
    assert await store.edit.undo() == Undone(label)
    assert await content(database) == before
    assert await store.edit.redo() == Undone(label)
    assert await content(database) == after
    assert await store.edit.redo() is None


async def test_moving_to_another_list_is_undone(store: Store, database: PowerSyncDatabase):
    list_id, ids = await filled(store)
    await store.edit.place_todo(ids[2], after=None, before=ids[0])
    work = await store.edit.add_list("Work")
    before = await content(database)
    assert await store.edit.move_todos(ids, work) == "Moved 3 to-dos"
    assert len(await todos_of(store, work)) == 3
    await store.edit.undo()
    assert await content(database) == before
    assert [todo.id for todo in await todos_of(store, list_id)] == [ids[2], ids[0], ids[1]]


async def test_a_recurring_to_do_makes_its_next_one_when_it_is_completed(store: Store):
    list_id, ids = await filled(store)
    await store.edit.set_completed(ids[2:], completed=True)
    todos = await todos_of(store, list_id)
    assert [todo.description for todo in todos if not todo.completed] == [
        "Milk p1",
        "Bread",
        "Rent due:2026-04-14 rec:1m",
    ]
    await store.edit.set_completed(ids[2:], completed=True)  # it is done already
    assert len(await todos_of(store, list_id)) == 4


async def test_there_is_nothing_to_undo_at_first(store: Store):
    assert await store.edit.undo() is None
    assert await store.edit.redo() is None


async def test_steps_are_undone_across_restarts(tmp_path: Path, store: Store, database: PowerSyncDatabase):
    _, ids = await filled(store)
    before = await content(database)
    await store.edit.delete_todos(ids)
    await database.close()
    async with PowerSyncDatabase(tmp_path / "todo.db", APP_SCHEMA) as again:
        other = Store(again, "user-1", database_connects, now=lambda: NOW)
        assert await other.edit.undo() == Undone("Deleted 3 to-dos")
        assert await content(again) == before
        assert all(other.edit.wrote_lately(row_id) for row_id in ids)


async def database_connects() -> None:
    """Reaches nothing."""


async def test_a_new_step_ends_what_could_be_redone(store: Store):
    list_id, _ = await filled(store)
    await store.edit.undo()
    await store.edit.add_todo(list_id, "Eggs")
    assert await store.edit.redo() is None
    assert await store.edit.undo() == Undone("Added “Eggs”")


async def test_the_last_hundred_steps_are_kept(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Home")
    for number in range(KEPT_STEPS + 5):
        await store.edit.add_todo(list_id, f"{number}")
    undone = 0
    while await store.edit.undo() is not None:
        undone += 1
    assert undone == KEPT_STEPS
    assert len(await todos_of(store, list_id)) == 5
    assert (await database.get("SELECT count(*) AS n FROM undo_journal"))["n"] == KEPT_STEPS


async def test_a_long_step_is_one_step_of_small_uploads(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Home")
    ids = await store.edit.add_todos(list_id, [f"{number} rec:1d" for number in range(3 * MAX_ROWS)])
    before = await content(database)
    assert await store.edit.set_completed(ids, completed=True) == f"Completed {len(ids):,} to-dos"
    assert len(await todos_of(store, list_id)) == 2 * len(ids)
    assert max(entries for entries, _ in await sizes_of_uploads(database)) <= MAX_ROWS
    assert await store.edit.undo() == Undone(f"Completed {len(ids):,} to-dos")
    assert await content(database) == before
    await store.edit.delete_list(list_id)
    assert await store.edit.undo() == Undone("Deleted the list “Home”")
    assert await content(database) == before


async def test_long_texts_are_changed_in_small_uploads(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Home")
    ids = await store.edit.add_todos(list_id, [f"{number} {'x' * 9_000}" for number in range(30)])
    await store.edit.delete_todos(ids[3:5])
    await store.edit.change_texts(ids, lambda text: todo_text.add_tag(text, "a"), "Tagged")
    assert all((todo.description or "").endswith("#a") for todo in await todos_of(store, list_id))
    assert max(size for _, size in await sizes_of_uploads(database)) < 100_000


async def test_a_text_that_would_be_too_long_is_refused(store: Store):
    list_id = await store.edit.add_list("Home")
    ids = await store.edit.add_todos(list_id, ["x" * 10_000])
    with pytest.raises(StoreError, match=r"^The to-do was not changed: a text would be longer than 10,000 characters"):
        await store.edit.change_texts(ids, lambda text: todo_text.add_tag(text, "a"))


async def test_what_others_changed_since_stays(store: Store, database: PowerSyncDatabase):
    list_id, ids = await filled(store)
    await store.edit.change_texts(ids[:2], lambda text: text + " #a", "Tagged")
    await database.execute("UPDATE todos SET description = 'Theirs' WHERE id = ?", [ids[0]])
    assert await store.edit.undo() == Undone("Tagged 2 to-dos", kept=1)
    assert [todo.description for todo in await todos_of(store, list_id)][:2] == ["Theirs", "Bread"]


async def test_a_to_do_does_not_come_back_to_a_list_that_is_gone(store: Store, database: PowerSyncDatabase):
    list_id, ids = await filled(store)
    await store.edit.delete_todos(ids[:1])
    await database.execute("DELETE FROM lists WHERE id = ?", [list_id])
    assert await store.edit.undo() == Undone("Deleted “Milk”", kept=1)


@pytest.mark.parametrize("change", ["description = 'Theirs'", "completed = 1", "list_id = 'theirs'"])
async def test_what_was_added_stays_if_others_changed_it_since(store: Store, database: PowerSyncDatabase, change: str):
    list_id, _ = await filled(store)
    todo_id = await store.edit.add_todo(list_id, "Eggs")
    await database.execute(f"UPDATE todos SET {change} WHERE id = ?", [todo_id])
    before = await content(database)
    assert await store.edit.undo() == Undone("Added “Eggs”", kept=1)
    assert await content(database) == before


async def test_what_a_backend_writes_of_its_own_is_no_change_of_others(store: Store, database: PowerSyncDatabase):
    _, ids = await filled(store)
    before = await content(database)
    await store.edit.set_completed(ids[:1], completed=True)
    await database.execute("UPDATE todos SET completed_at = '2026-03-14 09:26:54+00' WHERE id = ?", [ids[0]])
    assert await store.edit.undo() == Undone("Completed “Milk”")
    assert await content(database) == before


async def test_what_others_made_again_stays(store: Store, database: PowerSyncDatabase):
    list_id, ids = await filled(store)
    await store.edit.delete_todos(ids[:1])
    sql = "INSERT INTO todos (id, list_id, description) VALUES (?, ?, 'Theirs')"
    await database.execute(sql, [ids[0], list_id])
    before = await content(database)
    assert await store.edit.undo() == Undone("Deleted “Milk”", kept=1)
    assert await content(database) == before


async def test_a_to_do_is_not_moved_back_to_a_list_that_is_gone(store: Store, database: PowerSyncDatabase):
    list_id, ids = await filled(store)
    work = await store.edit.add_list("Work")
    await store.edit.move_todos(ids[:1], work)
    await database.execute("DELETE FROM lists WHERE id = ?", [list_id])
    assert await store.edit.undo() == Undone("Moved “Milk”", kept=1)
    assert [todo.id for todo in await todos_of(store, work)] == ids[:1]


async def test_the_transactions_of_a_step_are_redone_in_their_order(database: PowerSyncDatabase):
    journal, step = Journal(database, lambda _: None), Step("Made a list")
    await journal.record(step, lambda recording: recording.insert("lists", [{"id": "l", "name": "Home"}]))
    todo = {"id": "t", "list_id": "l", "description": "Milk"}
    await journal.record(step, lambda recording: recording.insert("todos", [todo]))
    made = await content(database)
    assert await journal.undo() == await journal.redo() == Undone("Made a list")
    assert await content(database) == made


async def test_what_stays_is_counted_over_all_transactions_of_a_step(database: PowerSyncDatabase):
    journal, step = Journal(database, lambda _: None), Step("Made lists")
    for row_id in "ab":
        row = {"id": row_id, "name": "Home"}
        await journal.record(step, lambda recording, row=row: recording.insert("lists", [row]))
    await database.execute("UPDATE lists SET name = 'Theirs'")
    assert await journal.undo() == Undone("Made lists", kept=2)


async def test_what_is_gone_already_is_no_step(store: Store):
    _, ids = await filled(store)
    await store.edit.delete_todos(ids)
    assert await store.edit.delete_todos(ids) == ""
    assert await store.edit.set_completed(ids, completed=True) == ""
    assert await store.edit.undo() == Undone("Deleted 3 to-dos")


@pytest.mark.parametrize("seed", range(6))
async def test_any_sequence_is_undone_and_redone_as_a_whole(store: Store, database: PowerSyncDatabase, seed: int):
    chance = random.Random(seed)
    await filled(store)
    await filled(store)
    states = [await content(database)]
    for _ in range(30):
        lists = [each.id for each in await lists_of(store)]
        if not lists:
            break
        ids = [row["id"] for row in await database.get_all("SELECT id FROM todos ORDER BY id")]
        some = chance.sample(ids, min(len(ids), chance.randint(1, 4)))
        target = chance.choice(lists)
        match chance.randrange(8):
            case 0:
                await store.edit.add_todos(target, ["New p1", "Newer rec:2d"])
            case 1:
                await store.edit.delete_todos(some)
            case 2 | 3:
                await store.edit.set_completed(some, completed=chance.random() < 0.7)
            case 4:
                await store.edit.move_todos(some, target)
            case 5:
                await store.edit.change_texts(some, lambda text: todo_text.set_priority(text, 2))
            case 6:
                if len(some) > 1:
                    await store.edit.place_todo(some[0], after=some[1], before=None)
            case _:
                if chance.random() < 0.2:
                    await store.edit.delete_list(target)
        state = await content(database)
        if state != states[-1]:
            states.append(state)
    for state in reversed(states[:-1]):
        assert await store.edit.undo() is not None
        assert await content(database) == state
    for state in states[1:]:
        assert await store.edit.redo() is not None
        assert await content(database) == state


async def test_the_places_of_a_list_that_was_moved_about(store: Store):
    chance = random.Random(1)
    list_id = await store.edit.add_list("Home")
    order = await store.edit.add_todos(list_id, [f"{number}" for number in range(12)])
    for _ in range(60):
        moved = chance.choice(order)
        order.remove(moved)
        index = chance.randrange(len(order) + 1)
        after = order[index - 1] if index else None
        before = order[index] if index < len(order) else None
        order.insert(index, moved)
        await store.edit.place_todo(moved, after=after, before=before)
        assert [todo.id for todo in await todos_of(store, list_id)] == order


async def test_neighbours_made_in_the_same_moment_make_room(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Home")
    ids = sorted(await store.edit.add_todos(list_id, ["a", "b", "c", "d"]))
    await database.execute("UPDATE todos SET created_at = '2026-01-01'")
    await store.edit.place_todo(ids[3], after=ids[0], before=ids[1])
    assert [todo.id for todo in await todos_of(store, list_id)] == [ids[0], ids[3], ids[1], ids[2]]


async def test_two_processes_share_the_journal(tmp_path: Path, store: Store, database: PowerSyncDatabase):
    _, ids = await filled(store)
    before = await content(database)
    async with PowerSyncDatabase(tmp_path / "todo.db", APP_SCHEMA) as again:
        other = Store(again, "user-1", database_connects, now=lambda: NOW)
        await asyncio.gather(store.edit.delete_todos(ids[:1]), other.edit.delete_todos(ids[1:2]))
        labels = {(await store.edit.undo() or Undone("")).label, (await other.edit.undo() or Undone("")).label}
    assert labels == {"Deleted “Milk”", "Deleted “Bread”"}
    assert await content(database) == before
