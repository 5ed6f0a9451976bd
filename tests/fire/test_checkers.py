"""Each checker catches a planted bug: a history in which all is well is spoiled in one way, and just that is found."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.fire import checkers
from tests.fire.registers import KEYS, Event

ZERO = dict.fromkeys(KEYS, 0)
FIRST = {**ZERO, "r00": 10, "r01": 10}
SECOND = {**FIRST, "r01": 20, "r02": 20}


def history() -> list[Event]:
    """Ann writes 10, Ben sees it and writes 20, Ann's first answer is lost; at the end all show both."""
    told: list[dict[str, Any]] = [
        {"type": "read", "process": "ann", "state": ZERO, "synced_at": 1000},
        {"type": "invoke", "process": "ann", "value": 10, "keys": ["r00", "r01"], "state": ZERO},
        {"type": "ok", "process": "ann", "value": 10},
        {"type": "read", "process": "ann", "state": FIRST, "synced_at": 1000},
        {"type": "attempt", "process": "ann", "values": [10]},
        {"type": "attempt", "process": "ann", "values": [10]},
        {"type": "completed", "process": "ann", "values": [10]},
        {"type": "read", "process": "ben", "state": FIRST, "synced_at": 2000},
        {"type": "invoke", "process": "ben", "value": 20, "keys": ["r01", "r02"], "state": FIRST},
        {"type": "ok", "process": "ben", "value": 20},
        {"type": "attempt", "process": "ben", "values": [20]},
        {"type": "completed", "process": "ben", "values": [20]},
        {"type": "invoke", "process": "ben", "value": 30, "keys": ["r03", "r04"], "state": SECOND},
        {"type": "fail", "process": "ben", "value": 30, "error": "database or disk is full"},
        {"type": "read", "process": "ann", "state": SECOND, "synced_at": 3000},
        {"type": "final", "process": "ann", "state": SECOND, "synced_at": 3000, "waiting": 0, "rejected": 0},
        {"type": "final", "process": "ben", "state": SECOND, "synced_at": 3000, "waiting": 0, "rejected": 0},
        {
            "type": "final",
            "process": "backend",
            "state": SECOND,
            "arrived": [[10, "r00", 2], [10, "r01", 2], [20, "r01", 1], [20, "r02", 1]],
        },
        {"type": "live", "process": "run", "live": True, "seconds": 1.0, "behind": []},
        {"type": "closed", "process": "ann", "leaked": []},
    ]
    # Each event with a state of its own, for a bug to spoil.
    return [{"t": number, "file": event["process"], **copy.deepcopy(event)} for number, event in enumerate(told)]


def of(events: list[Event], kind: str, process: str, number: int = 0) -> Event:
    return [event for event in events if event["type"] == kind and event["process"] == process][number]


def lose_a_row(events: list[Event]) -> None:
    of(events, "read", "ann", 1)["state"].pop("r07")


def invent_a_value(events: list[Event]) -> None:
    of(events, "read", "ann", 2)["state"]["r09"] = 15


def show_what_failed(events: list[Event]) -> None:
    for final in ("ann", "ben", "backend"):
        of(events, "final", final)["state"] |= {"r03": 30, "r04": 30}


def forget_what_was_written(events: list[Event]) -> None:
    of(events, "read", "ann", 1)["state"] |= {"r00": 0, "r01": 0}


def go_back(events: list[Event]) -> None:
    of(events, "read", "ann", 2)["state"] |= ZERO
    events.remove(of(events, "ok", "ann"))  # so that only what it read tells, not what it wrote


def show_half_a_transaction(events: list[Event]) -> None:
    of(events, "read", "ann", 2)["state"]["r02"] = 0


def show_the_effect_before_its_cause(events: list[Event]) -> None:
    """A third device sees what Ben wrote, but not what Ben had read."""
    state = {**ZERO, "r01": 20, "r02": 20}
    events.append({"t": 14.5, "type": "read", "process": "cid", "file": "cid", "state": state, "synced_at": 1})


def diverge(events: list[Event]) -> None:
    of(events, "final", "ben")["state"] |= {"r00": 0, "r01": 0, "r02": 0}
    for event in events:
        if event["process"] == "ben":
            event["process"] = f"ben{event['t']}"  # nobody had read or written anything before
            event["file"] = event["process"]


def lose_a_write(events: list[Event]) -> None:
    of(events, "final", "backend")["arrived"] = of(events, "final", "backend")["arrived"][:3]


def reject_a_write(events: list[Event]) -> None:
    of(events, "final", "ben")["rejected"] = 1


def send_again(events: list[Event]) -> None:
    events.append({"t": 6.5, "type": "attempt", "process": "ann", "file": "ann", "values": [10]})


def apply_again(events: list[Event]) -> None:
    of(events, "final", "backend")["arrived"][2] = [20, "r01", 2]


def turn_back_the_last_sync(events: list[Event]) -> None:
    of(events, "read", "ann", 2)["synced_at"] = 999


def forget_the_last_sync(events: list[Event]) -> None:
    of(events, "final", "ann")["synced_at"] = None


def stand_still(events: list[Event]) -> None:
    of(events, "live", "run").update(live=False, seconds=90.0, behind=["ann: 3 transactions wait"])


def break_off(events: list[Event]) -> None:
    events.remove(of(events, "live", "run"))


def leak(events: list[Event]) -> None:
    of(events, "closed", "ann")["leaked"] = ["9 socket:[1234]"]


def crash(events: list[Event]) -> None:
    events.append({"t": 16.5, "type": "crashed", "process": "ann", "file": "ann", "error": "exit code 1"})


PLANTED: list[tuple[Callable[[list[Event]], None], set[str]]] = [
    (lose_a_row, {"whole_states"}),
    (invent_a_value, {"no_value_from_thin_air", "monotonic_reads"}),  # and it is gone again at the end
    (show_what_failed, {"no_value_from_thin_air"}),
    (forget_what_was_written, {"read_your_writes"}),
    (go_back, {"monotonic_reads"}),
    (show_half_a_transaction, {"causal_order"}),
    (show_the_effect_before_its_cause, {"causal_order"}),
    (diverge, {"strong_convergence"}),
    (lose_a_write, {"no_lost_write"}),
    (reject_a_write, {"no_lost_write"}),
    (send_again, {"no_needless_duplicate"}),
    (apply_again, {"no_needless_duplicate"}),
    (turn_back_the_last_sync, {"last_synced_never_goes_back"}),
    (forget_the_last_sync, {"last_synced_never_goes_back"}),
    (stand_still, {"liveness"}),
    (break_off, {"liveness"}),
    (leak, {"nothing_leaked"}),
    (crash, {"nothing_leaked"}),
]


def test_in_a_history_without_a_bug_nothing_is_found() -> None:
    assert checkers.check(history()) == {}


@pytest.mark.parametrize(("plant", "found"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_bug_is_found(plant: Callable[[list[Event]], None], found: set[str]) -> None:
    events = history()
    plant(events)
    assert set(checkers.check(events)) == found


def test_each_checker_finds_something() -> None:
    assert {name for _, found in PLANTED for name in found} == {checker.__name__ for checker in checkers.CHECKERS}
