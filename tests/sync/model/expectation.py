"""What a client must show after each event, by the written rules and without the client's own tables.

Independent of the engine: it looks at checkpoints as the service knows them, not at operations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.sync.model.server import Began, Completed, Data, Event, Row, Target, Value

UNKNOWN = (1 << 63) - 1
COMPLETE = 2147483647

Entry = tuple[str, Row, dict[str, Any] | None]
"""Operation, row, and column values."""

Edit = tuple[str, Row, Value]
"""Insert, update or delete of a row."""


class ConflictError(Exception):
    """An insert of a row that is there: the whole transaction fails."""


@dataclass
class Expectation:
    """The client's state as an app can see it.

    Attributes:
        visible: the rows of all tables.
        queue: transactions that wait for upload.
        written: how many entries were ever queued.
        gate_target, last_seen: the checkpoint request that the gate waits for, and the newest that has come.
        priorities: those with a time of the last sync.
        streams: those that have synced.
        applied: the operation at which each bucket was last published.
        positions: where each bucket may stand in the file, and whether it would be spoiled there; 0 is not at all.
        target: of the connection, with the buckets whose checksums it tells wrongly.
        is_held_back: the target is complete and waits for the gate.
        awaited: the checkpoint request that the gate waited for when the connection was opened.
        is_settled: nothing has happened since a complete checkpoint was published: no row is noted for the next one.
    """

    visible: dict[Row, Value] = field(default_factory=dict)
    queue: list[list[Entry]] = field(default_factory=list)
    written: int = 0
    gate_target: int | None = None
    last_seen: int | None = None
    priorities: set[int] = field(default_factory=set)
    streams: set[str] = field(default_factory=set)
    applied: dict[str, int] = field(default_factory=dict)
    positions: dict[str, dict[int, bool]] = field(default_factory=dict)
    target: Target | None = None
    wrong: set[str] = field(default_factory=set)
    is_held_back: bool = False
    awaited: int | None = None
    is_settled: bool = False

    @property
    def is_gate_open(self) -> bool:
        return not self.queue and (self.gate_target is None or self.gate_target <= (self.last_seen or 0))

    # The app's own writes

    def write(self, edits: list[Edit]) -> None:
        """One committed transaction. Raises ConflictError, and then nothing has happened."""
        visible, entries = dict(self.visible), list[Entry]()
        for kind, row, value in edits:
            before = visible.get(row)
            named = dict(zip(("name", "n"), value, strict=True))
            if kind == "insert":
                if before is not None:
                    raise ConflictError
                visible[row] = value
                entries.append(("PUT", row, {name: one for name, one in named.items() if one is not None}))
            elif before is not None and kind == "update":
                old = dict(zip(("name", "n"), before, strict=True))
                visible[row] = value
                entries.append(("PATCH", row, {name: one for name, one in named.items() if one != old[name]}))
            elif before is not None:
                del visible[row]
                entries.append(("DELETE", row, None))
        self.visible = visible
        if entries:
            self.is_settled = False
            self.queue.append(entries)
            self.written += len(entries)
            self.gate_target, self.last_seen = UNKNOWN, None

    def uploaded(self) -> None:
        self.queue.pop(0)

    def checkpoint_answered(self, request_id: int, written: int) -> None:
        """The service answered a request that was made when `written` entries had been written."""
        if not self.queue and self.written == written:
            self.gate_target = request_id

    def uploads_completed(self) -> None:
        if self.is_held_back and self.is_gate_open:
            self._publish_all()

    # The stream

    def requested(self, positions: dict[str, int]) -> None:
        """A connection asks for these buckets: what is not committed must come again, what is must not be forgotten."""
        for name, after in positions.items():
            assert after in self.positions.get(name, {}), f"{name} is not at {after}: {self.positions}"
        for name in self.positions:
            assert name in positions or 0 in self.positions[name], f"{name} was forgotten"
        self.positions = {name: {after: self.positions[name][after]} for name, after in positions.items()}
        self.target, self.is_held_back, self.awaited = None, False, self.gate_target

    def ended(self) -> None:
        """The service ended the stream: what came whole is kept."""
        self._commit()
        self.is_held_back = False

    def took(self, event: Event) -> set[str]:
        """A line has come. Returns the buckets that must be refused for their checksums; then the stream is over."""
        self.is_settled = self.is_settled and event is None
        match event:
            case Began():
                self._commit()
                for name in event.removed:
                    self._forget(name)
                self.wrong = (self.wrong if self.target is not None else set()) - event.updated - event.removed
                self.wrong |= {event.wrong} if event.wrong is not None else set()
                self.target, self.is_held_back = event.target, False
            case Data():
                stands = self.positions.setdefault(event.bucket, {0: False})
                spoiled = list(stands.values())[-1] and not event.has_clear
                stands.pop(event.end, None)
                stands[event.end] = spoiled or event.lost
            case Completed():
                return self._complete(event.priority)
            case None:
                pass
        return set()

    def _complete(self, priority: int | None) -> set[str]:
        assert self.target is not None
        self._commit()
        involved = {
            name for name, bucket in self.target.buckets.items() if priority is None or bucket.priority <= priority
        }
        spoiled = {name for name in involved if True in self.positions.get(name, {}).values()}
        if refused := spoiled | (involved & self.wrong):
            for name in refused:
                self._forget(name)
            return refused
        for name in involved & set(self.positions):
            self.positions[name] = {self.target.last_op_id: False}
        if priority is None and self.target.write_checkpoint is not None:
            self.last_seen = self.target.write_checkpoint
        if priority is None:
            if self.is_gate_open:
                self._publish_all()
            else:
                self.is_held_back = True
                if self.awaited is not None and self.awaited == self.gate_target:
                    self.gate_target = UNKNOWN  # the service does not know that request: ask anew
            self.awaited = None
        elif priority == 0 or self.is_gate_open:
            self._publish_part(priority, involved)
        return set()

    def _publish_all(self) -> None:
        assert self.target is not None
        self.visible = {row: value for row, (_, value) in self.target.visible().items()}
        self.applied = dict.fromkeys(self.positions, self.target.last_op_id)
        self.priorities = {COMPLETE}
        self.streams = {"first", "rest"}
        self.is_held_back = False
        self.is_settled = True

    def _publish_part(self, priority: int, involved: set[str]) -> None:
        assert self.target is not None
        newest = self.target.visible(priority)
        for name in involved:
            for row, (op_id, _) in self.target.buckets[name].rows.items():
                if op_id > self.applied.get(name, 0):
                    self.visible[row] = newest[row][1]
        self.applied |= dict.fromkeys(involved & set(self.positions), self.target.last_op_id)
        self.priorities = {one for one in self.priorities if one >= priority} | {priority}
        for stream, is_part in (("first", lambda one: one <= 1), ("rest", lambda one: one > 1)):
            own = [bucket.priority for bucket in self.target.buckets.values() if is_part(bucket.priority)]
            if own and max(own) <= priority:
                self.streams.add(stream)

    def _commit(self) -> None:
        self.positions = {name: dict([list(stands.items())[-1]]) for name, stands in self.positions.items()}

    def _forget(self, name: str) -> None:
        self.positions.pop(name, None)
        self.applied.pop(name, None)
