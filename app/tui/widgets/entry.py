"""The line in which texts are typed: new lists and to-dos, other names, other wordings.

Owns the typed text until it is stored: a text that could not be stored comes back, so that nothing has to be typed
twice. What is stored, and how, is in the request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.widgets import Input

from app.store import StoreError
from app.tui.actions import BY_ID, Place, bindings, performs
from app.tui.literal import LINE_BREAK, visible
from app.tui.typed import app_of, screen_of
from app.tui.widgets.lines import TitleLine

_SUBMIT_KEYS: Final = frozenset(BY_ID["entry.submit"].keys)
_CLOSE_KEYS: Final = frozenset(BY_ID["entry.close"].keys)


@dataclass(frozen=True, slots=True)
class EntryRequest:
    """What the entry line asks the user for.

    Attributes:
        label: what is being typed, plain text.
        submit: stores the texts; raises `StoreError` if they were not stored.
        value: the text to begin with.
        repeats: the line stays open for the next one, and a paste of several lines submits them all.
    """

    label: str
    submit: Callable[[list[str]], Awaitable[None]]
    value: str = ""
    repeats: bool = False


@performs(Place.ENTRY)
class EntryField(Input):
    """An input that acts on its keys at once and in order, so that quick typing loses nothing.

    Args:
        submitted: called with the texts, stripped and not empty, and the field's text as it was.
        closed: called when the field is left.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.ENTRY)

    def __init__(self, submitted: Callable[[list[str], str], None], closed: Callable[[], None]) -> None:
        super().__init__(compact=True, select_on_focus=False)
        self.takes_lines = False
        self._when_submitted = submitted
        self._when_closed = closed

    def on_key(self, event: events.Key) -> None:
        """Act on the field's own keys here and now; a binding would act after letters that are typed ahead."""
        if screen_of(self).focused is not self:
            app_of(self).simulate_key(event.key)  # typed ahead, after the key that left the field
        elif event.key in _SUBMIT_KEYS:
            self._submit()
        elif event.key in _CLOSE_KEYS:
            self._when_closed()
        else:
            return
        event.stop()
        event.prevent_default()

    async def action_submit(self) -> None:
        """Hand over the text."""
        self._submit()

    def action_close(self) -> None:
        """Leave the field."""
        self._when_closed()

    def on_paste(self, event: events.Paste) -> None:
        """Take several lines as several texts, where that is wanted; show control characters of a single line."""
        event.prevent_default()
        event.stop()
        self._take(event.text)

    def action_paste(self) -> None:
        """Paste what was copied inside the app."""
        self._take(app_of(self).clipboard)

    def _submit(self) -> None:
        typed = self.value
        lines = typed.split(LINE_BREAK) if self.takes_lines else [typed]
        self._when_submitted([line.strip() for line in lines if line.strip()], typed)

    def _take(self, pasted: str) -> None:
        lines = [visible(line).strip() for line in pasted.splitlines()]
        lines = [line for line in lines if line]
        if not lines:
            return
        if not self.takes_lines or len(lines) == 1:
            self.replace(" ".join(lines), *sorted(self.selection))
            return
        self.replace(LINE_BREAK.join(lines), *sorted(self.selection))
        self._submit()


class Entry(Vertical):
    """A label and a field, hidden until `ask`.

    Args:
        closed: called when it has closed, to put the keyboard elsewhere.
    """

    def __init__(self, closed: Callable[[], None]) -> None:
        super().__init__()
        self._title = TitleLine()
        self._field = EntryField(self._submitted, self._close)
        self._when_closed = closed
        self._request: EntryRequest | None = None
        self._saving = False

    def compose(self) -> ComposeResult:
        """A label above a field."""
        yield self._title
        yield self._field

    @property
    def is_open(self) -> bool:
        """Whether something is being asked for."""
        return self._request is not None

    @property
    def has_keyboard(self) -> bool:
        """Whether what is typed goes here."""
        return screen_of(self).focused is self._field

    def ask(self, request: EntryRequest) -> None:
        """Open for a request. If another text is half typed, that one goes first: the field is only focused."""
        if self._request is not None and self._field.value.strip():
            if request.label != self._request.label:
                self.notify("Save this text first, or press esc to drop it.", markup=False)
            screen_of(self).set_focus(self._field)
        else:
            self._open(request, visible(request.value))

    def _open(self, request: EntryRequest, text: str) -> None:
        self._request = request
        self._title.set(request.label)
        self._field.takes_lines = request.repeats
        self._field.value = text
        self._field.cursor_position = len(text)
        self.add_class("-open")
        screen_of(self).set_focus(self._field)

    def _close(self) -> None:
        if self._request is not None:
            self._request = None
            self._field.value = ""
            self.remove_class("-open")
            self._when_closed()

    def _submitted(self, texts: list[str], typed: str) -> None:
        request = self._request
        if request is None or self._saving:
            return
        if request.repeats:
            self._field.value = ""
        unchanged = not request.repeats and typed == visible(request.value)
        if unchanged or (request.repeats and not texts):
            self._close()
        elif not texts:
            self.notify("Type some text, or press esc to leave it as it was.", markup=False)
        else:
            self._saving = not request.repeats
            self.run_worker(self._save(request, texts), group="save")

    async def _save(self, request: EntryRequest, texts: list[str]) -> None:
        try:
            await request.submit(texts)
        except StoreError as error:
            self.notify(str(error), severity="error", markup=False)
            self._give_back(request, texts)
        else:
            if self._request is request and not request.repeats:
                self._close()
        finally:
            if not request.repeats:
                self._saving = False

    def _give_back(self, request: EntryRequest, texts: list[str]) -> None:
        if not request.repeats and self._request is request:
            return  # the text is still in the field
        if self._request is None or self._request is request:
            waiting = [self._field.value] if self._field.value else []
            self._open(request, LINE_BREAK.join([*texts, *waiting]))
        else:
            self.notify(f"Not saved: {' / '.join(texts)}", severity="error", markup=False)
