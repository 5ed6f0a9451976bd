"""Makes the screenshots of the README from the app itself: `python docs/screenshots.py`.

Owns what is on them. The app runs with a real database in a temporary directory, a clock that stands still, and a
state of synchronization that is given, not waited for. NO_COLOR must not be set.
"""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from app.schema import APP_SCHEMA
from app.store import Store
from app.tui.app import TodoApp
from app.tui.screens.main import MainScreen
from app.tui.widgets.row_list import RowList
from sync import PowerSyncDatabase, SyncStatus

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
USER = "6f0d5c1e-8a43-4d0b-9d0e-3c1b7a52e4f9"
LISTS = {
    "Groceries": ["Oat milk", "Bread from the bakery on the corner", "Apples, the red ones", "Coffee", "Eggs"],
    "House and garden": ["Fix the tap", "Plant the tulips", "Call the chimney sweep"],
    "Reading": ["The Dispossessed", "Designing Data-Intensive Applications"],
}
DONE = {"Coffee", "Eggs"}


async def fill(store: Store) -> None:
    """Put the lists and to-dos of the picture into a store."""
    for name, texts in LISTS.items():
        list_id = await store.add_list(name)
        for todo_id, text in zip(await store.add_todos(list_id, texts), texts, strict=True):
            if text in DONE:
                await store.set_completed([todo_id], completed=True)


async def make(target: Path, size: tuple[int, int], status: SyncStatus) -> None:
    """Write one screenshot of the main screen."""

    async def stay_offline() -> None:
        """Nothing is to change while the picture is taken."""

    with tempfile.TemporaryDirectory() as directory:
        async with PowerSyncDatabase(Path(directory) / "todo.db", APP_SCHEMA) as database:
            store = Store(database, USER, stay_offline, now=lambda: NOW)
            await fill(store)
            app = TodoApp(store, now=lambda: NOW, connect=False)
            async with app.run_test(size=size) as pilot:
                screen = cast("MainScreen", app.screen)
                async with asyncio.timeout(10):
                    while not all(rows.rows for rows in screen.query(RowList)):
                        await pilot.pause()
                await pilot.press("right", "down")
                screen.show_status(status)
                await pilot.pause()
                target.write_text(app.export_screenshot(title="todo-tui"), encoding="utf-8")


async def main() -> None:
    """Write all screenshots beside this file."""
    connected = SyncStatus(wanted=True, connected=True, last_synced_at=NOW - timedelta(seconds=8))
    here = Path(__file__).parent
    await make(here / "screenshot.svg", (92, 20), connected)


if __name__ == "__main__":
    asyncio.run(main())
