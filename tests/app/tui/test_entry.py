"""The field in which texts are typed: what it shows, what it stores, and that nothing typed is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from textual import events

from app.store import Store
from app.store.writes import MAX_CHARACTERS, MAX_ROWS
from sync import PowerSyncDatabase

from .harness import filled, running


async def test_a_paste_of_several_lines_adds_several_todos(store: Store):
    await store.edit.add_list("Groceries")
    async with running(store) as run:
        await run.press("a", *"Oat ")
        run.app.post_message(events.Paste("milk\r\n\n  Bread\x1b[31m\nTea\n"))
        await run.until(lambda: run.texts == ["Oat milk", "Bread␛[31m", "Tea"])
        assert run.field.value == ""
        run.app.post_message(events.Paste("one line\n"))
        await run.until(lambda: run.field.value == "one line")
        assert len(run.texts) == 3


async def test_a_paste_into_an_edit_stays_one_text(store: Store):
    list_id = await store.edit.add_list("Groceries")
    await store.edit.add_todo(list_id, "Buy: ")
    async with running(store) as run:
        await run.press("right", "e")
        run.app.post_message(events.Paste("milk\nbread"))
        await run.until(lambda: run.field.value == "Buy: milk bread")


async def test_editing_keeps_the_lines_after_the_first(store: Store):
    list_id = await store.edit.add_list("Groceries")
    await store.edit.add_todo(list_id, "Milk\nthe fresh one\nor none")
    async with running(store) as run:
        await run.press("right", "e")
        assert run.field.value == "Milk"
        await run.press(*"!", "enter")
        await run.until(lambda: run.texts == ["Milk!\nthe fresh one\nor none"])


async def test_a_todo_cannot_lose_its_text_by_editing(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("right", "e", "ctrl+u", "enter")
        await run.until(lambda: run.toasts == ["Type some text, or press esc to cancel."])
        assert run.entry.is_open


async def test_letters_are_letters_while_typing(store: Store):
    await store.edit.add_list("Groceries")
    async with running(store) as run:
        await run.press("a", *"qdcL?asx jk")
        assert run.field.value == "qdcL?asx jk"
        assert run.keys_text.strip() == "enter Save  esc Close"


async def test_a_half_typed_text_is_not_lost_to_another_request(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("a", *"half")
        await run.pilot.click(run.lists, offset=(6, 5))
        assert run.lists.has_focus
        await run.press("e")
        await run.until(lambda: run.toasts == ["Save this text first, or press esc to discard it."])
        assert run.field.value == "half"
        assert run.field.has_focus


async def test_a_text_that_could_not_be_stored_comes_back(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Groceries")
    await store.edit.add_todo(list_id, "Tea")
    async with running(store) as run:
        await run.press("a")
        await database.execute("PRAGMA max_page_count = 1")
        run.field.value = "x" * 10_000
        await run.press("enter")
        await run.until(lambda: run.toasts == ["The to-do was not added: the disk is full."])
        assert run.field.value == "x" * 10_000
        await database.execute("PRAGMA max_page_count = 1000000")
        run.field.value = "Milk"
        await run.press("enter")
        await run.until(lambda: run.texts == ["Tea", "Milk"])
        assert run.field.value == ""


async def test_an_edit_that_could_not_be_stored_stays_open(store: Store):
    ids = await filled(store)
    async with running(store) as run:
        await run.press("right", "e", *"!")
        await store.edit.delete_todos([ids["Milk"]])
        await run.press("enter")
        await run.until(lambda: run.toasts == ["The to-do was not changed: it has been deleted."])
        assert run.entry.is_open
        assert run.field.value == "Milk!"


async def test_pasted_lines_that_could_not_be_stored_come_back_as_lines(store: Store):
    list_id = await store.edit.add_list("Groceries")
    other = await store.edit.add_list("Other")
    async with running(store) as run:
        await run.press("a")
        await store.edit.delete_list(list_id)
        await run.until(lambda: run.names == ["Other"])
        run.app.post_message(events.Paste("Milk\nTea"))
        await run.until(lambda: run.toasts == ["The to-dos were not added: the list has been deleted."])
        assert run.field.text == "Milk\nTea"
        assert run.field.render_line(0).text.startswith("Milk↵Tea")
        assert run.lists.selected_id == other


ODD_TEXTS = ["Buy milk", "a\tb", "  indented", "press ↵ to go on", "\x1b[31mred\x07", "\U00100000 icon", "a\u2028b"]


@pytest.mark.parametrize("rest", ["", "\r\nsecond", "\rsecond", "\nsecond\r\nthird"])
@pytest.mark.parametrize("text", ODD_TEXTS)
async def test_editing_alters_nothing_but_what_was_typed(store: Store, text: str, rest: str):
    await store.edit.add_todos(await store.edit.add_list("Groceries"), [text + rest])
    async with running(store) as run:
        await run.press("right", "e", "!", "enter")
        await run.until(lambda: run.texts == [f"{text}!{rest}"])


async def test_renaming_alters_nothing_but_what_was_typed(store: Store):
    await store.edit.add_list("Home\nOffice\r\n\tShed")
    async with running(store) as run:
        await run.press("e")
        assert run.field.render_line(0).text.startswith("Home↵Office↵⇥Shed")
        await run.press("!", "enter")
        await run.until(lambda: run.names == ["Home\nOffice\r\n\tShed!"])


async def test_a_text_may_have_the_sign_that_stands_for_a_line_break(store: Store):
    await store.edit.add_list("Groceries")
    async with running(store) as run:
        await run.press("a")
        run.app.post_message(events.Paste("press ↵ to go on"))
        await run.until(lambda: bool(run.field.value))
        await run.press("enter")
        await run.until(lambda: run.texts == ["press ↵ to go on"])


async def test_what_is_copied_is_the_text_and_not_its_picture(store: Store):
    await store.edit.add_todo(await store.edit.add_list("Groceries"), "a\tb")
    async with running(store) as run:
        await run.press("right", "e", "ctrl+c")
        assert run.toasts == ["Press q to quit, or ctrl+q while typing."]
        await run.press("ctrl+shift+a", "ctrl+c", "end", "ctrl+v", "enter")
        await run.until(lambda: run.texts == ["a\tba\tb"])


async def test_editing_the_first_line_keeps_the_lines_that_another_device_wrote_meanwhile(store: Store):
    todo_id = await store.edit.add_todo(await store.edit.add_list("Groceries"), "Milk\nfresh")
    async with running(store) as run:
        await run.press("right", "e", "!")
        await store.edit.edit_todo(todo_id, "Oat milk\nfresh\nor none")
        await run.press("enter")
        await run.until(lambda: run.texts == ["Milk!\nfresh\nor none"])


async def test_a_text_that_is_too_long_stays_in_the_field(store: Store):
    await store.edit.add_list("Groceries")
    async with running(store) as run:
        await run.press("a")
        run.field.value = "x" * (MAX_CHARACTERS + 1)
        await run.press("enter")
        told = "The to-do was not added: a text is longer than 10,000 characters; please shorten it."
        await run.until(lambda: run.toasts == [told])
        assert run.field.value == "x" * (MAX_CHARACTERS + 1)


async def test_of_a_long_paste_only_the_lines_that_were_not_stored_come_back(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Groceries")
    await database.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON ps_data__todos WHEN NEW.data LIKE '%line 250%' "
        "BEGIN SELECT RAISE(ABORT, 'no more'); END"
    )
    async with running(store) as run:
        await run.press("a")
        run.app.post_message(events.Paste("\n".join(f"line {number}" for number in range(300))))
        await run.until(lambda: run.toasts == ["Only the first 200 to-dos were added: no more."])
        assert run.field.text.split("\n") == [f"line {number}" for number in range(MAX_ROWS, 300)]
        assert len(await database.get_all("SELECT id FROM todos WHERE list_id = ?", [list_id])) == MAX_ROWS


@pytest.mark.parametrize("keys", [["right", "x"], ["a", *"Tea", "enter"], ["right", "d", "y"], ["e", *"!", "enter"]])
async def test_what_was_confirmed_is_stored_though_the_app_ends_while_another_process_writes(
    store: Store, database: PowerSyncDatabase, tmp_path: Path, keys: list[str]
):
    await store.edit.add_todo(await store.edit.add_list("Groceries"), "Milk")

    def state() -> list[object]:
        with closing(sqlite3.connect(tmp_path / "todo.db")) as reader:
            rows = reader.execute("SELECT data FROM ps_data__lists UNION ALL SELECT data FROM ps_data__todos")
            return rows.fetchall()

    before = state()
    with closing(sqlite3.connect(tmp_path / "todo.db", isolation_level=None)) as other:
        async with running(store) as run:
            other.execute("BEGIN IMMEDIATE")
            await run.press(*keys)
            run.app.exit()
        assert await store.flush(0.01) == 1
        assert state() == before
        other.execute("ROLLBACK")
    assert await store.flush(5) == 0
    assert state() != before


# Quitting


@pytest.mark.parametrize("quits", ["q", "ctrl+q"])
async def test_quitting_does_not_lose_a_half_typed_text_without_a_word(store: Store, quits: str):
    await filled(store)
    told = "This text has not been saved. Press enter to save it, or ctrl+q to quit without saving."
    async with running(store) as run:
        await run.press("a", *"half")
        await run.pilot.click(run.lists, offset=(4, 0))
        await run.press(quits)
        assert run.app.is_running
        assert run.toasts == [told]
        assert run.field.has_focus
        assert run.field.value == "half"
        await run.press("!", "ctrl+q")
        assert run.app.is_running
        assert run.toasts == [told, told]
        await run.press("ctrl+q")
        assert not run.app.is_running


@pytest.mark.parametrize("keys", [[], ["a"], ["right", "e"], ["question_mark"], ["d"]])
async def test_ctrl_q_quits_at_once_where_nothing_is_lost(store: Store, keys: list[str]):
    await filled(store)
    async with running(store) as run:
        await run.press(*keys, "ctrl+q")
        assert not run.app.is_running


async def test_ctrl_c_tells_how_to_quit(store: Store):
    async with running(store) as run:
        await run.press("ctrl+c")
        assert run.app.is_running
        assert run.toasts == ["Press q to quit, or ctrl+q while typing."]


async def test_joiners_that_are_typed_are_kept(store: Store):
    """Without them Persian words are misspelt and families of emoji fall apart."""
    await filled(store)
    async with running(store) as run:
        await run.press("a")
        for character in "می\u200cخواهم 👩\u200d👧":
            run.field.post_message(events.Key(character, character))
        await run.press("enter")
        await run.until(lambda: "می\u200cخواهم 👩\u200d👧" in run.texts)
