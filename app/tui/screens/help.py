"""All keys in force, by place, filtered by what is typed.

Owns their layout only.
"""

from __future__ import annotations

from typing import ClassVar, Final

from rich.table import Table
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from app.settings.keymap import ACTIONS, Place
from app.tui.actions import bindings, keymap_of, performs
from app.tui.filtering import Filter
from app.tui.widgets.entry import EntryField
from app.tui.widgets.lines import TitleLine

_MOST_KEYS: Final = 3


class KeyTable(Static):
    """The table of keys, in two columns."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"key-table--heading", "key-table--key"}

    def show(self, matching: Filter) -> None:
        """Show the actions whose words, keys or place match."""
        heading = self.get_component_rich_style("key-table--heading", partial=True)
        key = self.get_component_rich_style("key-table--key", partial=True)
        keymap = keymap_of(self)
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column()
        for place in Place:
            rows = [
                (shown, action.help)
                for action in ACTIONS
                if action.place is place
                and (shown := " ".join(keymap.shown(action.id)[:_MOST_KEYS]))
                and matching.matches(f"{shown} {action.help} {place.value}")
            ]
            if rows and table.row_count:
                table.add_row()
            if rows:
                table.add_row(Text(place.value, heading))
            for shown, text in rows:
                table.add_row(Text(shown, key), Text(text))
        if not table.row_count:
            table.add_row(Text("No matches", heading))
        self.update(table)


@performs(Place.HELP)
class HelpScreen(ModalScreen[None]):
    """Shows all keys."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.HELP)

    def __init__(self) -> None:
        super().__init__()
        self._field = EntryField(lambda: None, self.action_close_help)
        self._field.close_action = "help.close_help"
        self._field.placeholder = "Type to search"
        self._table = KeyTable()

    def compose(self) -> ComposeResult:
        """A box with a title, a field, and the table."""
        with Vertical(id="help"):
            yield TitleLine("Keys", "esc close")
            yield self._field
            with VerticalScroll(can_focus=False):
                yield self._table

    def on_mount(self) -> None:
        """Show all of them."""
        self._table.show(Filter(()))
        self.set_focus(self._field)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._table.show(Filter.of(self._field.text))
        self.query_one(VerticalScroll).scroll_home(animate=False)

    def action_close_help(self) -> None:
        """Back to the screen below."""
        self.dismiss(None)

    def action_scroll_lines(self, lines: int) -> None:
        """Scroll by some lines."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)
