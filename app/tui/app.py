"""The terminal application, which shows one store.

Owns the app's life: themes, the main screen, and the background work that lasts as long as the app does. It closes
neither the store nor its database: whoever opened them does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import ClassVar, Final

from textual.app import App
from textual.binding import BindingType
from textual.command import Provider

from app.settings.keymap import DEFAULT, Keymap, Place
from app.store import Store
from app.system.clock import local_now
from app.system.display_text import sanitized
from app.tui.actions import bindings, performs
from app.tui.attempts import notify_failure, notify_retry
from app.tui.no_color import WithoutColor
from app.tui.screens.main import MainScreen
from app.tui.theme import DARK, LIGHT

_WIDTHS: Final[list[tuple[int, str]]] = [(0, "-narrow"), (60, "-medium"), (100, "-wide")]
_HEIGHTS: Final[list[tuple[int, str]]] = [(0, "-short"), (16, "-tall")]


def actions_provider() -> type[Provider]:
    """The actions in the command palette, loaded when it opens first."""
    from app.tui.palette import ActionsProvider

    return ActionsProvider


@performs(Place.ALWAYS)
class TodoApp(App[None], inherit_bindings=False):
    """The to-do list in the terminal.

    It paints before the first query has answered, and needs no connection. Only the store is required: the other
    arguments are the user's settings, and what tests and screenshots replace, each with a default; that is why there
    are more than five.

    Args:
        store: what it shows; its database is open.
        now: the clock, giving aware datetimes.
        connect: start syncing at once; otherwise only when the user asks for it.
        keymap: the keys in force.
        theme: the name of a theme; an unknown one is ignored.
        remember_theme: called with the name of a theme that the user chose.
        still: whether to turn animations off.
        log: returns the last lines of the log, the newest first.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.ALWAYS)
    CSS_PATH = "app.tcss"
    TITLE = "todo-tui"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {actions_provider}
    HORIZONTAL_BREAKPOINTS = _WIDTHS
    VERTICAL_BREAKPOINTS = _HEIGHTS

    def __init__(
        self,
        store: Store,
        *,
        now: Callable[[], datetime] = local_now,
        connect: bool = True,
        keymap: Keymap = DEFAULT,
        theme: str | None = None,
        remember_theme: Callable[[str], object] = lambda _: None,
        still: bool = False,
        log: Callable[[], list[str]] = list,
    ) -> None:
        super().__init__()
        self.keys_in_force: Final = keymap
        self._store = store
        self._now = now
        self._connects = connect
        self._log_lines = log
        self._remember_theme = remember_theme
        self._main: MainScreen | None = None
        self._problem: str | None = None
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = theme if theme in self.available_themes else DARK.name
        self.set_keymap({action_id: ",".join(keys) for action_id, keys in keymap.keys.items()})
        if still:
            self.animation_level = "none"
        if self.no_color:
            # Textual's own way is shades of grey.
            self._filters = [WithoutColor()]

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Give the app's own colour names a value in themes that do not know them."""
        return {
            "cursor-background": "ansi_bright_black",
            "cursor-blurred-background": "ansi_default",
            "chosen-background": "ansi_default",
            "foreground-disabled": "ansi_bright_black",
        }

    def get_default_screen(self) -> MainScreen:
        """The main screen is the first thing that is painted."""
        self._main = MainScreen(self._store, self._now, self._log_lines)
        return self._main

    def on_mount(self) -> None:
        """Keep all lists subscribed, and connect."""
        self._announce_problem()
        keeping = self._store.keep_subscribed(notify_retry(self))
        self.run_worker(keeping, group="sync")
        if self._connects:
            self.run_worker(notify_failure(self, self._store.connect()), group="sync")

    def show_problem(self, sentence: str | None) -> None:
        """Show why there is nothing to sync with, before any other reason, until this is called with None.

        Each new problem is also shown once in a toast. To be called on the event loop, also before the app runs.

        Args:
            sentence: any text; the problem of the backend inside todo-tui, or None if it has none.
        """
        before, self._problem = self._problem, sentence
        if sentence != before and self.is_running:
            self._announce_problem()

    def _announce_problem(self) -> None:
        if self._main is not None:
            self._main.show_problem(self._problem)
        if self._problem is not None:
            self.notify(sanitized(self._problem), severity="warning", markup=False)

    async def action_quit(self) -> None:
        """Quit, unless a text is half typed."""
        if self._main is not None:
            self._main.action_quit()

    def action_choose_theme(self) -> None:
        """Choose a theme; each is shown while the cursor is on it."""
        from app.tui.screens.pick import Choice, PickScreen

        before = self.theme
        own = [DARK.name, LIGHT.name]
        names = own + sorted(name for name in self.available_themes if name not in own)

        def show(name: str) -> None:
            self.theme = name

        def keep(name: str) -> None:
            self.theme = name
            self._remember_theme(name)

        choices = [Choice(name, name, "todo-tui" if name in own else "") for name in names]
        self.push_screen(PickScreen("Theme", choices, keep, before, preview=show))

    def action_suspend_process(self) -> None:
        """Suspend to the shell, if the terminal can."""
        if self._driver is not None and not self._driver.can_suspend:
            self.notify("This terminal cannot suspend the app.", markup=False)
        super().action_suspend_process()
