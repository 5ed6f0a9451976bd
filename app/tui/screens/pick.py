"""A palette: the user types a few words and picks one of many things.

Owns the field, the rows that match, and the keys between them. What is picked, and what happens then, is up to the
caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from app.settings.keymap import Place
from app.tui.actions import bindings, performs
from app.tui.filtering import Filter
from app.tui.widgets.drawn_row import DrawnRow
from app.tui.widgets.entry import EntryField
from app.tui.widgets.lines import TitleLine
from app.tui.widgets.row_list import RowList, RowSelected


@dataclass(frozen=True, slots=True)
class Choice:
    """Something that can be picked.

    Attributes:
        id: what the caller gets.
        text: any text.
        tail: something smaller beside it.
        mark: one cell before it, or empty.
    """

    id: str
    text: str
    tail: str = ""
    mark: str = ""


def _draw(choice: Choice) -> DrawnRow:
    return DrawnRow(choice.text, choice.mark, tail=choice.tail)


class PickRows(RowList[Choice]):
    """The rows: a click picks one.

    Args:
        picked: called once the row under the pointer has the cursor.
    """

    def __init__(self, picked: Callable[[], object]) -> None:
        super().__init__(_draw, empty=("No matches",))
        self._when_picked = picked

    def on_click(self, event: events.Click) -> None:
        """Pick the row under the pointer; the cursor goes there first."""
        super().on_click(event)
        event.prevent_default()
        self._when_picked()


@performs(Place.PICK)
class PickScreen(ModalScreen[None]):
    """Offers choices, and filters them by what is typed.

    Args:
        title: what is picked, in a few words.
        choices: in the order in which they are offered.
        picked: called with the id of the picked one; not if nothing is picked.
        selected: where the cursor is at first.
        preview: called with the id of each choice that the cursor comes to; with `selected` if nothing is picked.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.PICK)

    def __init__(
        self,
        title: str,
        choices: Sequence[Choice],
        picked: Callable[[str], object],
        selected: str | None = None,
        *,
        preview: Callable[[str], object] = lambda _: None,
    ) -> None:
        super().__init__()
        self._preview = preview
        self._title = title
        self._choices = choices
        self._picked = picked
        self._selected = selected
        self._field = EntryField(self.action_pick, self.action_close_pick)
        self._field.submit_action = "pick.pick"
        self._field.close_action = "pick.close_pick"
        self._rows = PickRows(self.action_pick)

    def compose(self) -> ComposeResult:
        """A title, the field, and what matches."""
        with Vertical(id="pick"):
            yield TitleLine(self._title)
            yield self._field
            yield self._rows

    def on_mount(self) -> None:
        """Offer everything."""
        self._rows.can_focus = False
        self._rows.set_rows(self._choices)
        self._rows.styles.max_height = max(1, len(self._choices))
        if self._selected is not None:
            self._rows.select(self._selected)
        self.set_focus(self._field)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        matching = Filter.of(self._field.text)
        self._rows.set_matching(matching)
        self._rows.set_rows([choice for choice in self._choices if matching.matches(choice.text)])
        self._rows.action_first()

    def on_click(self, event: events.Click) -> None:
        """A click beside the palette closes it."""
        if event.widget is self:
            self.action_close_pick()

    def action_pick(self) -> None:
        """Pick the one under the cursor."""
        choice = self._rows.selected
        if choice is not None:
            self.dismiss()
            self._picked(choice.id)

    def action_close_pick(self) -> None:
        """Pick nothing."""
        self.dismiss()
        if self._selected is not None:
            self._preview(self._selected)

    @on(RowSelected)
    def _row_selected(self, event: RowSelected) -> None:
        event.stop()
        if event.row_id is not None and self.is_current:
            self._preview(event.row_id)

    def action_next_choice(self) -> None:
        """Go to the next one."""
        self._rows.action_cursor_down()

    def action_previous_choice(self) -> None:
        """Go to the one before."""
        self._rows.action_cursor_up()
