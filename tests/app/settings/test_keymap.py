"""Keymaps: presets, changes, and one sentence for each mistake."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.settings.keymap import ACTIONS, BY_ID, DEFAULT, PRESETS, Keymap, KeymapError


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_is_valid_and_leaves_every_action_of_the_key_bar_a_key(preset):
    keymap = Keymap.of(preset)
    assert PRESETS[preset].keys() <= BY_ID.keys()
    for action in ACTIONS:
        assert keymap.of_action(action.id) or not action.label


def test_the_plain_preset_needs_no_letter_to_move():
    keymap = Keymap.of("plain")
    for action in ACTIONS:
        if action.place.name == "ROWS":
            assert all(len(key) > 1 for key in keymap.of_action(action.id))


def test_single_actions_are_changed():
    keymap = Keymap.of("vim", {"todos.copy_todo": [], "anywhere.jump": "ctrl+k", "anywhere.help": ["?", "f12"]})
    assert keymap.of_action("todos.copy_todo") == ()
    assert keymap.of_action("anywhere.jump") == ("ctrl+k",)
    assert keymap.of_action("anywhere.help") == ("question_mark", "f12")
    assert keymap.shown("anywhere.help") == ("?", "f12")
    assert keymap.of_action("todos.new_todo") == ("o", "a")
    assert keymap.first("todos.copy_todo") == "(todos.copy_todo)"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"todos.toggle": "x"}, "there is no action 'todos.toggle'; did you mean todos.toggle_todo?"),
        ({"qqq": "x"}, "there is no action 'qqq'; todo-tui keys lists all."),
        (
            {"todos.toggle_todo": "hyper+x"},
            "'hyper+x' for todos.toggle_todo is not a valid key; write it like d, ctrl+k",
        ),
        ({"todos.toggle_todo": "nokey"}, "'nokey' for todos.toggle_todo is not a valid key"),
        ({"todos.toggle_todo": ""}, "'' for todos.toggle_todo is not a valid key"),
        (
            {"todos.toggle_todo": "d"},
            "the key d would mean both todos.toggle_todo and todos.delete_todo in the to-dos; give one",
        ),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(changes, told):
    with pytest.raises(KeymapError) as raised:
        Keymap.of("default", changes)
    assert str(raised.value).startswith(told)


def test_ids_are_plain_words():
    assert all(part.isidentifier() for action_id in BY_ID for part in action_id.split("."))
    assert len(BY_ID) == len(ACTIONS)
    assert DEFAULT.of_action("todos.set_priority_1") == ("1",)


def test_the_registry_loads_no_interface():
    code = "import sys, app.settings.keymap; print([n for n in ('textual', 'rich', 'pydantic') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
