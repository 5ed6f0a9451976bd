"""The line in which texts are typed: new lists and to-dos, and changes of their names and texts.

Owns the typed text until it is stored: a text that could not be stored comes back, so that nothing has to be typed
twice. What is stored, and how, is in the request.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final

from rich.highlighter import Highlighter
from rich.segment import Segment
from rich.text import Text
from textual import events, on
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input

from app.settings.keymap import Place
from app.store.failures import StoreError
from app.system.display_text import StandIns, sanitized
from app.todo_text import Understood, phrases_to_keep, understand
from app.tui.actions import bindings, keymap_of, performs
from app.tui.typed_textual import app_of, screen_of
from app.tui.widgets.lines import TitleLine


def quit_keys(widget: Widget) -> str:
    """How to quit, in a sentence."""
    keymap = keymap_of(widget)
    return f"Press {keymap.first('anywhere.quit')} to quit, or {keymap.first('always.quit')} while typing."


@dataclass(frozen=True, slots=True)
class EntryRequest:
    """What the entry line asks the user for.

    Attributes:
        label: what is being typed, plain text.
        submit: begins to store the texts at once; what it returns raises `StoreError` if they were not stored.
        value: the text to begin with.
        repeats: the line stays open for the next one, and a paste of several lines submits them all.
        understands: whether due dates, priorities, tags and repetitions are recognised while typing; what is submitted
            then are descriptions as they are stored. Lines that are pasted together stay as they are.
        may_be_empty: whether an empty text is a text.
    """

    label: str
    submit: Callable[[list[str]], Awaitable[object]]
    value: str = ""
    repeats: bool = False
    understands: bool = False
    may_be_empty: bool = False


_FORMAT: Final = "Cf"
"""Unicode's category of invisible characters that shape the text around them."""


@performs(Place.ENTRY)
class EntryField(Input):
    """An input that acts on its keys at once and in order, so that quick typing loses nothing.

    It takes any text as it is: what a terminal would obey is painted as symbols, and line breaks are kept where
    several texts wait to be submitted.

    Args:
        submitted: called when its text is to be stored.
        closed: called when the field is left.

    Attributes:
        takes_lines: whether a paste of several lines is several texts.
        understand: reads the parts of a text, given those that are to stay plain; None if it is not to be read.
        rejected: what is to stay plain.
        submit_action: the action whose keys submit the text.
        close_action: the action whose keys leave the field.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.ENTRY)
    COMPONENT_CLASSES: ClassVar[set[str]] = {"entry-field--part"}

    def __init__(self, submitted: Callable[[], None], closed: Callable[[], None]) -> None:
        super().__init__(compact=True, select_on_focus=False, highlighter=_Parts(self))
        self.takes_lines = False
        self.understand: Callable[[str, Sequence[str]], Understood] | None = None
        self.rejected: tuple[str, ...] = ()
        self.submit_action = "entry.submit"
        self.close_action = "entry.close"
        self._read: tuple[str, tuple[str, ...], Understood] | None = None
        self._when_submitted = submitted
        self._when_closed = closed
        self._stand_ins = StandIns()

    def on_mount(self) -> None:
        """Keep the cursor still where nothing is to move by itself."""
        if app_of(self).animation_level == "none":
            self.cursor_blink = False

    @property
    def text(self) -> str:
        """The text that is typed."""
        return self._stand_ins.meant(self.value)

    @text.setter
    def text(self, text: str) -> None:
        self.value = self._stand_ins.held(text)
        self.cursor_position = len(self.value)

    @property
    def understood(self) -> Understood | None:
        """How the text is understood, or None if it is not read; several lines are not."""
        text = self.text
        if self.understand is None or "\n" in text:
            return None
        if self._read is None or self._read[:2] != (text, self.rejected):
            self._read = (text, self.rejected, self.understand(text, self.rejected))
        return self._read[2]

    def _reject_part(self) -> bool:
        """Make the part plain that ends where the cursor is; whether there was one."""
        understood = self.understood
        if understood is None or not self.selection.is_empty or len(self.text) != len(self.value):
            return False
        for part in understood.parts:
            if part.end == self.cursor_position:
                self.rejected += (part.phrase,)
                self.refresh()
                self.post_message(self.Changed(self, self.value))
                return True
        return False

    @property
    def selected_text(self) -> str:
        """The part of the text that is selected."""
        return self._stand_ins.meant(super().selected_text)

    def render_line(self, y: int) -> Strip:
        """Paint the text, with symbols for what a terminal would obey."""
        strip = super().render_line(y)
        shown = [Segment(self._stand_ins.shown(text), style, control) for text, style, control in strip]
        return Strip(shown, strip.cell_length)

    def on_key(self, event: events.Key) -> None:
        """Act on the field's own keys here and now; a binding would act after letters that are typed ahead."""
        if screen_of(self).focused is not self:
            app_of(self).simulate_key(event.key)  # typed ahead, after the key that left the field
        elif event.key in keymap_of(self).of_action(self.submit_action):
            self._when_submitted()
        elif event.key in keymap_of(self).of_action(self.close_action):
            self._when_closed()
        elif event.key == "backspace" and self._reject_part():
            pass
        elif event.character is not None and unicodedata.category(event.character[0]) == _FORMAT:
            # Joiners, say, which Textual takes for no text: Persian words and emoji are misspelt without them.
            self.insert_text_at_cursor(self._stand_ins.held(event.character))
        else:
            return
        event.stop()
        event.prevent_default()

    async def action_submit(self) -> None:
        """Have the text stored."""
        self._when_submitted()

    def action_close(self) -> None:
        """Leave the field."""
        self._when_closed()

    def action_copy(self) -> None:
        """Copy the selected text; without one, show how to quit, which people may have meant."""
        try:
            super().action_copy()
        except SkipAction:
            self.notify(quit_keys(self), markup=False)

    def on_paste(self, event: events.Paste) -> None:
        """Take several lines as several texts, where that is wanted, and have them stored."""
        event.prevent_default()
        event.stop()
        self._take(event.text)

    def action_paste(self) -> None:
        """Paste what was copied inside the app."""
        self._take(app_of(self).clipboard)

    def _take(self, pasted: str) -> None:
        lines = [_harmless(line).strip() for line in pasted.splitlines()]
        lines = [line for line in lines if line]
        between = "\n" if self.takes_lines else " "
        if lines:
            self.replace(self._stand_ins.held(between.join(lines)), *sorted(self.selection))
        if self.takes_lines and len(lines) > 1:
            self._when_submitted()


class _Parts(Highlighter):
    """Makes the parts that are understood stand out while they are typed."""

    def __init__(self, field: EntryField) -> None:
        self._field = field

    def highlight(self, text: Text) -> None:
        """Called by the field with its value, before it is cut to the visible part."""
        understood = self._field.understood
        if understood is None or len(text) != len(self._field.text):
            return
        style = self._field.get_component_rich_style("entry-field--part", partial=True)
        for part in understood.parts:
            text.stylize(style, part.start, part.end)


def _harmless(pasted: str) -> str:
    """Text with symbols for control characters, which only get into a clipboard by mistake; tabs are kept."""
    return "\t".join(map(sanitized, pasted.split("\t")))


class Entry(Vertical):
    """A label and a field, hidden until `ask`.

    Args:
        closed: called when it has closed, to put the keyboard elsewhere.
        now: the local time, to which `tomorrow` refers.
    """

    def __init__(self, closed: Callable[[], None], now: Callable[[], datetime]) -> None:
        super().__init__()
        self._now = now
        self._title = TitleLine()
        self._field = EntryField(self._submitted, self._close)
        self._when_closed = closed
        self._request: EntryRequest | None = None
        self._saving = False
        self._warned_about: str | None = None

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
        if self._request is not None and self._field.text.strip():
            if request.label != self._request.label:
                self.notify("Save this text first, or press esc to discard it.", markup=False)
            screen_of(self).set_focus(self._field)
        else:
            self._open(request, request.value)

    def warn_before_quit(self) -> bool:
        """Warn about a half-typed text and focus it, once per text; return whether that was necessary."""
        request, text = self._request, self._field.text
        if request is None or self._saving or not text.strip() or text in {request.value, self._warned_about}:
            return False
        self._warned_about = text
        keymap = keymap_of(self)
        save, leave = keymap.first("entry.submit"), keymap.first("always.quit")
        message = f"This text has not been saved. Press {save} to save it, or {leave} to quit without saving."
        self.notify(message, severity="warning", markup=False)
        screen_of(self).set_focus(self._field)
        return True

    def _open(self, request: EntryRequest, text: str) -> None:
        self._request = request
        self._warned_about = None
        self._title.set(request.label)
        self._field.takes_lines = request.repeats
        self._field.understand = self._understand if request.understands else None
        # What is stored already keeps its plain words plain.
        self._field.rejected = phrases_to_keep(text, self._local_time()) if request.understands and text else ()
        self._field.text = text
        self.add_class("-open")
        screen_of(self).set_focus(self._field)

    def _understand(self, text: str, rejected: Sequence[str]) -> Understood:
        return understand(text, self._local_time(), rejected)

    def _local_time(self) -> datetime:
        return self._now().replace(tzinfo=None)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        if self._request is not None:
            understood = self._field.understood
            self._title.set(self._request.label, understood.preview if understood is not None else "")

    def _close(self) -> None:
        if self._request is not None:
            self._request = None
            self._field.text = ""
            self.remove_class("-open")
            self._when_closed()

    def _submitted(self) -> None:
        request, text = self._request, self._field.text
        if request is None or self._saving:
            return
        # An old text keeps the space around it: whoever wrote it may have meant that.
        texts = [text] if request.value else [line.strip() for line in text.split("\n")]
        texts = [text for text in texts if text.strip() or request.may_be_empty]
        unchanged = not request.repeats and text == request.value and not request.may_be_empty
        if unchanged or (request.repeats and not texts):
            self._close()
        elif not texts:
            self.notify("Type some text, or press esc to cancel.", markup=False)
        else:
            self._saving = not request.repeats
            understood = self._field.understood
            stored = texts if understood is None else [self._understand(texts[0], self._field.rejected).stored]
            if request.repeats:
                self._field.text = ""
                self._field.rejected = ()
            self.run_worker(self._save(request, texts, request.submit(stored)), group="save")

    async def _save(self, request: EntryRequest, texts: list[str], storing: Awaitable[object]) -> None:
        try:
            await storing
        except StoreError as error:
            self.notify(sanitized(str(error)), severity="error", markup=False)
            self._give_back(request, texts[error.stored :])
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
            waiting = [self._field.text] if self._field.text else []
            self._open(request, "\n".join([*texts, *waiting]))
        else:
            self.notify(f"Not saved: {sanitized(' / '.join(texts))}", severity="error", markup=False)
