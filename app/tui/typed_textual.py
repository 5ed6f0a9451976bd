"""The parts of Textual that a strict type checker cannot see, typed once.

Owns the accessors for what Textual leaves partly unknown to a strict type checker. Adds no behaviour.
"""

from __future__ import annotations

from collections.abc import Callable

from textual.app import App
from textual.screen import Screen
from textual.widget import Widget


def app_of(widget: Widget) -> App[object]:
    """The app that a widget runs in."""
    return widget.app  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def screen_of(widget: Widget) -> Screen[object]:
    """The screen that a widget is on."""
    return widget.screen  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def on_bindings_updated(widget: Widget, changed: Callable[[], object]) -> None:
    """Call `changed` whenever other keys are in force on the widget's screen, for as long as the widget is there."""
    signal = screen_of(widget).bindings_updated_signal  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    signal.subscribe(widget, lambda _screen: changed())  # pyright: ignore[reportUnknownMemberType, reportUnknownLambdaType]
