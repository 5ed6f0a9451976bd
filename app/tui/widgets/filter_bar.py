"""The line in which a filter is typed, and which shows it while it is set.

Owns what is typed there. What a filter hides is up to whoever gets it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widgets import Input

from app.settings.keymap import Place
from app.tui.actions import bindings, performs
from app.tui.filtering import Filter
from app.tui.typed_textual import screen_of
from app.tui.widgets.entry import EntryField
from app.tui.widgets.lines import TitleLine


@performs(Place.FILTER)
class FilterField(EntryField, inherit_bindings=False):
    """The field: as harmless as the one for to-dos, with its own two keys."""

    BINDINGS: ClassVar[list[BindingType]] = [*Input.BINDINGS, *bindings(Place.FILTER)]


class FilterBar(Horizontal):
    """A slash and a field, hidden while nothing is filtered.

    Args:
        changed: called with each other filter, at once.
        leave: puts the keyboard to the rows.
    """

    def __init__(self, changed: Callable[[Filter], None], leave: Callable[[], None]) -> None:
        super().__init__()
        self._field = FilterField(self._keep, self.close)
        self._field.submit_action = "filter.submit"
        self._field.close_action = "filter.close"
        self._changed = changed
        self._leave = leave
        self._filter = Filter(())

    def compose(self) -> ComposeResult:
        """What it is, and the field."""
        yield TitleLine("/")
        yield self._field

    @property
    def has_keyboard(self) -> bool:
        """Whether what is typed goes here."""
        return screen_of(self).focused is self._field

    def ask(self) -> None:
        """Take the keyboard; a filter that is in force can be changed."""
        self.add_class("-open")
        self._field.cursor_position = len(self._field.value)
        screen_of(self).set_focus(self._field)

    def close(self) -> None:
        """Clear the filter, and give the keyboard back if it is here."""
        had_keyboard = self.has_keyboard
        self._field.text = ""
        self._apply()
        self.remove_class("-open")
        if had_keyboard:
            self._leave()

    def _keep(self) -> None:
        self._apply()
        if self._filter:
            self._leave()
        else:
            self.close()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._apply()

    def _apply(self) -> None:
        wanted = Filter.of(self._field.text)
        if wanted != self._filter:
            self._filter = wanted
            self._changed(wanted)
