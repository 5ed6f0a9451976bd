"""The row list alone: cursor, scrolling, and what it paints."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from rich.cells import cell_len
from textual import on
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.pilot import Pilot

from app.tui.widgets.row_list import DrawnRow, RowActivated, RowList, RowMarked, RowSelected

HEIGHT = 8
WIDTH = 30


@dataclass(frozen=True, slots=True)
class Word:
    id: str
    text: str
    mark: str = "○"


class CountingList(RowList[Word]):
    """Notes which regions it was asked to paint."""

    def __init__(self) -> None:
        super().__init__(lambda word: DrawnRow(word.text, word.mark), empty=("Nothing", "Add something."))
        self.refreshed: list[Region] = []

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False):
        if hasattr(self, "refreshed"):
            self.refreshed.extend(regions or [Region(0, 0, WIDTH, HEIGHT)])
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)


class ListApp(App[None]):
    CSS = "RowList { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self.rows = CountingList()
        self.heard: list[tuple[str, str | None]] = []

    def compose(self) -> ComposeResult:
        yield self.rows

    @on(RowSelected)
    def selected(self, event: RowSelected) -> None:
        self.heard.append(("selected", event.row_id))

    @on(RowActivated)
    def activated(self, event: RowActivated) -> None:
        self.heard.append(("activated", event.row_id))

    @on(RowMarked)
    def marked(self, event: RowMarked) -> None:
        self.heard.append(("marked", event.row_id))


def words(*numbers: int) -> list[Word]:
    return [Word(str(number), f"word {number}") for number in numbers]


@asynccontextmanager
async def showing(rows: Sequence[Word]) -> AsyncGenerator[tuple[CountingList, Pilot[None], ListApp]]:
    app = ListApp()
    async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
        app.rows.set_rows(rows)
        await pilot.pause()
        yield app.rows, pilot, app


def screen_line(rows: RowList[Word]) -> int:
    """The line of the screen that the cursor is on."""
    return next(y for y in range(HEIGHT) if rows.render_line(y).text.startswith("▌"))


async def test_the_first_row_is_selected():
    async with showing(words(1, 2)) as (rows, _, app):
        assert rows.selected_id == "1"
        assert app.heard == [("selected", "1")]
        assert rows.render_line(0).text == "▌ ○ word 1                    "
        assert rows.render_line(1).text == "  ○ word 2                    "


async def test_without_rows_it_says_so():
    async with showing([]) as (rows, pilot, _):
        assert [rows.render_line(y).text.strip() for y in (2, 3)] == ["Nothing", "Add something."]
        assert rows.selected is None
        await pilot.press("down", "G", "g")
        rows.set_rows(words(1))
        assert rows.selected_id == "1"
        rows.set_rows([])
        assert rows.selected is None


@pytest.mark.parametrize(
    ("keys", "selected"),
    [
        ("down", "1"), ("j j", "2"), ("j k", "0"), ("up", "0"), ("G", "49"), ("end k", "48"), ("G g", "0"),
        ("end home", "0"), ("pagedown", "8"), ("pagedown pageup", "0"), ("G down", "49"), ("ctrl+f ctrl+b", "0"),
    ],
)  # fmt: skip
async def test_keys_move_the_cursor_and_it_stays_in_sight(keys: str, selected: str):
    async with showing(words(*range(50))) as (rows, pilot, _):
        await pilot.press(*keys.split())
        assert rows.selected_id == selected
        assert 0 <= screen_line(rows) < HEIGHT


async def test_the_cursor_stays_on_its_row_and_line_when_rows_come_and_go_above():
    async with showing(words(*range(50))) as (rows, pilot, _):
        await pilot.press("pagedown", "pagedown", "up", "up")
        selected, line = rows.selected_id, screen_line(rows)
        assert selected == "14"
        rows.set_rows([*words(100, 101, 102), *rows.rows])
        await pilot.pause()
        assert (rows.selected_id, screen_line(rows)) == (selected, line)
        rows.set_rows(rows.rows[8:])
        await pilot.pause()
        assert (rows.selected_id, screen_line(rows)) == (selected, line)


async def test_with_the_cursor_out_of_sight_the_topmost_row_stays():
    async with showing(words(*range(50))) as (rows, pilot, _):
        rows.scroll_to(y=20, animate=False)
        await pilot.pause()
        assert "word 20" in rows.render_line(0).text
        rows.set_rows([*words(100, 101), *rows.rows])
        await pilot.pause()
        assert "word 20" in rows.render_line(0).text
        assert rows.selected_id == "0"


async def test_when_the_selected_row_goes_its_neighbour_is_selected():
    async with showing(words(1, 2, 3, 4, 5)) as (rows, pilot, app):
        await pilot.press("j", "j")
        rows.set_rows(words(1, 2, 4, 5))
        assert rows.selected_id == "4"
        rows.set_rows(words(1, 2))
        assert rows.selected_id == "2"
        await pilot.pause()
        assert app.heard[-1] == ("selected", "2")


async def test_the_cursor_follows_a_row_that_moves():
    async with showing(words(1, 2, 3, 4)) as (rows, _, _app):
        rows.set_rows(words(2, 3, 4, 1))
        assert rows.selected_id == "1"


async def test_selecting_a_row_that_is_still_to_come():
    async with showing(words(*range(20))) as (rows, pilot, _):
        rows.select("30")
        assert rows.selected_id == "0"
        rows.set_rows(words(*range(40)))
        await pilot.pause()
        assert rows.selected_id == "30"
        assert "word 30" in rows.render_line(screen_line(rows)).text


async def test_a_row_that_came_and_was_selected_does_not_pull_the_list_back_to_it():
    async with showing(words(*range(20))) as (rows, pilot, _):
        rows.select("30")
        rows.set_rows(words(*range(40)))
        rows.scroll_to(y=0, animate=False)
        await pilot.pause()
        rows.set_rows(words(*range(41)))
        await pilot.pause()
        assert rows.scroll_offset.y == 0
        assert rows.selected_id == "30"


async def test_a_row_that_comes_late_does_not_take_the_cursor_from_where_it_was_moved():
    async with showing(words(*range(20))) as (rows, pilot, _):
        rows.select("30")
        await pilot.press("j")
        rows.set_rows(words(*range(40)))
        assert rows.selected_id == "1"


async def test_only_lines_whose_object_changed_are_painted():
    async with showing(words(*range(50))) as (rows, pilot, app):
        heard = list(app.heard)
        rows.refreshed.clear()
        changed = list(rows.rows)
        changed[3] = Word("3", "other")
        changed[30] = Word("30", "out of sight")
        rows.set_rows(changed)
        assert [(region.y, region.height) for region in rows.refreshed] == [(3, 1)]
        await pilot.pause()
        assert app.heard == heard
        rows.refreshed.clear()
        await pilot.press("down")
        assert sorted(region.y for region in rows.refreshed) == [0, 1]


async def test_a_click_selects_and_a_click_on_the_mark_marks():
    async with showing(words(1, 2, 3)) as (rows, pilot, app):
        await pilot.click(rows, offset=(8, 1))
        assert rows.selected_id == "2"
        await pilot.click(rows, offset=(2, 2))
        assert rows.selected_id == "2"
        assert app.heard[-1] == ("marked", "3")
        await pilot.click(rows, offset=(8, 6))
        assert rows.selected_id == "2"


async def test_a_double_click_activates():
    async with showing(words(1, 2, 3)) as (rows, pilot, app):
        await pilot.click(rows, offset=(8, 1), times=2)
        assert app.heard[-1] == ("activated", "2")


async def test_the_wheel_scrolls_without_moving_the_cursor():
    async with showing(words(*range(50))) as (rows, pilot, _):
        rows.scroll_down(animate=False)
        await pilot.pause()
        assert rows.scroll_offset.y > 0
        assert rows.selected_id == "0"
        await pilot.press("down")
        assert rows.selected_id == "1"
        assert 0 <= screen_line(rows) < HEIGHT


async def test_a_hundred_thousand_rows_are_drawn_only_where_they_are_seen():
    drawn: list[str] = []

    class Huge(App[None]):
        CSS = "RowList { height: 1fr; }"

        def compose(self) -> ComposeResult:
            yield RowList[Word](lambda word: drawn.append(word.id) or DrawnRow(word.text))

    app = Huge()
    async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
        app.query_one(RowList).set_rows(words(*range(100_000)))
        await pilot.pause()
        assert set(drawn) == {str(number) for number in range(HEIGHT)}


RUBBISH = [
    "[bold red]not markup[/] [link=x]",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "nul\x00 bell\x07 back\x08 del\x7f csi\x9b31m",
    "tab\there\nnewline\r\nand\rreturn\u2028sep",
    "e\u0301\u0302\u0303" * 200,
    "日本語" * 100,
    "👨‍👩‍👧‍👦 family 🏳️‍🌈 flag 👍🏽 " * 10,
    "\u202eright to left\u2066",
    "\ufe0f\u200d\u200d",
    "\ud800 lone",
    "x" * 10_000,
    "\u0301" * 10_000,
]


@pytest.mark.parametrize("text", RUBBISH)
async def test_any_text_is_one_line_of_the_right_width_without_control_characters(text: str):
    async with showing([Word("1", text), Word("2", "after")]) as (rows, _, _app):
        line = rows.render_line(0).text
        assert cell_len(line) == WIDTH
        assert not [character for character in line if ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0]
        line.encode()
        assert rows.render_line(1).text.strip() == "○ after"
