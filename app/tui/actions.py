"""Every action that a key can start: the one registry behind bindings, key bar and help.

Owns the names, keys and words of all actions, and the check that each has a method where it is bound: a key that is
bound to nothing stops the import. Must not know any widget: those take their bindings from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeVar

from textual.binding import Binding, BindingType

C = TypeVar("C", bound=type)


class Place(Enum):
    """Where an action is bound; the value is its heading in the help."""

    ANYWHERE = "Anywhere"
    ALWAYS = "Always"
    LISTS = "In the lists"
    TODOS = "In the to-dos"
    ROWS = "Moving"
    ENTRY = "While typing"
    FILTER = "While filtering"
    PICK = "When picking"
    CONFIRM = "When asked"
    SYNC = "In the sync screen"
    HELP = "In this help"


@dataclass(frozen=True, slots=True)
class Action:
    """One action.

    Attributes:
        name: its method is `action_<name>`.
        place: where it is bound.
        keys: Textual's names of its keys, the one to show first.
        label: one or two words for the key bar; empty keeps it out of there.
        help: a short sentence for the help.
        weight: the lightest are the first to go where the key bar is too narrow.
    """

    name: str
    place: Place
    keys: tuple[str, ...]
    label: str
    help: str
    weight: int = 0

    @property
    def id(self) -> str:
        """The same in every release: keymaps and the key bar know the action by it."""
        return f"{self.place.name.lower()}.{self.name}"

    @property
    def shown_keys(self) -> tuple[str, ...]:
        """The keys as people write them."""
        return tuple(_SHOWN_KEYS.get(key, key) for key in self.keys)


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
}

ACTIONS: Final[tuple[Action, ...]] = (
    Action("new_todo", Place.TODOS, ("a",), "Add", "Add to-dos, one after the other", 9),
    Action("toggle_todo", Place.TODOS, ("x",), "Done", "Mark as done, or as open again", 8),
    Action("edit_todo", Place.TODOS, ("e", "enter", "f2"), "Edit", "Change the text of the to-do", 5),
    Action("edit_in_editor", Place.TODOS, ("E",), "", "Change the whole text, with its notes, in $EDITOR"),
    Action("delete_todo", Place.TODOS, ("d", "delete"), "Delete", "Delete", 4),
    Action("due_todo", Place.TODOS, ("w",), "When", "Set or take away when it is due", 2),
    Action("set_priority(1)", Place.TODOS, ("1",), "", "Give priority 1, the highest"),
    Action("set_priority(2)", Place.TODOS, ("2",), "", "Give priority 2"),
    Action("set_priority(3)", Place.TODOS, ("3",), "", "Give priority 3"),
    Action("set_priority(4)", Place.TODOS, ("4",), "", "Give priority 4"),
    Action("set_priority(0)", Place.TODOS, ("0",), "", "Take the priority away"),
    Action("tag_todo", Place.TODOS, ("t",), "Tag", "Add tags, or take them away", 1),
    Action("move_todo", Place.TODOS, ("m",), "Move", "Move to another list", 3),
    Action("move_row_up", Place.TODOS, ("K", "shift+up"), "", "Put it one place up, on this device"),
    Action("move_row_down", Place.TODOS, ("J", "shift+down"), "", "Put it one place down, on this device"),
    Action("copy_todo", Place.TODOS, ("y",), "", "Copy the text"),
    Action("choose", Place.TODOS, ("space",), "Choose", "Choose it, to do something with several", 2),
    Action("choose_range", Place.TODOS, ("v",), "", "Choose while moving, until pressed again"),
    Action("choose_all", Place.TODOS, ("V",), "", "Choose all that are shown, or none"),
    Action("choose_none", Place.TODOS, ("escape",), "Choose none", "While some are chosen: choose none", 8),
    Action("sort", Place.TODOS, ("s",), "Sort", "Sort otherwise", 1),
    Action("toggle_done_shown", Place.TODOS, ("H",), "", "Hide what is done, or show it"),
    Action("next_match", Place.TODOS, ("n",), "", "While filtered: the next match"),
    Action("previous_match", Place.TODOS, ("N",), "", "While filtered: the match before"),
    Action("clear_filter", Place.TODOS, ("escape",), "Show all", "While filtered: show all to-dos again", 8),
    Action("leave_todos", Place.TODOS, ("left", "h", "escape"), "Lists", "Go to the lists", 7),
    Action("open_list", Place.LISTS, ("enter", "right", "l"), "Open", "Go to the to-dos of the list", 8),
    Action("new_list", Place.LISTS, ("n",), "New", "Add a list", 7),
    Action("rename_list", Place.LISTS, ("e", "r", "f2"), "Rename", "Change the name of the list", 5),
    Action("delete_list", Place.LISTS, ("d", "delete"), "Delete", "Delete the list and its to-dos (asks first)", 4),
    Action("add_todo", Place.ANYWHERE, ("a",), "Add to-do", "Add to-dos to the open list, one after the other", 9),
    Action("add_list", Place.ANYWHERE, ("L",), "New list", "Add a list", 1),
    Action("add_first_list", Place.ANYWHERE, ("L", "n"), "New list", "Add a first list, while there is none", 9),
    Action("add_sample", Place.ANYWHERE, ("s",), "Sample list", "Add a short sample list, while there is none", 9),
    Action("undo", Place.ANYWHERE, ("u",), "Undo", "Take the last step back, also after a restart", 3),
    Action("redo", Place.ANYWHERE, ("U", "ctrl+r"), "", "Do again what was undone"),
    Action("jump", Place.ANYWHERE, ("o",), "Go to", "Go to a list by a part of its name", 2),
    Action("filter", Place.ANYWHERE, ("slash",), "Filter", "Filter the to-dos by typing", 3),
    Action("toggle_details", Place.ANYWHERE, ("i",), "Details", "Show or hide all about the to-do, with its notes", 2),
    Action("switch_pane", Place.ANYWHERE, ("tab", "shift+tab"), "", "Go to the other side"),
    Action("connect", Place.ANYWHERE, ("c",), "Connect", "Start syncing", 4),
    Action("disconnect", Place.ANYWHERE, ("c",), "Pause", "Pause syncing; you can carry on editing", 4),
    Action("sync", Place.ANYWHERE, ("S",), "Sync", "Show the state of syncing, and what was rejected", 3),
    Action("help", Place.ANYWHERE, ("question_mark", "f1"), "Help", "Show all keys", 10),
    Action("quit", Place.ANYWHERE, ("q",), "Quit", "Quit; changes that wait are uploaded next time", 6),
    Action("tell_quit", Place.ANYWHERE, ("ctrl+c",), "", "Tell how to quit"),
    Action("quit", Place.ALWAYS, ("ctrl+q",), "", "Quit, also while typing"),
    Action("cursor_down", Place.ROWS, ("down", "j"), "", "Next"),
    Action("cursor_up", Place.ROWS, ("up", "k"), "", "Previous"),
    Action("page_down", Place.ROWS, ("pagedown", "ctrl+f"), "", "One page down"),
    Action("page_up", Place.ROWS, ("pageup", "ctrl+b"), "", "One page up"),
    Action("first", Place.ROWS, ("home", "g"), "", "First"),
    Action("last", Place.ROWS, ("end", "G"), "", "Last"),
    Action("submit", Place.ENTRY, ("enter",), "Save", "Save; a paste of several lines adds several to-dos", 2),
    Action("close", Place.ENTRY, ("escape",), "Close", "Close without saving", 1),
    Action("copy", Place.ENTRY, ("ctrl+c",), "", "Copy the selected text"),
    Action("submit", Place.FILTER, ("enter", "down"), "Keep", "Keep the filter and go to what matches", 2),
    Action("close", Place.FILTER, ("escape",), "Show all", "Show all to-dos again", 1),
    Action("copy", Place.FILTER, ("ctrl+c",), "", "Copy the selected text"),
    Action("pick", Place.PICK, ("enter",), "", "Take it"),
    Action("close_pick", Place.PICK, ("escape",), "", "Take nothing"),
    Action("next_choice", Place.PICK, ("down", "ctrl+n"), "", "Next"),
    Action("previous_choice", Place.PICK, ("up", "ctrl+p"), "", "Previous"),
    Action("confirm", Place.CONFIRM, ("y",), "", "Do it"),
    Action("decline", Place.CONFIRM, ("n", "escape", "q"), "", "Leave everything as it is"),
    Action("next_answer", Place.CONFIRM, ("tab", "right", "left", "shift+tab"), "", "Go to the other answer"),
    Action("retry_change", Place.SYNC, ("r",), "Retry", "Send the rejected change once more", 8),
    Action("discard_change", Place.SYNC, ("d", "delete"), "Discard", "Forget the rejected change (asks first)", 7),
    Action("dismiss_replaced", Place.SYNC, ("x",), "Dismiss", "Forget this conflict and older ones (asks first)", 6),
    Action("connect", Place.SYNC, ("c",), "Connect", "Start syncing", 4),
    Action("disconnect", Place.SYNC, ("c",), "Pause", "Pause syncing", 4),
    Action("next_part", Place.SYNC, ("tab", "shift+tab"), "", "Go to the next part, to scroll it"),
    Action("help", Place.SYNC, ("question_mark", "f1"), "Help", "Show all keys", 5),
    Action("close_sync", Place.SYNC, ("escape", "S", "q", "left"), "Close", "Back to the lists", 9),
    Action("close_help", Place.HELP, ("escape", "q", "question_mark", "f1"), "", "Close the help"),
    Action("scroll_lines(1)", Place.HELP, ("down", "j"), "", "Scroll down"),
    Action("scroll_lines(-1)", Place.HELP, ("up", "k"), "", "Scroll up"),
)
"""All actions, in the order of the key bar and the help."""

BY_ID: Final = {action.id: action for action in ACTIONS}
"""The actions by `Action.id`."""


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
