"""Every action that a key can start, and its keys: the one registry behind bindings, key bar, help and palette.

Owns the names, words and keys of all actions, the presets, and what makes a keymap valid. Must not import Textual:
settings are checked, and keys are printed, without it.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal


class Place(Enum):
    """Where an action is bound; the value is its heading in the help."""

    ANYWHERE = "Anywhere"
    ALWAYS = "Always"
    LISTS = "In the lists"
    TODOS = "In the to-dos"
    ROWS = "Moving"
    ENTRY = "While typing"
    FILTER = "While filtering"
    PICK = "When choosing"
    CONFIRM = "In a dialog"
    SYNC = "On the sync screen"
    HELP = "In this help"


@dataclass(frozen=True, slots=True)
class Action:
    """One action; a row of the table below, which is why it has six fields.

    Attributes:
        name: its method is `action_<name>`.
        place: where it is bound.
        keys: Textual's names of the keys that it has without a keymap, the one to show first.
        label: one or two words for the key bar; if empty, the key bar does not show it.
        help: a short sentence for the help.
        weight: where the key bar is too narrow, the lightest actions are left out first.
    """

    name: str
    place: Place
    keys: tuple[str, ...]
    label: str
    help: str
    weight: int = 0

    @property
    def id(self) -> str:
        """What keymaps and the key bar call the action; it never changes."""
        name, _, argument = self.name.rstrip(")").partition("(")
        return f"{self.place.name.lower()}.{name}" + (f"_{argument.replace('-', 'back_')}" if argument else "")


_SHOWN_KEYS: Final = {
    "question_mark": "?",
    "shift+up": "⇧↑",
    "shift+down": "⇧↓",
    "ctrl+r": "^r",
    "slash": "/",
    "escape": "esc",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "shift+tab": "⇧tab",
    "ctrl+p": "^p",
    "ctrl+z": "^z",
    "ctrl+t": "^t",
}

ACTIONS: Final[tuple[Action, ...]] = (
    Action("new_todo", Place.TODOS, ("a",), "Add", "Add to-dos", 9),
    Action("toggle_todo", Place.TODOS, ("x",), "Done", "Mark as done or not done", 8),
    Action("edit_todo", Place.TODOS, ("e", "enter", "f2"), "Edit", "Edit the to-do", 5),
    Action("edit_in_editor", Place.TODOS, ("E",), "", "Edit the text and notes in $EDITOR"),
    Action("delete_todo", Place.TODOS, ("d", "delete"), "Delete", "Delete", 4),
    Action("due_todo", Place.TODOS, ("w",), "Due", "Set or remove the due date", 2),
    Action("set_priority(1)", Place.TODOS, ("1",), "", "Set priority 1 (highest)"),
    Action("set_priority(2)", Place.TODOS, ("2",), "", "Set priority 2"),
    Action("set_priority(3)", Place.TODOS, ("3",), "", "Set priority 3"),
    Action("set_priority(4)", Place.TODOS, ("4",), "", "Set priority 4 (lowest)"),
    Action("set_priority(0)", Place.TODOS, ("0",), "", "Remove the priority"),
    Action("tag_todo", Place.TODOS, ("t",), "Tag", "Add or remove tags", 1),
    Action("move_todo", Place.TODOS, ("m",), "Move", "Move to another list", 3),
    Action("move_row_up", Place.TODOS, ("K", "shift+up"), "", "Move up, on this device only"),
    Action("move_row_down", Place.TODOS, ("J", "shift+down"), "", "Move down, on this device only"),
    Action("copy_todo", Place.TODOS, ("y",), "", "Copy the text"),
    Action("choose", Place.TODOS, ("space",), "Select", "Select, to act on several at once", 2),
    Action("choose_range", Place.TODOS, ("v",), "", "Start or end selecting a range"),
    Action("choose_all", Place.TODOS, ("V",), "", "Select all that are shown, or none"),
    Action("choose_none", Place.TODOS, ("escape",), "Deselect", "Clear the selection", 8),
    Action("sort", Place.TODOS, ("s",), "Sort", "Change sort order", 1),
    Action("toggle_done_shown", Place.TODOS, ("H",), "", "Show or hide completed to-dos"),
    Action("next_match", Place.TODOS, ("n",), "", "Go to the next match"),
    Action("previous_match", Place.TODOS, ("N",), "", "Go to the previous match"),
    Action("clear_filter", Place.TODOS, ("escape",), "Show all", "Clear the filter", 8),
    Action("leave_todos", Place.TODOS, ("left", "h", "escape"), "Lists", "Go to the lists", 7),
    Action("open_list", Place.LISTS, ("enter", "right", "l"), "Open", "Open the list", 8),
    Action("new_list", Place.LISTS, ("n",), "New", "Add a list", 7),
    Action("rename_list", Place.LISTS, ("e", "r", "f2"), "Rename", "Rename the list", 5),
    Action("delete_list", Place.LISTS, ("d", "delete"), "Delete", "Delete the list and its to-dos (asks first)", 4),
    Action("add_todo", Place.ANYWHERE, ("a",), "Add to-do", "Add to-dos to the open list", 9),
    Action("add_list", Place.ANYWHERE, ("L",), "New list", "Add a list", 1),
    Action("add_first_list", Place.ANYWHERE, ("L", "n"), "New list", "Add your first list", 9),
    Action("add_sample", Place.ANYWHERE, ("s",), "Sample list", "Add a sample list", 9),
    Action("undo", Place.ANYWHERE, ("u",), "Undo", "Undo the last change, even after a restart", 3),
    Action("redo", Place.ANYWHERE, ("U", "ctrl+r"), "", "Redo what was undone last"),
    Action("jump", Place.ANYWHERE, ("o",), "Go to", "Go to a list by name", 2),
    Action("filter", Place.ANYWHERE, ("slash",), "Filter", "Filter the to-dos", 3),
    Action("toggle_details", Place.ANYWHERE, ("i",), "Details", "Show or hide the details and notes", 2),
    Action("switch_pane", Place.ANYWHERE, ("tab", "shift+tab"), "", "Switch panes"),
    Action("connect", Place.ANYWHERE, ("c",), "Connect", "Start syncing", 4),
    Action("disconnect", Place.ANYWHERE, ("c",), "Pause", "Pause syncing; you can keep editing", 4),
    Action("sync", Place.ANYWHERE, ("S",), "Sync", "Show the sync state and rejected changes", 3),
    Action("help", Place.ANYWHERE, ("question_mark", "f1"), "Help", "Show all keys", 10),
    Action("quit", Place.ANYWHERE, ("q",), "Quit", "Quit; waiting changes are uploaded next time", 6),
    Action("tell_quit", Place.ANYWHERE, ("ctrl+c",), "", "Show how to quit"),
    Action("quit", Place.ALWAYS, ("ctrl+q",), "", "Quit, even while typing"),
    Action("command_palette", Place.ALWAYS, ("ctrl+p",), "", "Find an action by name"),
    Action("choose_theme", Place.ALWAYS, ("ctrl+t",), "", "Change the theme"),
    Action("suspend_process", Place.ALWAYS, ("ctrl+z",), "", "Suspend to the shell; fg resumes"),
    Action("cursor_down", Place.ROWS, ("down", "j"), "", "Next"),
    Action("cursor_up", Place.ROWS, ("up", "k"), "", "Previous"),
    Action("page_down", Place.ROWS, ("pagedown", "ctrl+f"), "", "Page down"),
    Action("page_up", Place.ROWS, ("pageup", "ctrl+b"), "", "Page up"),
    Action("first", Place.ROWS, ("home", "g"), "", "First"),
    Action("last", Place.ROWS, ("end", "G"), "", "Last"),
    Action("submit", Place.ENTRY, ("enter",), "Save", "Save; pasting several lines adds several to-dos", 2),
    Action("close", Place.ENTRY, ("escape",), "Close", "Close without saving", 1),
    Action("copy", Place.ENTRY, ("ctrl+c",), "", "Copy the selected text"),
    Action("submit", Place.FILTER, ("enter", "down"), "Keep", "Keep the filter and go to the matches", 2),
    Action("close", Place.FILTER, ("escape",), "Show all", "Clear the filter", 1),
    Action("copy", Place.FILTER, ("ctrl+c",), "", "Copy the selected text"),
    Action("pick", Place.PICK, ("enter",), "", "Choose"),
    Action("close_pick", Place.PICK, ("escape",), "", "Cancel"),
    Action("next_choice", Place.PICK, ("down", "ctrl+n"), "", "Next"),
    Action("previous_choice", Place.PICK, ("up", "ctrl+p"), "", "Previous"),
    Action("confirm", Place.CONFIRM, ("y",), "", "Confirm"),
    Action("decline", Place.CONFIRM, ("n", "escape", "q"), "", "Cancel"),
    Action("next_answer", Place.CONFIRM, ("tab", "right", "left", "shift+tab"), "", "Switch between the answers"),
    Action("retry_change", Place.SYNC, ("r",), "Retry", "Retry the rejected change", 8),
    Action("edit_change", Place.SYNC, ("e",), "Edit", "Edit the rejected change and retry it", 5),
    Action("copy_change", Place.SYNC, ("y",), "", "Copy the rejected change as JSON"),
    Action("export_changes", Place.SYNC, ("E",), "", "Export all rejected changes to a file"),
    Action("copy_diagnostics", Place.SYNC, ("Y",), "Diagnostics", "Copy the sync state, without names or texts", 3),
    Action("show_log", Place.SYNC, ("l",), "Log", "Show or hide the latest log lines", 2),
    Action("discard_change", Place.SYNC, ("d", "delete"), "Discard", "Discard the rejected change (asks first)", 7),
    Action("dismiss_replaced", Place.SYNC, ("x",), "Dismiss", "Dismiss this conflict and older ones (asks first)", 6),
    Action("connect", Place.SYNC, ("c",), "Connect", "Start syncing", 4),
    Action("disconnect", Place.SYNC, ("c",), "Pause", "Pause syncing", 4),
    Action("next_part", Place.SYNC, ("tab", "shift+tab"), "", "Go to the next section, to scroll it"),
    Action("help", Place.SYNC, ("question_mark", "f1"), "Help", "Show all keys", 5),
    Action("close_sync", Place.SYNC, ("escape", "S", "q", "left"), "Close", "Back to the lists", 9),
    Action("close_help", Place.HELP, ("escape", "f1"), "", "Close the help"),
    Action("scroll_lines(1)", Place.HELP, ("down",), "", "Scroll down"),
    Action("scroll_lines(-1)", Place.HELP, ("up",), "", "Scroll up"),
    Action("scroll_lines(10)", Place.HELP, ("pagedown",), "", "Scroll a page down"),
    Action("scroll_lines(-10)", Place.HELP, ("pageup",), "", "Scroll a page up"),
)
"""All actions, in the order of the key bar and the help."""

BY_ID: Final = {action.id: action for action in ACTIONS}
"""The actions by `Action.id`."""

_NEVER_TOGETHER: Final = (
    frozenset({"connect", "disconnect"}),
    frozenset({"add_list", "add_first_list"}),
    frozenset({"choose_none", "clear_filter", "leave_todos"}),
)
"""Actions of one place that may share a key: only one of them is available at a time."""

Preset = Literal["default", "vim", "plain"]
"""A set of keys to start from."""

PRESETS: Final[Mapping[Preset, Mapping[str, tuple[str, ...]]]] = {
    "default": {},
    "vim": {
        "todos.new_todo": ("o", "a"),
        "lists.new_list": ("o", "n"),
        "anywhere.jump": ("ctrl+o",),
        "rows.page_down": ("ctrl+d", "pagedown", "ctrl+f"),
        "rows.page_up": ("ctrl+u", "pageup", "ctrl+b"),
        "anywhere.redo": ("ctrl+r", "U"),
        "todos.edit_todo": ("i", "e", "enter"),
        "anywhere.toggle_details": ("K",),
        "todos.move_row_up": ("alt+k", "shift+up"),
        "todos.move_row_down": ("alt+j", "shift+down"),
    },
    "plain": {
        "rows.cursor_down": ("down",),
        "rows.cursor_up": ("up",),
        "rows.page_down": ("pagedown",),
        "rows.page_up": ("pageup",),
        "rows.first": ("home",),
        "rows.last": ("end",),
        "lists.open_list": ("enter", "right"),
        "todos.leave_todos": ("left", "escape"),
        "todos.move_row_up": ("shift+up",),
        "todos.move_row_down": ("shift+down",),
        "todos.choose_range": ("f6",),
        "todos.choose_all": ("ctrl+a",),
        "todos.edit_in_editor": ("f4",),
        "todos.toggle_done_shown": ("f7",),
        "anywhere.filter": ("ctrl+f", "slash", "f3"),
        "anywhere.undo": ("ctrl+z", "u"),
        "anywhere.redo": ("ctrl+y",),
        "always.suspend_process": (),
        "anywhere.sync": ("f8",),
        "sync.close_sync": ("escape", "f8"),
    },
}
"""How each preset differs from the registry."""

_NAMED_KEYS: Final = frozenset(
    {
        *("up", "down", "left", "right", "home", "end", "pageup", "pagedown", "enter", "escape", "tab", "space"),
        *("backspace", "delete", "insert"),
        *(f"f{number}" for number in range(1, 25)),
    }
)
_MODIFIERS: Final = ("ctrl", "shift", "alt")
_NAMES: Final = {
    "solidus": "slash",
    "reverse_solidus": "backslash",
    "commercial_at": "at",
    "hyphen_minus": "minus",
    "plus_sign": "plus",
    "low_line": "underscore",
}
"""Characters whose name as a key differs from their Unicode name."""


class KeymapError(Exception):
    """A keymap is not valid. The message completes a sentence: what is wrong with which entry."""


@dataclass(frozen=True, slots=True)
class Keymap:
    """The keys in use.

    Attributes:
        keys: by `Action.id`; other actions have the keys of the registry.
    """

    keys: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, preset: Preset = "default", changes: Mapping[str, str | Sequence[str]] | None = None) -> Keymap:
        """A preset with changes.

        Args:
            preset: what to start from.
            changes: by `Action.id`, one key or several; an empty list leaves an action without a key. A key is named as
                Textual names it (`ctrl+k`, `f5`, `question_mark`) or by its character (`?`).

        Raises:
            KeymapError: an action or a key is unknown, or a key would mean two things in one place.
        """
        chosen: dict[str, tuple[str, ...]] = dict(PRESETS[preset])
        for action_id, keys in (changes or {}).items():
            if action_id not in BY_ID:
                near = difflib.get_close_matches(action_id, BY_ID, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]}?" if near else "; run todo-tui keys to see all."
                raise KeymapError(f"there is no action {action_id!r}{hint}")
            several = [keys] if isinstance(keys, str) else list(keys)
            chosen[action_id] = tuple(_key_named(key, action_id) for key in several)
        keymap = cls(chosen)
        keymap._refuse_clashes()
        return keymap

    def of_action(self, action_id: str) -> tuple[str, ...]:
        """Textual's names of the keys of an action, the one to show first; may be empty."""
        return self.keys.get(action_id, BY_ID[action_id].keys)

    def shown(self, action_id: str) -> tuple[str, ...]:
        """The keys of an action as people write them."""
        return tuple(map(shown_key, self.of_action(action_id)))

    def first(self, action_id: str) -> str:
        """The key to show for an action; the action's label in brackets if it has none."""
        shown = self.shown(action_id)
        return shown[0] if shown else f"({BY_ID[action_id].label or action_id})"

    def _refuse_clashes(self) -> None:
        taken: dict[tuple[Place, str], Action] = {}
        for action in ACTIONS:
            for key in self.of_action(action.id):
                other = taken.setdefault((action.place, key), action)
                if other is not action and not any({other.name, action.name} <= each for each in _NEVER_TOGETHER):
                    raise KeymapError(
                        f"the key {shown_key(key)} would mean both {other.id} and {action.id} {_where(action.place)}; "
                        "give one of them another key."
                    )


def shown_key(key: str) -> str:
    """A key as people write it."""
    return _SHOWN_KEYS.get(key, key)


def _where(place: Place) -> str:
    return place.value[:1].lower() + place.value[1:]


def _key_named(key: str, action_id: str) -> str:
    *modifiers, name = [key] if len(key) == 1 else key.split("+")
    if len(name) == 1 and not name.isalnum():
        character = unicodedata.name(name, "").lower().replace("-", "_").replace(" ", "_")
        name = _NAMES.get(character, character)
    known = name in _NAMED_KEYS or (len(name) == 1 and name.isprintable()) or name in _SHOWN_KEYS
    if not known and name.replace("_", "").isalpha():
        try:
            unicodedata.lookup({ours: theirs for theirs, ours in _NAMES.items()}.get(name, name).replace("_", " "))
            known = True
        except KeyError:
            known = False
    if not name or not known or any(each not in _MODIFIERS for each in modifiers):
        raise KeymapError(f"{key!r} for {action_id} is not a valid key; write it like d, ctrl+k, f5 or pageup.")
    return "+".join([*modifiers, name])


DEFAULT: Final = Keymap({})
"""The registry's own keys."""
