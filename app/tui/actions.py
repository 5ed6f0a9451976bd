"""Actions as Textual's bindings.

Owns how the registry of `app.settings.keymap` becomes bindings, the check that each action has a method where it is
bound (a key that is bound to nothing stops the import), and which keymap is in force. Must not know any widget: those
take their bindings from here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from app.settings.keymap import ACTIONS, DEFAULT, Keymap, Place
from app.tui.typed_textual import app_of

C = TypeVar("C", bound=type)


def keymap_of(widget: Widget) -> Keymap:
    """The keys in force in the app of a widget."""
    keymap = getattr(app_of(widget), "keys_in_force", DEFAULT)
    return keymap if isinstance(keymap, Keymap) else DEFAULT


def bindings(place: Place) -> list[BindingType]:
    """The bindings of a place, for the `BINDINGS` of the class that performs its actions.

    They have priority, so that each key acts before the next one is handed to a widget: keys that are typed ahead
    meet the cursor and the focus where the keys before them have put it. Only a field has to take its keys in its own
    order, with the letters between them.
    """
    priority = place is not Place.ENTRY
    return [
        Binding(
            ",".join(action.keys),
            action.name,
            action.label or action.help,
            show=bool(action.label),
            priority=priority,
            id=action.id,
        )
        for action in ACTIONS
        if action.place is place
    ]


def performs(place: Place) -> Callable[[C], C]:
    """Class decorator: check that the class has a method for each action of the place that it binds.

    Raises:
        TypeError: an action has no method.
    """

    def check(performer: C) -> C:
        for action in ACTIONS:
            method = f"action_{action.name.partition('(')[0]}"
            if action.place is place and not callable(getattr(performer, method, None)):
                raise TypeError(f"{performer.__name__} binds {action.keys[0]!r} but has no method {method}.")
        return performer

    return check
