"""The terminal application: one store, shown.

Owns the app's life: themes, the main screen, and the background work that lasts as long as the app does. It closes
neither the store nor its database: whoever opened them does.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Final

from textual.app import App

from app.store import Store, StoreError, utc_now
from app.tui.screens.main import MainScreen
from app.tui.theme import DARK, LIGHT

_WIDTHS: Final[list[tuple[int, str]]] = [(0, "-narrow"), (60, "-medium"), (100, "-wide")]
_HEIGHTS: Final[list[tuple[int, str]]] = [(0, "-short"), (16, "-tall")]


class TodoApp(App[None]):
    """The to-do list in the terminal.

    It paints before the first query has answered, and needs no connection.

    Args:
        store: what it shows; its database is open.
        now: the clock, giving aware datetimes.
        connect: start syncing at once; otherwise only when the user asks for it.
    """

    CSS_PATH = "app.tcss"
    TITLE = "todo-tui"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = _WIDTHS
    VERTICAL_BREAKPOINTS = _HEIGHTS

    def __init__(self, store: Store, *, now: Callable[[], datetime] = utc_now, connect: bool = True) -> None:
        super().__init__()
        self._store = store
        self._now = now
        self._connects = connect
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = DARK.name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Give the app's own colour names a value in themes that do not know them."""
        return {
            "cursor-background": "ansi_bright_black",
            "cursor-blurred-background": "ansi_default",
            "foreground-disabled": "ansi_bright_black",
        }

    def get_default_screen(self) -> MainScreen:
        """The main screen is the first thing that is painted."""
        return MainScreen(self._store, self._now)

    def on_mount(self) -> None:
        """Keep all lists subscribed, and connect."""
        self.run_worker(self._tell_failure(self._store.keep_subscribed()), group="sync")
        if self._connects:
            self.run_worker(self._tell_failure(self._store.connect()), group="sync")

    async def _tell_failure(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except StoreError as error:
            self.notify(str(error), severity="error", markup=False)
