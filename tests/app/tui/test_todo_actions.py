"""What keys and the mouse do with to-dos: one, several, across lists, back and forth."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from textual import events

from app.store import Store
from app.tui.screens.pick import PickScreen
from app.tui.widgets.detail_pane import DetailPane, DetailText
from app.tui.widgets.filter_bar import FilterBar
from sync import PowerSyncDatabase
from tests.app.conftest import NOW

from .harness import Running, filled, painted, running

BREAD = "Bread from the bakery on the corner"
APPLES = "Apples, the red ones"


def detail(run: Running) -> str:
    return str(run.main.query_one(DetailText).content)


async def jump(run: Running, typed: str) -> None:
    await run.press("o", *typed, "enter")
    await run.until(lambda: run.app.screen is run.main)


# Adding with the words of a to-do


async def test_what_is_typed_is_understood_and_shown_as_badges(store: Store):
    list_id = await store.edit.add_list("Home")
    async with running(store) as run:
        await run.press("a", *"Pay rent tomorrow 9am p1 #home every month")
        line = run.entry.query("TitleLine").first().render_line(0).text  # type: ignore[attr-defined]
        assert "due tomorrow at 09:00 · priority 1 · #home" in line
        await run.press("enter", "escape")
        await run.until(lambda: run.texts == ["Pay rent due:2026-03-15T09:00 p1 #home rec:1m"])
        (row,) = [text for text in painted(run.todos) if "Pay rent" in text]
        assert row.startswith("▌ ○ Pay rent  ")
        assert "#home ↻ p1 tomorrow 09:00" in row
    assert list_id


async def test_backspace_on_a_part_makes_it_plain(store: Store):
    await store.edit.add_list("Home")
    async with running(store) as run:
        await run.press("a", *"Watch Friday", "backspace")
        assert run.field.value == "Watch Friday"
        await run.press(*" tom", "enter")
        await run.until(lambda: run.texts == ["Watch Friday due:2026-03-15"])
        await run.press(*"See you fri", "backspace", "backspace", "enter")
        await run.until(lambda: run.texts[1:] == ["See you fr"])


async def test_editing_keeps_plain_words_plain(store: Store):
    list_id = await store.edit.add_list("Home")
    await store.edit.add_todo(list_id, "Read Friday by Monday \\p1 due:2026-03-15\nnotes")
    async with running(store) as run:
        await run.press("right", "e", *" p2", "enter")
        await run.until(lambda: run.texts == ["Read Friday by Monday \\p1 due:2026-03-15 p2\nnotes"])


async def test_a_paste_of_several_lines_is_not_reworded(store: Store):
    await store.edit.add_list("Home")
    async with running(store) as run:
        await run.press("a")
        run.app.post_message(events.Paste("Call mom tomorrow\nSat on a bench"))
        await run.until(lambda: run.texts == ["Call mom tomorrow", "Sat on a bench"])


async def test_what_is_added_today_is_for_today(store: Store):
    await store.edit.add_list("Home")
    async with running(store) as run:
        await jump(run, "today")
        await run.until(lambda: run.title == "Today")
        await run.press("a", *"Milk", "enter")
        await run.until(lambda: run.texts == ["Milk due:2026-03-14"])


# Views


async def test_views_show_to_dos_across_lists(store: Store):
    ids = await filled(store)
    await store.edit.edit_todo(ids["Milk"], "Milk due:2026-03-14")
    house = (await store.edit.add_todos(ids["House and garden"], ["Paint due:2026-03-01", "Trip due:2026-04-01 #far"]))[
        1
    ]
    async with running(store) as run:
        for typed, texts in [
            ("today", ["Milk due:2026-03-14"]),
            ("overdue", ["Paint due:2026-03-01"]),
            ("upcoming", ["Trip due:2026-04-01 #far"]),
            ("done", ["Butter", "Eggs"]),
        ]:
            await jump(run, typed)
            await run.until(lambda texts=texts: run.texts == texts)
        await jump(run, "upcoming")
        await run.until(lambda: run.texts == ["Trip due:2026-04-01 #far"])
        assert "House and garden" in painted(run.todos)[0]
        await run.press("x")
        await run.until(lambda: run.texts == [])
        assert "Nothing here" in "".join(painted(run.todos))
        await run.press("u")
        await run.until(lambda: run.todos.selected_id == house)


async def test_a_new_day_moves_to_dos_between_views(store: Store, monkeypatch: pytest.MonkeyPatch):
    list_id = await store.edit.add_list("Home")
    await store.edit.add_todo(list_id, "Milk due:2026-03-15")
    async with running(store) as run:
        await jump(run, "today")
        await run.until(lambda: run.title == "Today")
        assert run.texts == []
        monkeypatch.setattr(store, "_now", lambda: NOW.replace(day=15))
        run.main._check_day()
        await run.until(lambda: run.texts == ["Milk due:2026-03-15"])
        await run.until(lambda: painted(run.lists)[1].endswith(" 1"))


# Several at once


@pytest.mark.parametrize(
    ("keys", "gone"),
    [
        (("space", "space"), 2),
        (("space", "down", "space"), 2),
        (("v", "down", "down"), 3),
        (("v", "down", "v", "down"), 2),
        (("V",), 5),
        (("V", "V"), 1),
        (("space", "escape"), 1),
    ],
)
async def test_several_are_deleted_in_one_step(store: Store, keys: tuple[str, ...], gone: int):
    await filled(store)
    async with running(store) as run:
        before = list(run.texts)
        await run.press("right", *keys, "d")
        await run.until(lambda: len(run.texts) == 5 - gone)
        assert run.todos.chosen_count == 0
        if gone > 1:
            await run.until(lambda: run.toasts == [f"Deleted {gone} to-dos. Press u to undo."])
        await run.press("u")
        await run.until(lambda: run.texts == before)
        await run.press("U")
        await run.until(lambda: len(run.texts) == 5 - gone)


async def test_chosen_rows_are_marked_without_colour_and_counted(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("right", "space", "space")
        assert [line[0] for line in painted(run.todos)[:3]] == ["┃", "┃", "▌"]
        assert "2 selected" in run.title_text
        await run.press("escape")
        assert run.todos.chosen_count == 0
        assert run.todos.has_focus
        await run.press("escape")
        assert run.lists.has_focus


async def test_several_are_completed_and_opened_again(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("right", "V", "x")
        await run.until(lambda: "all done" in run.title_text)
        await run.press("V", "x")
        await run.until(lambda: "5 open" in run.title_text)


async def test_several_are_moved_tagged_and_given_a_date(store: Store):
    ids = await filled(store)
    async with running(store) as run:
        await run.press("right", "space", "space", "t", *"#shop new", "enter")
        await run.until(lambda: run.texts[:2] == ["Milk #shop #new", f"{BREAD} #shop #new"])
        await run.press("g", "space", "t", *"-shop", "enter")
        await run.until(lambda: run.texts[0] == "Milk #new")
        await run.press("g", "v", "down", "w", *"tomorrow 9am", "enter")
        await run.until(lambda: run.texts[0] == "Milk #new due:2026-03-15T09:00")
        assert run.texts[1] == f"{BREAD} #shop #new due:2026-03-15T09:00"
        await run.press("g", "w", "enter")
        await run.until(lambda: run.texts[0] == "Milk #new")
        await run.press("2")
        await run.until(lambda: run.texts[0] == "Milk #new p2")
        await run.press("0")
        await run.until(lambda: run.texts[0] == "Milk #new")
        await run.press("space", "m", *"hou", "enter")
        await run.until(lambda: run.texts[0] == f"{BREAD} #shop #new due:2026-03-15T09:00")
        await jump(run, "house")
        await run.until(lambda: "Milk #new" in run.texts)
    assert ids


@pytest.mark.parametrize(
    ("key", "typed", "told"),
    [
        ("w", "someday", "“someday” is not a valid date. Try tomorrow 9am, fri, in 3d, 15 jan or 2026-12-01."),
        ("t", "#", "“#” is not a valid tag: use letters, digits, _, - and /."),
    ],
)
async def test_what_is_no_date_or_tag_is_told_and_stays_in_the_field(store: Store, key: str, typed: str, told: str):
    await filled(store)
    async with running(store) as run:
        await run.press("right", key, *typed, "enter")
        await run.until(lambda: run.toasts == [told])
        assert run.field.text == typed
        await run.press("escape")
        assert run.texts[0] == "Milk"


# Order


async def test_rows_are_reordered_by_key(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("right", "J")
        await run.until(lambda: run.texts[:3] == [BREAD, "Milk", APPLES])
        assert run.selected_text == "Milk"
        await run.press("J")
        await run.until(lambda: run.texts[:3] == [BREAD, APPLES, "Milk"])
        await run.press("J")
        await run.press("K")
        await run.until(lambda: run.texts[:3] == [BREAD, "Milk", APPLES])
        await run.press("u")
        await run.until(lambda: run.texts[:3] == [BREAD, APPLES, "Milk"])


async def test_rows_are_reordered_by_mouse(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.pilot.mouse_down(run.todos, offset=(8, 2))
        await run.pilot._post_mouse_events([events.MouseMove], run.todos, (8, 0), 1)
        assert painted(run.todos)[0].startswith("▸")
        await run.pilot.mouse_up(run.todos, offset=(8, 0))
        await run.until(lambda: run.texts[:3] == [APPLES, "Milk", BREAD])


async def test_sorting_and_hiding_are_remembered(store: Store):
    ids = await filled(store)
    await store.edit.edit_todo(ids["Milk"], "Zinc p1")
    async with running(store) as run:
        await run.press("right", "s", *"name", "enter")
        await run.until(lambda: run.texts[:3] == [APPLES, BREAD, "Zinc p1"])
        assert "by name" in run.title_text
        await run.press("H")
        await run.until(lambda: len(run.texts) == 3)
        assert "3 open · 2 done" in run.title_text
        await run.press("J")
        await run.until(lambda: run.texts[0] == APPLES)
    async with running(store) as run:
        await run.until(lambda: run.texts == [APPLES, BREAD, "Zinc p1"])


# Finding


async def test_the_filter_narrows_while_typing(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("slash", *"b")
        await run.until(lambda: run.texts == [BREAD, "Butter"])
        assert "2 of 5 match" in run.title_text
        await run.press(*"r ", *"ak")
        await run.until(lambda: run.texts == [BREAD])
        await run.press("enter")
        assert run.todos.has_focus
        await run.press("escape")
        await run.until(lambda: len(run.texts) == 5)
        assert not run.main.query_one(FilterBar).has_class("-open")
        await run.press("slash", *"zzz")
        await run.until(lambda: run.texts == [])
        assert "No matches" in "".join(painted(run.todos))
        await run.press("escape")
        await run.until(lambda: len(run.texts) == 5)


async def test_n_goes_round_the_matches(store: Store):
    await filled(store)
    async with running(store) as run:
        await run.press("slash", *"b", "enter")
        await run.until(lambda: run.texts == [BREAD, "Butter"])
        seen = []
        for key in ("n", "n", "N"):
            await run.press(key)
            seen.append(run.selected_text)
        assert seen == ["Butter", BREAD, "Butter"]


async def test_jumping_to_a_list_and_not(store: Store):
    await filled(store)
    async with running(store) as run:
        await jump(run, "read")
        await run.until(lambda: run.title == "Reading")
        assert run.todos.has_focus
        await run.press("o", "down", "escape")
        await run.until(lambda: run.app.screen is run.main)
        assert run.title == "Reading"
        await run.press("o")
        await run.until(lambda: isinstance(run.app.screen, PickScreen))
        rows = run.app.screen.query_one("RowList")
        await run.pilot.click(rows, offset=(6, 1))
        await run.until(lambda: run.title == "House and garden")


# Details, copying, the editor


async def test_details_show_everything_that_is_known(store: Store):
    list_id = await store.edit.add_list("Home")
    await store.edit.add_todo(list_id, "Pay rent due:2026-03-15T09:00 p1 #home rec:1m\nIBAN DE00\n[b]note[/b]")
    async with running(store, (120, 30)) as run:
        await run.until(lambda: "IBAN DE00\n[b]note[/b]" in detail(run))
        for words in ("Pay rent\n", "tomorrow 09:00 (2026-03-15 09:00)", "every month", "#home", "Home", "just now"):
            assert words in detail(run)
        await run.press("i")
        assert not run.main.query_one(DetailPane).display
    async with running(store, (60, 20)) as run:
        assert not run.main.query_one(DetailPane).display
        await run.press("right", "i")
        assert run.main.query_one(DetailPane).display


async def test_texts_are_copied_through_the_terminal(store: Store, monkeypatch: pytest.MonkeyPatch):
    await filled(store)
    async with running(store) as run:
        written: list[str] = []
        monkeypatch.setattr(run.app._driver, "write", written.append)
        await run.press("right", "v", "down", "y")
        await run.until(lambda: "Copied 2 to-dos." in run.toasts)
        assert run.app.clipboard == f"Milk\n{BREAD}"
        encoded = base64.b64encode(f"Milk\n{BREAD}".encode()).decode()
        assert any(f"\x1b]52;c;{encoded}\a" in text for text in written)


async def test_the_users_editor_changes_the_whole_text(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: PowerSyncDatabase
):
    await filled(store)
    editor = tmp_path / "editor"
    seen = tmp_path / "seen"
    editor.write_text(
        f'#!/bin/sh\nstat -c %a "$1" > {seen}\ncat "$1" >> {seen}\nprintf "Oat milk\\nfrom the mill\\n" > "$1"\n'
    )
    editor.chmod(stat.S_IRWXU)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("VISUAL", raising=False)
    async with running(store) as run:
        monkeypatch.setattr(type(run.app._driver), "can_suspend", True)
        await run.press("right", "E")
        await run.until(lambda: run.texts[0] == "Oat milk\nfrom the mill")
        assert seen.read_text() == "600\nMilk"
        await run.press("u")
        await run.until(lambda: run.texts[0] == "Milk")


# Undoing


async def test_undoing_is_told_and_has_an_end(store: Store):
    await store.edit.add_list("Home")
    async with running(store) as run:
        await run.press("u")
        await run.until(lambda: run.toasts == ["Undone: Added the list “Home”. Press U to redo."])
        await run.press("u")
        await run.until(lambda: run.toasts[1:] == ["Nothing to undo."])
        await run.press("ctrl+r")
        await run.until(lambda: run.names == ["Home"])
        await run.press("U")
        await run.until(lambda: run.toasts[-1] == "Nothing to redo.")


async def test_undoing_what_was_changed_elsewhere_says_so(store: Store, database: PowerSyncDatabase):
    ids = await filled(store)
    await store.edit.edit_todo(ids["Milk"], "Oat milk")
    async with running(store) as run:
        await database.execute("UPDATE todos SET description = 'Theirs' WHERE id = ?", [ids["Milk"]])
        await run.press("u")
        await run.until(
            lambda: run.toasts == ["Undone: Changed “Milk”. 1 row was left alone because it has changed since."]
        )
        assert run.texts[0] == "Theirs"


# How rows stand with syncing


async def test_rows_that_wait_are_marked(store: Store, database: PowerSyncDatabase):
    await filled(store)
    async with running(store) as run:
        await run.until(lambda: painted(run.todos)[0].endswith("↑"))
        transactions = [each async for each in database.crud_transactions()]
        await transactions[-1].complete()
        await run.until(lambda: not painted(run.todos)[0].endswith("↑"))
