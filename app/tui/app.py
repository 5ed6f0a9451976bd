"""The terminal application: one store, shown.

Owns the app's life: themes, the main screen, and the background work that lasts as long as the app does. It closes
neither the store nor its database: whoever opened them does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import ClassVar, Final

from textual.app import App
from textual.binding import BindingType

from app.store import Store, local_now
from app.tui.actions import Place, bindings, performs
from app.tui.attempts import retried, tell_failure
from app.tui.literal import visible
from app.tui.screens.main import MainScreen
from app.tui.theme import DARK, LIGHT

_WIDTHS: Final[list[tuple[int, str]]] = [(0, "-narrow"), (60, "-medium"), (100, "-wide")]
_HEIGHTS: Final[list[tuple[int, str]]] = [(0, "-short"), (16, "-tall")]


@performs(Place.ALWAYS)
class TodoApp(App[None], inherit_bindings=False):
    """The to-do list in the terminal.

    It paints before the first query has answered, and needs no connection.

    Args:
        store: what it shows; its database is open.
        now: the clock, giving aware datetimes.
        connect: start syncing at once; otherwise only when the user asks for it.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.ALWAYS)
    CSS_PATH = "app.tcss"
    TITLE = "todo-tui"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = _WIDTHS
    VERTICAL_BREAKPOINTS = _HEIGHTS

    def __init__(self, store: Store, *, now: Callable[[], datetime] = local_now, connect: bool = True) -> None:
        super().__init__()
        self._store = store
        self._now = now
        self._connects = connect
        self._main: MainScreen | None = None
        self._problem: str | None = None
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
        self._main = MainScreen(self._store, self._now)
        return self._main

    def on_mount(self) -> None:
        """Keep all lists subscribed, and connect."""
        self._tell_problem()
        keeping = self._store.keep_subscribed(retried(self))
        self.run_worker(keeping, group="sync")
        if self._connects:
            self.run_worker(tell_failure(self, self._store.connect()), group="sync")

    def show_problem(self, sentence: str | None) -> None:
        """Show why there is nothing to sync with, before any other reason, until this is called with None.

        Each new problem is also told once in a toast. To be called on the event loop; before the app runs, too.

        Args:
            sentence: any text; the problem of the backend inside todo-tui, or None if it has none.
        """
        before, self._problem = self._problem, sentence
        if sentence != before and self.is_running:
            self._tell_problem()

    def _tell_problem(self) -> None:
        if self._main is not None:
            self._main.show_problem(self._problem)
        if self._problem is not None:
            self.notify(visible(self._problem), severity="warning", markup=False)

    async def action_quit(self) -> None:
        """Quit, unless a text is half typed."""
        if self._main is not None:
            self._main.action_quit()
