"""How the interface tests run the app: fixed size, fixed clock, and waiting for what they expect to see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from textual.pilot import Pilot

from app.store import Store, Todo, TodoList
from app.tui.app import TodoApp
from app.tui.screens.main import MainScreen
from app.tui.widgets.entry import Entry, EntryField
from app.tui.widgets.lines import KeyBar, Line, StatusLine, TitleLine
from app.tui.widgets.lists_pane import ListsPane, SidebarRow
from app.tui.widgets.row_list import RowList
from app.tui.widgets.todo_rows import TodoRows
from tests.app.conftest import NOW

WAIT_SECONDS = 60.0


@dataclass
class Running:
    """The app while it runs."""

    app: TodoApp
    pilot: Pilot[None]

    @property
    def main(self) -> MainScreen:
        return cast("MainScreen", self.app.screen_stack[0])

    @property
    def lists(self) -> RowList[SidebarRow]:
        return self.main.query_one(ListsPane).rows

    @property
    def todos(self) -> RowList[Todo]:
        return self.main.query_one(TodoRows).rows

    @property
    def entry(self) -> Entry:
        return self.main.query_one(Entry)

    @property
    def field(self) -> EntryField:
        return self.entry.query_one(EntryField)

    @property
    def names(self) -> list[str | None]:
        return [row.name for row in self.lists.rows if isinstance(row, TodoList)]

    @property
    def texts(self) -> list[str | None]:
        return [todo.description for todo in self.todos.rows]

    @property
    def selected_text(self) -> str | None:
        todo = self.todos.selected
        return todo.description if todo is not None else None

    @property
    def toasts(self) -> list[str]:
        return [toast.message for toast in self.app._notifications]

    @property
    def status_text(self) -> str:
        return line_text(self.main.query_one(StatusLine))

    @property
    def keys_text(self) -> str:
        return line_text(self.main.query_one(KeyBar))

    @property
    def title(self) -> str:
        return self.main.query_one(TodoRows).query_one(TitleLine).title

    @property
    def title_text(self) -> str:
        return line_text(self.main.query_one(TodoRows).query_one(TitleLine))

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the app work until the condition holds."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                await self.pilot.pause()
        await self.pilot.pause()


def line_text(line: Line) -> str:
    return line.render_line(0).text


def painted(rows: RowList[Todo] | RowList[TodoList]) -> list[str]:
    return [rows.render_line(y).text.rstrip() for y in range(rows.size.height)]


@asynccontextmanager
async def running(
    store: Store, size: tuple[int, int] = (80, 24), *, connect: bool = False, **options: Any
) -> AsyncGenerator[Running]:
    """Run the app until its lists are on the screen; the cursor does not blink."""
    app = TodoApp(store, now=lambda: NOW, connect=connect, **options)
    async with app.run_test(size=size) as pilot:
        run = Running(app, pilot)
        run.field.cursor_blink = False
        await run.until(lambda: bool(run.lists.rows and run.title) or run.main.has_class("-welcome"))
        yield run


async def filled(store: Store) -> dict[str, str]:
    """Three lists, the first with open and done to-dos; returns the ids by name."""
    ids = {name: await store.edit.add_list(name) for name in ("Groceries", "House and garden", "Reading")}
    texts = ["Milk", "Bread from the bakery on the corner", "Apples, the red ones", "Eggs", "Butter"]
    ids |= dict(zip(texts, await store.edit.add_todos(ids["Groceries"], texts), strict=True))
    for text in ("Eggs", "Butter"):
        await store.edit.set_completed([ids[text]], completed=True)
    await store.edit.add_todos(ids["House and garden"], ["Fix the tap", "Plant the tomatoes"])
    return ids
