"""What a history must not show. Pure: events in, sentences out; nothing here knows how they came about.

Values of a register only grow, in the backend as on each device, so each promise is one comparison. A transaction's
*past* is, for each register, the greatest value that it had read or written: whoever sees one of its values must see at
least all of that. So one rule covers atomic visibility, monotonic writes and writes that follow reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.fire.registers import KEYS, Event


@dataclass
class Write:
    """One transaction: what it writes, what it knew, and what became of it (None: nobody knows)."""

    value: int
    keys: tuple[str, ...]
    process: str
    file: str
    read: dict[str, int]
    ok: bool | None = None


@dataclass
class History:
    """Events in the order of time, and the writes among them."""

    events: list[Event]
    writes: dict[int, Write] = field(default_factory=dict)

    def of(self, *kinds: str) -> Iterable[Event]:
        return (event for event in self.events if event["type"] in kinds)


def history_of(events: list[Event]) -> History:
    history = History(sorted(events, key=lambda event: event["t"]))
    for event in history.events:
        if event["type"] == "invoke":
            history.writes[event["value"]] = Write(
                event["value"], tuple(event["keys"]), event["process"], event["file"], event["state"]
            )
        elif event["type"] in {"ok", "fail"} and event["value"] in history.writes:
            history.writes[event["value"]].ok = event["type"] == "ok"
    return history


def _states(history: History) -> Iterable[Event]:
    """All that was read, whoever read it; at the end the backend is read too."""
    return history.of("read", "invoke", "final")


def whole_states(history: History) -> Iterable[str]:
    """Every read finds all registers: never an empty or partial database."""
    for event in _states(history):
        if missing := set(KEYS) - set(event["state"]):
            yield f"{event['process']} read a state without {', '.join(sorted(missing))} at {event['t']}"


def no_value_from_thin_air(history: History) -> Iterable[str]:
    """Every value was written to just that register, by a transaction that did not fail."""
    for event in _states(history):
        for key, value in event["state"].items():
            if value == 0:
                continue
            write = history.writes.get(value)
            if write is None or key not in write.keys:
                yield f"{event['process']} read {value} in {key}, which nobody wrote there"
            elif write.ok is False:
                yield f"{event['process']} read {value} in {key}, whose transaction had failed"


def read_your_writes(history: History) -> Iterable[str]:
    """A process reads, of each register, at least what it or another process on the same file has written there."""
    written: dict[str, dict[str, int]] = defaultdict(dict)
    for event in history.of("ok", "read", "invoke", "final"):
        mine = written[event["file"]]
        if event["type"] == "ok":
            write = history.writes[event["value"]]
            for key in write.keys:
                mine[key] = max(mine.get(key, 0), write.value)
        else:
            for key, value in mine.items():
                if event["state"].get(key, 0) < value and history.writes[value].process == event["process"]:
                    yield f"{event['process']} had written {value} to {key}, and read {event['state'].get(key)}"


def monotonic_reads(history: History) -> Iterable[str]:
    """What a process has read of a register is never followed by something older, also across its lives."""
    seen: dict[str, dict[str, int]] = defaultdict(dict)
    for event in _states(history):
        mine = seen[event["process"]]
        for key, value in event["state"].items():
            if value < mine.get(key, 0):
                yield f"{event['process']} read {value} in {key} after {mine[key]}"
            mine[key] = max(mine.get(key, 0), value)


def causal_order(history: History) -> Iterable[str]:
    """Who sees a value of a transaction sees all that it wrote, and all that its writer had seen and written before."""
    for event in _states(history):
        state = event["state"]
        for value in set(state.values()):
            write = history.writes.get(value)
            if write is None:
                continue  # thin air is another checker's
            for key in write.keys:
                if state.get(key, 0) < value:
                    yield (
                        f"{event['process']} saw a part of the transaction {value}: {key} still had {state.get(key)}"
                    )
            for key, known in write.read.items():
                if state.get(key, 0) < known:
                    yield (
                        f"{event['process']} saw {value}, whose writer {write.process} had seen {known} in {key}, "
                        f"but read {state.get(key)} there"
                    )


def strong_convergence(history: History) -> Iterable[str]:
    """At the end all files and the backend show the same."""
    finals = {event["process"]: event["state"] for event in history.of("final")}
    backend = finals.get("backend")
    if backend is None:
        yield "the backend's final state is not in the history"
        return
    for process, state in finals.items():
        for key in KEYS:
            if state.get(key) != backend.get(key):
                yield f"{process} ended with {state.get(key)} in {key}, the backend with {backend.get(key)}"


def no_lost_write(history: History) -> Iterable[str]:
    """Every transaction that was committed on a device arrived at the backend, whole; none was refused."""
    arrived = _arrivals(history)
    for write in history.writes.values():
        if write.ok and not set(write.keys) <= arrived.get(write.value, {}).keys():
            yield f"the transaction {write.value} of {write.process} was acknowledged, and is lost"
    for event in history.of("final"):
        if event.get("rejected"):
            yield f"{event['process']} ended with {event['rejected']} rejected writes"


def no_needless_duplicate(history: History) -> Iterable[str]:
    """What was answered for and has left the queue is never sent again; nothing is applied more often than sent."""
    completed: dict[str, set[int]] = defaultdict(set)
    attempts: dict[int, int] = defaultdict(int)
    for event in history.of("attempt", "completed"):
        if event["type"] == "completed":
            completed[event["file"]].update(event["values"])
            continue
        for value in event["values"]:
            attempts[value] += 1
            if value in completed[event["file"]]:
                yield f"{event['process']} sent the transaction {value} again, though its answer had come"
    for value, times in _arrivals(history).items():
        # The official client, which runs beside ours in some histories, tells of no attempts.
        if attempts[value] and max(times.values()) > attempts[value]:
            yield f"the backend applied {value} {max(times.values())} times, and was sent it {attempts[value]} times"


def _arrivals(history: History) -> dict[int, dict[str, int]]:
    arrived: dict[int, dict[str, int]] = defaultdict(dict)
    for event in history.of("final"):
        for value, key, times in event.get("arrived", ()):
            arrived[value][key] = times
    return arrived


def last_synced_never_goes_back(history: History) -> Iterable[str]:
    """The time of the last sync only grows, whatever the clock does; and is never forgotten."""
    last: dict[str, int] = {}
    for event in history.of("read", "final"):
        if "synced_at" not in event:
            continue
        now, before = event["synced_at"] or 0, last.get(event["process"], 0)
        if now < before:
            yield f"{event['process']} was last synced at {now}, after it had been at {before}"
        last[event["process"]] = max(now, before)


def liveness(history: History) -> Iterable[str]:
    """Within the bound after everything was healed, all queues were empty and all were in step."""
    verdicts = list(history.of("live"))
    if not verdicts:
        yield "the run ended before it could be seen whether all come in step"
    for event in verdicts:
        if not event["live"]:
            yield f"not in step {event['seconds']:g} s after healing: {'; '.join(event['behind'])}"


def nothing_leaked(history: History) -> Iterable[str]:
    """A process that ended in order left no task, thread, file or socket behind, and none crashed by itself."""
    for event in history.of("closed", "tasks"):
        if event["leaked"]:
            yield f"{event['process']} leaked {', '.join(event['leaked'])}"
    for event in history.of("crashed"):
        yield f"{event['process']} crashed: {event['error']}"


CHECKERS: tuple[Callable[[History], Iterable[str]], ...] = (
    whole_states,
    no_value_from_thin_air,
    read_your_writes,
    monotonic_reads,
    causal_order,
    strong_convergence,
    no_lost_write,
    no_needless_duplicate,
    last_synced_never_goes_back,
    liveness,
    nothing_leaked,
)


def check(events: list[Event]) -> dict[str, list[str]]:
    """What each checker found wrong; only those that found something."""
    history = history_of(events)
    found = {checker.__name__: list(dict.fromkeys(checker(history))) for checker in CHECKERS}
    return {name: sentences for name, sentences in found.items() if sentences}
