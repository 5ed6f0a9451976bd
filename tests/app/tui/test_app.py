"""The app, driven by keys and mouse over a real database."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from textual import events
from textual.widgets import Button

from app.store import SAMPLE_NAME, SAMPLE_TODOS, Arrangement, Sort, Store
from app.tui.screens.confirm import ConfirmScreen
from app.tui.screens.help import HelpScreen
from app.tui.theme import DARK, LIGHT
from app.tui.widgets.lines import KeyBar, StatusLine
from app.tui.widgets.todo_rows import TodoRows
from app.tui.widgets.welcome import Welcome
from sync import NetworkError, PowerSyncDatabase, SyncStatus
from tests.app.conftest import NOW

from .harness import filled, painted, running

CONNECTED = SyncStatus(wanted=True, connected=True, last_synced_at=NOW)


# First start


async def test_an_empty_database_offers_a_sample_but_does_not_add_it(store: Store):
    async with running(store) as run:
        assert "try a sample list" in str(run.main.query_one(Welcome).render())
        assert run.names == []
        await run.press("s")
        await run.until(lambda: run.texts == list(SAMPLE_TODOS))
        assert run.names == [SAMPLE_NAME]
        assert not run.main.has_class("-welcome")
        assert run.todos.has_focus
        await run.press("s")
        assert run.names == [SAMPLE_NAME]


async def test_while_a_first_sync_is_expected_nothing_is_offered(store: Store):
    async with running(store) as run:
        run.main.show_status(SyncStatus(wanted=True, connected=True))
        assert "Looking for your lists…" in str(run.main.query_one(Welcome).render())
        await run.press("s")
        assert run.names == []
        run.main.show_status(replace(CONNECTED))
        assert "try a sample list" in str(run.main.query_one(Welcome).render())


async def test_the_first_list(store: Store):
    async with running(store) as run:
        await run.press("L", *"Home", "enter")
        await run.until(lambda: "Home" in run.title_text)
        assert not run.entry.is_open
        assert run.todos.has_focus
        assert "Press a to add a to-do." in "".join(painted(run.todos))


async def test_deleting_the_last_list_welcomes_again(store: Store):
    await store.edit.add_list("Home")
    async with running(store) as run:
        await run.press("d", "y")
        await run.until(lambda: run.main.has_class("-welcome"))
        await run.press("n", *"New", "enter")
        await run.until(lambda: run.names == ["New"])


# Lists


async def test_lists_show_their_open_counts_and_follow_the_todos(store: Store):
    ids = await filled(store)
    async with running(store) as run:
        assert painted(run.lists)[:8] == [
            "  ∗ All              5",
            "  ◷ Today",
            "  → Upcoming",
            "  ! Overdue",
            "  ✓ Done             2",
            "▌ • Groceries        3",
            "  • House and garden 2",
            "  • Reading",
        ]
        await store.edit.set_completed([ids["Milk"]], completed=True)
        await run.until(lambda: painted(run.lists)[5].endswith(" 2"))
        await run.until(lambda: painted(run.lists)[0].endswith(" 4"))


async def test_moving_through_the_lists_shows_their_todos(store: Store):
    await filled(store)
    async with running(store) as run:
        assert run.texts[:2] == ["Milk", "Bread from the bakery on the corner"]
        await run.press("j")
        await run.until(lambda: run.texts == ["Fix the tap", "Plant the tomatoes"])
        assert "House and garden" in run.title_text
        await run.press("j")
        await run.until(lambda: "Reading" in run.title_text)
        assert run.texts == []
        await run.press("k", "k")
        await run.until(lambda: "Groceries" in run.title_text)


async def test_a_list_is_added_and_opened(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("n", *"Work", "enter")
        await run.until(lambda: "Work" in run.title_text)
        assert run.names[-1] == "Work"
        assert run.lists.selected_id == run.lists.rows[-1].id


async def test_a_list_is_renamed(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("e")
        assert run.field.value == "Groceries"
        await run.press("ctrl+u", *"Food", "enter")
        await run.until(lambda: run.names[0] == "Food" and "Food" in run.title_text)
        assert not run.entry.is_open


async def test_deleting_a_list_tells_what_goes_with_it(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("d")
        await run.until(lambda: isinstance(run.app.screen, ConfirmScreen))
        assert "Its 5 to-dos (3 still open) will be deleted too." in run.app.export_screenshot().replace("&#160;", " ")
        await run.press("n")
        assert len(run.names) == 3
        await run.press("d", "y")
        await run.until(lambda: run.names == ["House and garden", "Reading"])
        await run.until(lambda: run.texts == ["Fix the tap", "Plant the tomatoes"])


# To-dos


async def test_adding_stays_open_for_the_next_one(store: Store):
    await store.edit.add_list("Groceries")
    async with running(store) as run:
        await run.press("a", *"Milk", "enter", *"Tea", "enter")
        assert run.entry.is_open
        await run.until(lambda: run.texts == ["Milk", "Tea"])
        assert run.selected_text == "Tea"
        await run.press("escape")
        assert not run.entry.is_open
        assert run.todos.has_focus


async def test_enter_on_an_empty_line_ends_adding(store: Store):
    await store.edit.add_list("Groceries")
    async with running(store) as run:
        await run.press("a", "enter")
        await run.until(lambda: not run.entry.is_open)


async def test_a_todo_is_edited(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("right", "e", *"!", "enter")
        await run.until(lambda: run.texts[0] == "Milk!")
        assert not run.entry.is_open
        assert run.todos.has_focus
        await run.press("enter", *"?", "escape")
        assert not run.entry.is_open
        assert run.texts[0] == "Milk!"


async def test_completing_goes_on_to_the_next(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("right", "x", "x")
        done = ["Bread from the bakery on the corner", "Milk", "Butter", "Eggs"]
        await run.until(lambda: run.texts == ["Apples, the red ones", *done])
        assert run.selected_text == "Apples, the red ones"
        assert "1 open · 4 done" in run.title_text
        await run.press("G", "x")
        await run.until(lambda: run.texts[:2] == ["Apples, the red ones", "Eggs"])


async def test_completing_the_only_todo_keeps_the_cursor_on_it(store: Store):
    list_id = await store.edit.add_list("Groceries")
    await store.edit.add_todo(list_id, "Milk")
    async with running(store) as run:
        await run.press("right", "x")
        await run.until(lambda: "all done" in run.title_text)
        await run.press("x")
        await run.until(lambda: "1 open" in run.title_text)


async def test_deleting_a_todo_tells_the_key_that_brings_it_back(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("right", "j", "d")
        await run.until(lambda: len(run.texts) == 4)
        assert run.selected_text == "Apples, the red ones"
        await run.until(lambda: run.toasts == ["Deleted “Bread from the bakery on the corner”. Press u to undo."])
        await run.press("u")
        await run.until(lambda: len(run.texts) == 5)


async def test_keys_for_todos_do_nothing_without_a_todo(store: Store):
    await store.edit.add_list("Groceries")
    async with running(store) as run:
        await run.press("right", "space", "x", "e", "d", "m", "w", "t", "1", "y", "V", "K")
        assert run.app.screen is run.main
        assert not run.entry.is_open
        assert "Edit" not in run.keys_text


# Mouse


async def test_the_mouse_selects_marks_edits_and_presses_keys(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.pilot.click(run.todos, offset=(8, 1))
        assert run.selected_text == "Bread from the bakery on the corner"
        assert run.todos.has_focus
        await run.pilot.click(run.todos, offset=(2, 0))
        await run.until(lambda: "Milk" in run.texts[2:])
        assert run.selected_text == "Bread from the bakery on the corner"
        await run.pilot.click(run.lists, offset=(4, 6))
        await run.until(lambda: run.texts == ["Fix the tap", "Plant the tomatoes"])
        await run.pilot.click(run.todos, offset=(8, 1), times=2)
        await run.until(lambda: run.field.value == "Plant the tomatoes")
        await run.press("escape")
        await run.pilot.click(KeyBar, offset=(run.keys_text.index("Help") + 2, 0))
        await run.until(lambda: isinstance(run.app.screen, HelpScreen))


async def test_the_answers_can_be_clicked(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("d")
        await run.until(lambda: isinstance(run.app.screen, ConfirmScreen))
        await run.pilot.click("#no")
        await run.until(lambda: run.app.screen is run.main)
        await run.press("d")
        await run.until(lambda: bool(run.app.screen.query(Button)))
        await run.pilot.click("#yes")
        await run.until(lambda: run.names == ["House and garden", "Reading"])


async def test_a_dialog_fits_into_little_room(store: Store):
    await filled(store)
    async with running(store, (30, 12)) as run:
        await run.press("d")
        await run.until(lambda: bool(run.app.screen.query(Button)))
        await run.pilot.pause()
        picture = run.app.export_screenshot().replace("&#160;", " ")
        assert "y Delete" in picture
        assert "n Keep" in picture


# Panes, help, quitting


@pytest.mark.parametrize("keys", [("tab", "tab"), ("right", "left"), ("l", "h"), ("enter", "escape")])
async def test_keys_switch_panes(store: Store, keys: tuple[str, str]):
    await filled(store)
    async with running(store) as run:
        assert run.lists.has_focus
        await run.press(keys[0])
        assert run.todos.has_focus
        await run.press(keys[1])
        assert run.lists.has_focus


async def test_with_little_room_one_pane_is_shown_at_a_time(store: Store):
    await filled(store)
    async with running(store, (40, 12)) as run:
        assert (run.lists.region.width, run.todos.region.width) == (40, 0)
        await run.press("enter")
        assert (run.lists.region.width, run.todos.region.width) == (0, 40)
        assert run.todos.has_focus
        assert "← Lists" in run.keys_text
        await run.press("left", "a")
        assert run.todos.region.width == 40
        assert run.field.has_focus
        await run.pilot.resize_terminal(80, 24)
        await run.until(lambda: run.lists.region.width > 0)
        assert run.field.has_focus


async def test_the_help_lists_all_keys_and_closes(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("question_mark")
        await run.until(lambda: isinstance(run.app.screen, HelpScreen))
        await run.press("j", "k", "escape")
        assert run.app.screen is run.main
        assert run.lists.has_focus


async def test_q_quits(store: Store):
    async with running(store) as run:
        await run.press("q")
        assert not run.app.is_running


async def test_keys_typed_ahead_meet_the_focus_that_the_keys_before_them_made(store: Store):
    await filled(store)
    keys = ["j", "a", *"Mow", "enter", *"Sow", "enter", "escape", "G", "d", "n", "g", "left", "j", "d", "y"]
    async with running(store) as run:
        for key in keys:
            run.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await run.until(lambda: run.names == ["Groceries", "House and garden"])
        await run.until(lambda: run.texts == ["Fix the tap", "Plant the tomatoes", "Mow", "Sow"])


# Synced changes


async def test_the_cursor_stays_on_its_row_while_a_hundred_changes_arrive(store: Store):
    ids = await filled(store)
    texts = [f"Number {number}" for number in range(120)]
    todo_ids = await store.edit.add_todos(ids["Groceries"], texts)
    async with running(store) as run:
        await run.press("right", *["pagedown"] * 5, "up", "up", "up")
        selected = run.selected_text

        def line_of_cursor() -> int:
            (line,) = [line for line, text in enumerate(painted(run.todos)) if text.startswith("▌")]
            return line

        line = line_of_cursor()
        assert selected in texts
        for number, todo_id in enumerate(todo_ids):
            if texts[number] == selected:
                continue
            if number % 3 == 0:
                await store.edit.set_completed([todo_id], completed=True)
            elif number % 3 == 1:
                await store.edit.edit_todo(todo_id, f"Changed {number}")
            else:
                await store.edit.delete_todos([todo_id])
        await store.edit.add_todos(ids["Groceries"], [f"More {number}" for number in range(40)])
        await run.until(lambda: "More 39" in run.texts)
        assert run.selected_text == selected
        assert line_of_cursor() == line


async def test_a_list_that_is_deleted_elsewhere_gives_way_to_its_neighbour(store: Store):
    ids = await filled(store)
    async with running(store) as run:
        await store.edit.delete_list(ids["Groceries"])
        await run.until(lambda: run.texts == ["Fix the tap", "Plant the tomatoes"])


async def test_rubbish_in_synced_text_breaks_nothing(store: Store, database: PowerSyncDatabase):
    rubbish = "[red]x[/] \x1b[2J\x07\t" + "日" * 30 + "\nsecond"
    list_id = await store.edit.add_list(rubbish)
    await store.edit.add_todo(list_id, rubbish)
    await database.execute("INSERT INTO lists (id) VALUES ('nameless')")
    await database.execute("INSERT INTO todos (id, list_id, description) VALUES ('t', 'nameless', '')")
    async with running(store) as run:
        await run.until(lambda: "(no text)" in "".join(painted(run.todos)))
        assert "(no name)" in run.title_text
        await run.press("down")
        await run.until(lambda: run.texts == [rubbish])
        assert "[red]x[/] ␛[2J␇⇥日" in painted(run.todos)[0]
        assert "\x1b" not in run.app.export_screenshot()
        await run.press("right", "e")
        assert run.field.text == rubbish.partition("\n")[0]
        assert "[red]x[/] ␛[2J␇⇥日" in run.field.render_line(0).text
        await run.press("enter")
        await run.until(lambda: not run.entry.is_open)
        assert run.texts == [rubbish]
        await run.press("left", "d")
        await run.until(lambda: isinstance(run.app.screen, ConfirmScreen))


# Synchronization


async def test_the_app_connects_at_start_and_keeps_the_lists_subscribed(store: Store, connects: list[str]):
    await filled(store)
    async with running(store, connect=True) as run:
        await run.until(lambda: connects == ["connect"])
        await run.until(lambda: len(store.status.streams) == 3)
        await run.press("c")
        await run.until(lambda: connects == ["connect", "connect"])


async def test_the_state_is_told_in_words_and_what_c_does_with_it(store: Store):
    await filled(store)
    async with running(store, (120, 30)) as run:
        offline = SyncStatus(wanted=True, upload_queue_count=2, download_error=NetworkError("no route"))
        for status, words, key in [
            (CONNECTED, "● Connected · all changes synced", "c Pause"),
            (SyncStatus(wanted=True), "◌ Connecting…", "c Pause"),
            (offline, "○ Offline · 2 changes waiting", "c Pause"),
            (SyncStatus(), "‖ Paused", "c Connect"),
            (SyncStatus(wanted=True, syncing_elsewhere=True), "◆ Syncing in another window", "c Pause"),
        ]:
            run.main.show_status(status)
            await run.until(lambda words=words: run.status_text.startswith(words))
            assert key in run.keys_text
        run.main.show_status(CONNECTED)
        assert run.main.query_one(StatusLine).has_class("-connected")
        assert not run.main.has_class("-offline")


async def test_c_disconnects(store: Store):
    async with running(store) as run:
        run.main.show_status(CONNECTED)
        await run.press("c")
        assert run.toasts == []


async def test_waiting_changes_are_counted(store: Store):
    await store.edit.add_list("Groceries")
    async with running(store) as run:
        await run.until(lambda: "1 change waiting" in run.status_text)
        await run.press("a", *"Tea", "enter")
        await run.until(lambda: "2 changes waiting" in run.status_text)


async def test_what_is_uploaded_for_longer_than_a_moment_is_marked(store: Store):
    list_id = await store.edit.add_list("Groceries")
    await store.edit.add_todo(list_id, "Tea")
    async with running(store) as run:
        await run.until(lambda: "↑" in painted(run.todos)[0])
        run.main.show_status(replace(CONNECTED, upload_queue_count=2, uploading=True))
        assert "↑" in painted(run.todos)[0]
        await run.until(lambda: "⇡" in painted(run.todos)[0])
        run.main.show_status(replace(CONNECTED, upload_queue_count=2))
        assert "↑" in painted(run.todos)[0]


async def test_rejected_changes_are_counted(store: Store, database: PowerSyncDatabase):
    await store.edit.add_list("Groceries")
    async with running(store) as run:
        await run.until(lambda: "1 change waiting" in run.status_text)
        async for transaction in database.crud_transactions():
            await transaction.reject("no")
        await run.until(lambda: "· 1 rejected" in run.status_text)
        [rejected] = await database.rejected_writes()
        assert await rejected.retry()
        await run.until(lambda: "1 change waiting" in run.status_text and "rejected" not in run.status_text)


async def test_a_long_list_is_whole_in_the_end_and_keeps_its_cursor(store: Store, database: PowerSyncDatabase):
    list_id = await store.edit.add_list("Long")
    rows = [[f"{number:04}", list_id, f"2026-01-01T00:{number:04}", f"{number % 7} {number}"] for number in range(1200)]
    await database.execute_many("INSERT INTO todos(id, list_id, created_at, description) VALUES (?, ?, ?, ?)", rows)
    async with running(store) as run:
        await run.until(lambda: "1,200 open" in run.title_text)
        assert [todo.id for todo in run.todos.rows] == [row[0] for row in rows]
        await run.press("right", "G")
        assert run.todos.selected_id == "1199"
        await store.arrange(list_id, Arrangement(Sort.NAME))
        run.main.query_one(TodoRows).show_day()
        await run.until(lambda: "by name" in run.title_text)
        assert run.todos.selected_id == "1199"
        assert [todo.description for todo in run.todos.rows] == sorted(row[3] for row in rows)
        await database.execute("UPDATE todos SET description = '! first' WHERE id = '1199'")
        await run.until(lambda: run.todos.rows[0].id == "1199")
        assert run.todos.selected_id == "1199"


async def test_the_workers_end_with_the_app(store: Store):
    await filled(store)
    before = asyncio.all_tasks()
    async with running(store):
        pass
    async with asyncio.timeout(10):
        while asyncio.all_tasks() - before:
            await asyncio.wait(asyncio.all_tasks() - before)


@pytest.mark.parametrize("theme", [DARK.name, LIGHT.name, "textual-dark", "ansi-dark"])
async def test_every_theme_has_all_colours(store: Store, theme: str):
    await filled(store)
    async with running(store) as run:
        run.app.theme = theme
        await run.press("d")
        await run.until(lambda: isinstance(run.app.screen, ConfirmScreen))
