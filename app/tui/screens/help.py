"""All keys, by place, as the registry has them.

Owns their layout only.
"""

from __future__ import annotations

from typing import ClassVar, Final

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from app.tui.actions import ACTIONS, Place, bindings, performs
from app.tui.widgets.lines import TitleLine

_MOST_KEYS: Final = 3


class KeyTable(Static):
    """The table of keys, in two columns."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"key-table--heading", "key-table--key"}

    def on_mount(self) -> None:
        """Fill in the registry's words."""
        heading = self.get_component_rich_style("key-table--heading", partial=True)
        key = self.get_component_rich_style("key-table--key", partial=True)
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column()
        for place in Place:
            if table.row_count:
                table.add_row()
            table.add_row(Text(place.value, heading))
            for action in ACTIONS:
                if action.place is place:
                    table.add_row(Text(" ".join(action.shown_keys[:_MOST_KEYS]), key), Text(action.help))
        self.update(table)


@performs(Place.HELP)
class HelpScreen(ModalScreen[None]):
    """Shows all keys."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.HELP)

    def compose(self) -> ComposeResult:
        """A box with a title and the table."""
        with Vertical(id="help"):
            yield TitleLine("Keys", "esc close")
            with VerticalScroll():
                yield KeyTable()

    def action_close_help(self) -> None:
        """Back to the lists."""
        self.dismiss(None)

    def action_scroll_lines(self, lines: int) -> None:
        """Scroll by some lines."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)
