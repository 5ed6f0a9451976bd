"""A question before something is lost.

Owns the dialog and its two answers. What is confirmed is done by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from app.settings.keymap import Place
from app.tui.actions import bindings, performs


@performs(Place.CONFIRM)
class ConfirmScreen(ModalScreen[None]):
    """Asks for a yes.

    Args:
        question: one short sentence.
        subject: what it is about: one line without control characters, otherwise any text.
        confirmed: called after a yes.
        consequence: what else happens, or empty.
        yes: the label of the button that confirms.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.CONFIRM)
    AUTO_FOCUS = "#no"

    def __init__(
        self,
        question: str,
        subject: str,
        confirmed: Callable[[], object],
        consequence: str = "",
        *,
        yes: str = "Delete",
    ) -> None:
        super().__init__()
        self._question = question
        self._subject = subject
        self._confirmed = confirmed
        self._consequence = consequence
        self._yes = yes

    def compose(self) -> ComposeResult:
        """The question, what it is about, and the answers."""
        with Vertical(id="dialog"):
            yield Static(self._question, id="question", markup=False)
            yield Static(self._subject, id="subject", markup=False)
            if self._consequence:
                yield Static(self._consequence, id="consequence", markup=False)
            with Horizontal(id="answers"):
                yield Button(f"y {self._yes}", id="yes", compact=True)
                yield Button("n Keep", id="no", compact=True)

    def action_confirm(self) -> None:
        """Yes."""
        self.dismiss()
        self._confirmed()

    def action_decline(self) -> None:
        """No."""
        self.dismiss()

    def action_next_answer(self) -> None:
        """Move between the answers."""
        self.focus_next()

    @on(Button.Pressed)
    def _answered(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "yes":
            self.action_confirm()
        else:
            self.action_decline()
