"""What is shown while there are no lists: a welcome with an offer, or a word that lists may be on their way.

Owns those words. Whether there are lists, and whether any are expected, is up to the main screen.
"""

from __future__ import annotations

from typing import ClassVar, Final

from rich.text import Text
from textual.widget import Widget

from app.tui.actions import keymap_of

_OFFERS: Final = ("anywhere.add_first_list", "anywhere.add_sample", "anywhere.help")
_WORDS: Final = ("create your first list", "try a sample list", "show all keys")


class Welcome(Widget):
    """An invitation to begin."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"welcome--title", "welcome--key", "welcome--text"}

    def __init__(self) -> None:
        super().__init__()
        self._expecting = False

    def show(self, *, expecting: bool) -> None:
        """Say that lists are expected, or invite to make one."""
        if expecting is not self._expecting:
            self._expecting = expecting
            self.refresh(layout=True)

    def render(self) -> Text:
        """The words."""
        title, key, plain = (
            self.get_component_rich_style(f"welcome--{part}", partial=True) for part in ("title", "key", "text")
        )
        if self._expecting:
            return Text.assemble(("Looking for your lists…", title), no_wrap=True)
        text = Text.assemble(
            ("A fresh start", title),
            "\n\n",
            ("Your lists live on this device.\n", plain),
            ("They work online and offline.\n\n", plain),
            no_wrap=True,
        )
        for offer, words in zip(_OFFERS, _WORDS, strict=True):
            text.append(f"{keymap_of(self).first(offer)}  ", key)
            text.append(f"{words}\n", plain)
        text.rstrip()
        return text
