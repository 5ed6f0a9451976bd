"""The app's own two themes.

Owns colours by name; which widget wears which is in `app.tcss`.
"""

from __future__ import annotations

from typing import Final

from textual.theme import Theme

DARK: Final = Theme(
    name="todo-dark",
    dark=True,
    primary="#86c5b8",
    secondary="#8fb0d9",
    accent="#86c5b8",
    warning="#d9b778",
    error="#e08d86",
    success="#9ac587",
    foreground="#dde1e6",
    background="#15191e",
    surface="#1a1f25",
    panel="#242b33",
    variables={
        "foreground-muted": "#98a2ad",
        "foreground-disabled": "#9aa3ad",
        "cursor-background": "#2a3a3c",
        "cursor-blurred-background": "#222930",
        "chosen-background": "#2a3140",
        "input-cursor-background": "#86c5b8",
        "input-cursor-foreground": "#15191e",
        "input-selection-background": "#86c5b8 30%",
        "scrollbar": "#37414b",
        "scrollbar-hover": "#4a5763",
        "scrollbar-active": "#86c5b8",
        "scrollbar-background": "#15191e",
        "scrollbar-background-hover": "#15191e",
        "scrollbar-background-active": "#15191e",
    },
)
"""For dark rooms and the default: slate, with one calm green."""

LIGHT: Final = Theme(
    name="todo-light",
    dark=False,
    primary="#1f6f63",
    secondary="#35618f",
    accent="#1f6f63",
    warning="#80590f",
    error="#a13d36",
    success="#3f7030",
    foreground="#24292e",
    background="#fbfaf7",
    surface="#f3f1ec",
    panel="#e8e5de",
    variables={
        "foreground-muted": "#5c646c",
        "foreground-disabled": "#5e656c",
        "cursor-background": "#d5e6e1",
        "cursor-blurred-background": "#e9e7e0",
        "chosen-background": "#e2e8f0",
        "input-cursor-background": "#1f6f63",
        "input-cursor-foreground": "#fbfaf7",
        "input-selection-background": "#1f6f63 25%",
        "scrollbar": "#cfcbc2",
        "scrollbar-hover": "#b5b0a5",
        "scrollbar-active": "#1f6f63",
        "scrollbar-background": "#fbfaf7",
        "scrollbar-background-hover": "#fbfaf7",
        "scrollbar-background-active": "#fbfaf7",
    },
)
"""For bright rooms: warm paper, the same green in ink."""
