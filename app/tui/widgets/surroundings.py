"""What the panes need from the screen around them.

Owns that one protocol; the main screen implements it. Its methods are plain calls and no messages: what they do has
happened before the next key is handled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from app.store import TodoList
from app.tui.widgets.entry import EntryRequest


class Surroundings(Protocol):
    """The screen, as its panes see it."""

    @property
    def lists(self) -> Sequence[TodoList]:
        """All lists, oldest first."""
        ...

    def ask(self, request: EntryRequest) -> None:
        """Open the entry line."""
        ...

    def focus_lists(self) -> None:
        """Give the keyboard to the lists."""
        ...

    def focus_todos(self) -> None:
        """Give the keyboard to the to-dos."""
        ...

    def clear_filter(self) -> None:
        """Clear the filter of the open view."""
        ...
