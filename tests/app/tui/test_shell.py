"""What lies around the lists: keymap, help, command palette, colours, and none."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from textual.color import Color
from textual.command import CommandPalette
from textual.widgets import Input

from app.settings.appearance import Appearance
from app.settings.keymap import ACTIONS, Keymap
from app.store import Store
from app.tui.app import TodoApp
from app.tui.screens.help import HelpScreen, KeyTable
from app.tui.theme import DARK, LIGHT
from app.tui.widgets.entry import EntryField
from tests.app.conftest import NOW

from .harness import filled, painted, running


def told(run) -> str:
    table = run.app.screen.query_one(KeyTable)
    return "\n".join(table.render_line(y).text for y in range(table.size.height))


async def test_a_keymap_is_in_force_in_bindings_key_bar_help_and_words(store: Store):
    keymap = Keymap.of(
        "default", {"todos.toggle_todo": ["ctrl+d", "x"], "anywhere.undo": "f9", "todos.delete_todo": "D"}
    )
    await filled(store)
    async with running(store, (120, 40), keymap=keymap) as run:
        await run.press("right")
        assert "ctrl+d Done" in run.keys_text
        await run.press("ctrl+d")
        await run.until(lambda: run.texts[2:3] == ["Milk"])
        await run.until(lambda: run.toasts == ["Completed “Milk”. Press f9 to undo."])
        await run.press("u", "d")
        assert run.texts[2:3] == ["Milk"]
        await run.press("f9")
        await run.until(lambda: run.texts[0] == "Milk")
        await run.pilot.click("KeyBar", offset=(run.keys_text.index("Done") + 2, 0))
        await run.until(lambda: "2 open · 3 done" in run.title_text)
        await run.press("question_mark")
        await run.until(lambda: isinstance(run.app.screen, HelpScreen))
        assert "ctrl+d x" in told(run)


async def test_keys_of_the_entry_line_can_be_changed(store: Store):
    keymap = Keymap.of("default", {"entry.submit": "ctrl+s", "entry.close": "f10"})
    await store.edit.add_list("Home")
    async with running(store, keymap=keymap) as run:
        await run.press("a", *"Milk", "enter", "ctrl+s")
        await run.until(lambda: run.texts == ["Milk"])
        await run.press("f10")
        assert not run.entry.is_open


async def test_the_help_filters_while_typing(store: Store):
    async with running(store, (100, 40)) as run:
        await run.press("question_mark")
        await run.until(lambda: isinstance(run.app.screen, HelpScreen))
        assert [action.id for action in ACTIONS if action.help[:25] not in told(run)] == []
        await run.press(*"last change")
        await run.until(lambda: "Redo what" not in told(run))
        assert "Undo the last change" in told(run)
        await run.press(*"zzz")
        await run.until(lambda: "No matches" in told(run))
        await run.press("escape")
        await run.until(lambda: run.app.screen is run.main)


async def test_the_palette_knows_every_action_that_is_in_force(store: Store):
    await filled(store)
    async with running(store, (100, 40)) as run:
        await run.press("right", "ctrl+p")
        await run.until(lambda: isinstance(run.app.screen, CommandPalette))
        await run.press(*"Mark as done")
        await run.until(lambda: run.app.screen.query_one(Input).value == "Mark as done")
        await run.until(lambda: run.app.screen.query_one("CommandList").option_count > 0)
        await run.press("enter")
        await run.until(lambda: run.texts[2:3] == ["Milk"])


async def test_commands_are_the_actions_in_force(store: Store):
    await filled(store)
    async with running(store) as run:
        from app.tui.palette import ActionsProvider

        await run.press("right")
        names = {action.name for action, _ in ActionsProvider(run.main)._actions()}
        for name in ("new_todo", "sort", "undo", "set_priority(1)", "choose_theme", "rename_list", "sync", "quit"):
            assert name in names
        assert not names & {"next_match", "choose_none", "add_sample", "submit", "cursor_down"}


async def test_colours_are_shown_while_choosing_and_remembered(store: Store, tmp_path: Path):
    appearance = Appearance(tmp_path)
    async with running(store, remember_theme=appearance.remember_theme) as run:
        await run.press("ctrl+t", "down")
        await run.until(lambda: run.app.theme == "todo-light")
        await run.press("escape")
        await run.until(lambda: run.app.theme == "todo-dark")
        assert appearance.theme() is None
        await run.press("ctrl+t", *"nord", "enter")
        await run.until(lambda: run.app.theme == "nord")
    assert appearance.theme() == "nord"
    async with running(store, theme=appearance.theme()) as run:
        assert run.app.theme == "nord"


@pytest.mark.parametrize("content", ["", "[]", '{"theme": 1}', "\xff", "[" * 100_000])
def test_a_damaged_appearance_is_passed_over(tmp_path: Path, content: str):
    (tmp_path / "appearance.json").write_text(content, "latin-1")
    assert Appearance(tmp_path).theme() is None


def test_an_appearance_that_cannot_be_kept_is_no_failure(tmp_path: Path):
    Appearance(tmp_path / "missing").remember_theme("nord")
    assert Appearance(tmp_path / "missing").theme() is None


async def test_a_theme_that_is_gone_is_passed_over(store: Store):
    async with running(store, theme="gone") as run:
        assert run.app.theme == DARK.name


def contrast(one: Color, other: Color) -> float:
    def luminance(color: Color) -> float:
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color.normalized]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: theme.name)
def test_all_text_can_be_read_on_every_ground(theme):
    texts = [theme.foreground, theme.primary, theme.secondary, theme.warning, theme.error, theme.success]
    texts += [theme.variables["foreground-muted"], theme.variables["foreground-disabled"]]
    grounds = [theme.background, theme.surface, theme.panel]
    grounds += [theme.variables["cursor-background"], theme.variables["cursor-blurred-background"]]
    grounds.append(theme.variables["chosen-background"])
    for text, ground in itertools.product(texts, grounds):
        assert contrast(Color.parse(text), Color.parse(ground)) >= 4.5, (text, ground)


async def test_without_colour_every_state_is_still_told(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    ids = await filled(store)
    await store.edit.edit_todo(ids["Milk"], "Milk due:2026-03-01 p1 #a")
    async with running(store, (80, 24)) as run:
        await run.press("right", "down", "space")
        await run.until(lambda: "2026" not in "".join(painted(run.todos)))
        strips = run.app.screen._compositor.render_strips()
        filtered = [strip.apply_filter(run.app._filters[0], Color(0, 0, 0)) for strip in strips]
        styles = {segment.style for strip in filtered for segment in strip if segment.style is not None}
        assert all(style.color is None and style.bgcolor is None for style in styles)
        assert any(style.reverse for style in styles)
        assert len(run.app._filters) == 1
        assert [line[0] for line in painted(run.todos)[:3]] == [" ", "┃", "▌"]
        assert "13 days late" in painted(run.todos)[0]
        assert run.status_text.startswith("‖ Paused")


async def test_ctrl_z_tells_where_there_is_no_shell(store: Store):
    async with running(store) as run:
        await run.press("ctrl+z")
        await run.until(lambda: run.toasts == ["This terminal cannot suspend the app."])


async def test_nothing_moves_by_itself_if_that_is_wanted(store: Store):
    app = TodoApp(store, now=lambda: NOW, connect=False, still=True)
    async with app.run_test() as pilot:
        await pilot.pause()
        assert app.animation_level == "none"
        assert not any(field.cursor_blink for field in app.screen.query(EntryField))
