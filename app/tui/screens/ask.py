"""A question for one line of text.

Owns the dialog. What happens with the text is up to the caller.
"""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen

from app.tui.widgets.entry import EntryField
from app.tui.widgets.lines import TitleLine


class AskScreen(ModalScreen[None]):
    """Asks for a text; an empty one counts as none.

    Args:
        question: in a few words.
        text: the text to begin with.
        answered: called with another text.
    """

    def __init__(self, question: str, text: str, answered: Callable[[str], object]) -> None:
        super().__init__()
        self._question = question
        self._text = text
        self._answered = answered
        self._field = EntryField(self._submitted, self._left)

    def compose(self) -> ComposeResult:
        """The question above the field."""
        with Vertical(id="ask"):
            yield TitleLine(self._question)
            yield self._field

    def on_mount(self) -> None:
        """Take the keyboard."""
        self._field.text = self._text
        self.set_focus(self._field)

    def _submitted(self) -> None:
        text = self._field.text
        self.dismiss()
        if text.strip():
            self._answered(text)

    def _left(self) -> None:
        self.dismiss()
