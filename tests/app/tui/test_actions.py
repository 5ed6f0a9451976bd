"""The registry of actions."""

from __future__ import annotations

from collections import defaultdict

import pytest
from textual.binding import BindingsMap

from app.settings.keymap import ACTIONS, BY_ID, Place
from app.tui.actions import bindings, performs


def test_ids_are_unique():
    assert len(BY_ID) == len(ACTIONS)


@pytest.mark.parametrize("place", Place)
def test_every_action_is_bound_to_each_of_its_keys(place: Place):
    bound = BindingsMap(bindings(place)).key_to_bindings
    for action in ACTIONS:
        if action.place is place:
            ids = [{binding.id for binding in bound.get(key, [])} for key in action.keys]
            assert all(action.id in found or key.isupper() for key, found in zip(action.keys, ids, strict=True))


@pytest.mark.parametrize("place", Place)
def test_no_key_means_two_things_in_one_place(place: Place):
    meanings: defaultdict[str, list[str]] = defaultdict(list)
    for action in ACTIONS:
        if action.place is place:
            for key in action.keys:
                meanings[key].append(action.name)
    twice = {tuple(names) for names in meanings.values() if len(names) > 1}
    assert twice <= {
        ("connect", "disconnect"),
        ("add_list", "add_first_list"),
        ("choose_none", "clear_filter", "leave_todos"),
    }  # never in force at the same time


def test_a_key_without_a_method_stops_the_import():
    with pytest.raises(TypeError, match=r"^Idle binds 'down' but has no method action_cursor_down\.$"):

        @performs(Place.ROWS)
        class Idle:
            pass
