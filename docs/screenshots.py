"""Makes the pictures of the README from the app itself: `python docs/screenshots.py`.

Owns what is on them. The app runs with a real database in a temporary directory, a clock that stands still, and a
state of synchronization that is given, not waited for. NO_COLOR must not be set.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from textual.pilot import Pilot

from app.store import Store
from app.store.schema import APP_SCHEMA
from app.tui.app import TodoApp
from app.tui.screens.main import MainScreen
from app.tui.widgets.entry import EntryField
from app.tui.widgets.row_list import RowList
from sync import PowerSyncDatabase, SyncStatus

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
USER = "6f0d5c1e-8a43-4d0b-9d0e-3c1b7a52e4f9"
LISTS = {
    "Groceries": ["Oat milk", "Bread from the bakery on the corner", "Apples, the red ones", "Coffee", "Eggs"],
    "House and garden": [
        "Pay rent due:2026-12-01T09:00 p1 #home rec:1m",
        "Call the chimney sweep due:2026-11-20 p2\nHe asked for the key of the attic.",
        "Fix the tap due:2026-11-22 #kitchen",
        "Plant the tulips due:2026-11-23",
        "Sort the shelves",
    ],
    "Reading": ["The Dispossessed", "Designing Data-Intensive Applications #work"],
}
DONE = {"Coffee", "Eggs"}
CONNECTED = SyncStatus(wanted=True, connected=True, last_synced_at=NOW - timedelta(seconds=8))
FRAME_SECONDS = 1.1


async def fill(store: Store) -> None:
    """Put the lists and to-dos of the pictures into a store."""
    for name, texts in LISTS.items():
        list_id = await store.edit.add_list(name)
        for todo_id, text in zip(await store.edit.add_todos(list_id, texts), texts, strict=True):
            if text in DONE:
                await store.edit.set_completed([todo_id], completed=True)


@asynccontextmanager
async def running(size: tuple[int, int], theme: str) -> AsyncGenerator[tuple[TodoApp, Pilot[None]]]:
    """The app with its lists, as if everything was synced."""

    async def stay_offline() -> None:
        """Nothing is to change while the picture is taken."""

    with tempfile.TemporaryDirectory() as directory:
        async with PowerSyncDatabase(Path(directory) / "todo.db", APP_SCHEMA) as database:
            store = Store(database, USER, stay_offline, now=lambda: NOW)
            await fill(store)
            await [each async for each in database.crud_transactions()][-1].complete()
            app = TodoApp(store, now=lambda: NOW, connect=False, theme=theme)
            async with app.run_test(size=size) as pilot:
                screen = cast("MainScreen", app.screen)
                async with asyncio.timeout(10):
                    while not all(rows.rows for rows in screen.query(RowList)):
                        await pilot.pause()
                for field in screen.query(EntryField):
                    field.cursor_blink = False
                await at_rest(pilot)
                screen.show_status(CONNECTED)
                yield app, pilot


async def at_rest(pilot: Pilot[None]) -> None:
    """Let queries answer, and what follows be painted."""
    for _ in range(5):
        await pilot.pause(0.03)


async def make(target: Path, size: tuple[int, int], keys: Sequence[str], theme: str = "todo-dark") -> None:
    """Write one screenshot, after some keys."""
    async with running(size, theme) as (app, pilot):
        await pilot.press(*keys)
        await at_rest(pilot)
        app.clear_notifications()
        await at_rest(pilot)
        target.write_text(app.export_screenshot(title="todo-tui"), encoding="utf-8")


async def make_film(target: Path, size: tuple[int, int], scenes: Sequence[Sequence[str]]) -> None:
    """Write an SVG that shows a session, one picture after the keys of each scene, again and again."""
    frames: list[str] = []
    async with running(size, "todo-dark") as (app, pilot):
        for keys in scenes:
            await pilot.press(*keys)
            await at_rest(pilot)
            frames.append(app.export_screenshot(title="todo-tui"))
    box = re.search(r'viewBox="([^"]+)"', frames[0])
    assert box is not None
    total = FRAME_SECONDS * len(frames)
    shown = f"{100 / len(frames):.3f}%"
    style = (
        f"@keyframes show {{ 0%, {shown} {{ visibility: visible }} {shown}, 100% {{ visibility: hidden }} }}"
        f" .frame {{ visibility: hidden; animation: show {total:.1f}s steps(1, end) infinite }}"
    )
    parts = [f'<svg viewBox="{box[1]}" xmlns="http://www.w3.org/2000/svg"><style>{style}</style>']
    for number, frame in enumerate(frames):
        own = re.sub(r"terminal-\d+", f"frame{number}", frame)
        parts.append(f'<g class="frame" style="animation-delay: {number * FRAME_SECONDS:.1f}s">{own}</g>')
    target.write_text("\n".join([*parts, "</svg>"]), encoding="utf-8")


FILM = (
    (),
    ("a",),
    tuple("Call mom tomorrow 9am "),
    tuple("p1 #family"),
    ("enter", "escape"),
    ("o",),
    tuple("hou"),
    ("enter",),
    ("space", "space"),
    ("x",),
    ("u",),
    ("slash", *"ru"),
)


async def main() -> None:
    """Write all pictures beside this file."""
    here = Path(__file__).parent
    down = ("down",)
    await make(here / "screenshot.svg", (110, 22), (*down, "right", "down"))
    await make(here / "adding.svg", (92, 18), (*down, "a", *"Pay rent tomorrow 9am p1 #home every month"))
    await make(here / "light.svg", (92, 18), (*down, "right", "v", "down", "down"), "todo-light")
    await make(here / "narrow.svg", (40, 14), (*down, "right"))
    await make_film(here / "session.svg", (92, 20), FILM)


if __name__ == "__main__":
    asyncio.run(main())
