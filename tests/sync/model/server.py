"""A service in miniature: rows, bucket logs with checksums that add up, and connections that stream them.

It behaves as a PowerSync Service does on the wire. It knows nothing of the engine.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Row = tuple[str, str]
"""Type and id."""

Value = tuple[str | None, int | None]
"""The columns `name` and `n`."""

Place = tuple[str, str | None]
"""A bucket (by the name that survives a deployment) and a subkey."""


@dataclass(frozen=True)
class Op:
    op_id: int
    kind: str
    checksum: int
    row: Row | None = None
    subkey: str | None = None
    value: Value | None = None

    def as_json(self) -> dict[str, Any]:
        line: dict[str, Any] = {"op_id": str(self.op_id), "op": self.kind, "checksum": self.checksum}
        if self.row is not None:
            line |= {"object_type": self.row[0], "object_id": self.row[1], "subkey": self.subkey, "data": None}
        if self.value is not None:
            assert self.row is not None
            line["data"] = json.dumps({"id": self.row[1], "name": self.value[0], "n": self.value[1]})
        return line


@dataclass
class Bucket:
    name: str
    priority: int
    is_offered: bool = True
    log: list[Op] = field(default_factory=list)

    def current(self, up_to: int) -> dict[tuple[Row | None, str | None], Op]:
        """The PUT of every key."""
        puts: dict[tuple[Row | None, str | None], Op] = {}
        for op in self.log:
            if op.op_id > up_to:
                break
            if op.kind == "PUT":
                puts[op.row, op.subkey] = op
            elif op.kind == "REMOVE":
                puts.pop((op.row, op.subkey), None)
        return puts

    def compact(self, up_to: int, *, clear: bool) -> None:
        """Superseded operations become MOVE; with `clear`, those before the first that counts become one CLEAR."""
        newest = {(op.row, op.subkey): op.op_id for op in self.log if op.op_id <= up_to and op.row is not None}
        for position, op in enumerate(self.log):
            if op.row is not None and op.op_id < newest.get((op.row, op.subkey), 0):
                self.log[position] = Op(op.op_id, "MOVE", op.checksum)
        if clear:
            leading: list[Op] = []
            for op in self.log:
                if op.kind == "PUT" or op.op_id > up_to:
                    break
                leading.append(op)
            if leading:
                total = sum(op.checksum for op in leading) % 2**32
                self.log[: len(leading)] = [Op(leading[-1].op_id, "CLEAR", total)]


@dataclass(frozen=True)
class Offered:
    """A bucket as a checkpoint names it, and what its rows are there: row -> (op_id, value)."""

    checksum: int
    count: int
    priority: int
    rows: dict[Row, tuple[int, Value]]

    def differs_from(self, other: Offered | None) -> bool:
        return other is None or (self.checksum, self.count, self.priority) != (
            other.checksum,
            other.count,
            other.priority,
        )


@dataclass(frozen=True)
class Target:
    last_op_id: int
    write_checkpoint: int | None
    buckets: dict[str, Offered]

    def visible(self, priority: int = 99) -> dict[Row, tuple[int, Value]]:
        """Every row with its newest operation over the buckets of a priority and above."""
        newest: dict[Row, tuple[int, Value]] = {}
        for bucket in self.buckets.values():
            if bucket.priority <= priority:
                for row, candidate in bucket.rows.items():
                    newest[row] = max(newest.get(row, candidate), candidate, key=lambda found: found[0])
        return newest


class Server:
    """All that outlives a connection."""

    def __init__(self, priorities: dict[str, int]) -> None:
        self.generation = 1
        self.last_op_id = 0
        self.buckets = {key: Bucket(f"1#{key}", priority) for key, priority in priorities.items()}
        self.rows: dict[Row, tuple[Value, frozenset[Place]]] = {}
        self.checkpoint_requests = 0

    def _append(self, kind: str, row: Row, place: Place, value: Value | None = None) -> None:
        self.last_op_id += 1
        key, subkey = place
        checksum = zlib.crc32(f"{self.last_op_id} {kind} {row} {place}".encode())
        self.buckets[key].log.append(Op(self.last_op_id, kind, checksum, row, subkey, value))

    def put(self, row: Row, value: Value, places: Iterable[Place]) -> None:
        """Store a row. Each bucket selects columns of its own, so that the same row differs between buckets."""
        _, before = self.rows.get(row, (None, frozenset[Place]()))
        self.rows[row] = (value, frozenset(places))
        for place in sorted(before - self.rows[row][1], key=str):
            self._append("REMOVE", row, place)
        for place in sorted(self.rows[row][1], key=str):
            self._append("PUT", row, place, (f"{value[0]}@{place[0]}{place[1]}", value[1]))

    def delete(self, row: Row) -> None:
        _, places = self.rows.pop(row, (None, frozenset[Place]()))
        for place in sorted(places, key=str):
            self._append("REMOVE", row, place)

    def apply(self, op: str, row: Row, data: dict[str, Any], places: Iterable[Place]) -> None:
        """One uploaded change."""
        value, before = self.rows.get(row, ((None, None), None))
        if op == "DELETE":
            self.delete(row)
        elif op == "PUT":
            self.put(row, (data.get("name"), data.get("n")), places if before is None else before)
        elif before is not None:
            self.put(row, (data.get("name", value[0]), data.get("n", value[1])), before)

    def deploy(self) -> None:
        """A new sync config: every bucket has a new name and a new log."""
        self.generation += 1
        for key, bucket in self.buckets.items():
            self.buckets[key] = Bucket(f"{self.generation}#{key}", bucket.priority, bucket.is_offered)
        for row, (value, places) in sorted(self.rows.items()):
            self.rows[row] = (value, frozenset())
            self.put(row, value, places)

    def request_checkpoint(self, request_id: int) -> int:
        self.checkpoint_requests = max(self.checkpoint_requests, request_id)
        return self.checkpoint_requests

    def target(self) -> Target:
        """A checkpoint of all that there is."""
        offered: dict[str, Offered] = {}
        for bucket in self.buckets.values():
            if bucket.is_offered:
                rows: dict[Row, tuple[int, Value]] = {}
                for op in bucket.current(self.last_op_id).values():
                    assert op.row is not None
                    assert op.value is not None
                    rows[op.row] = max(rows.get(op.row, (0, op.value)), (op.op_id, op.value), key=lambda one: one[0])
                offered[bucket.name] = Offered(
                    sum(op.checksum for op in bucket.log) % 2**32, len(bucket.log), bucket.priority, rows
                )
        return Target(self.last_op_id, self.checkpoint_requests or None, offered)


@dataclass(frozen=True)
class Began:
    """A checkpoint or a diff: a new target, whose checksums of the buckets `wrong` are not those of the data."""

    target: Target
    removed: frozenset[str]
    updated: frozenset[str]
    wrong: str | None


@dataclass(frozen=True)
class Data:
    """Operations of a bucket, up to `end`. `lost`: one of them did not make it."""

    bucket: str
    end: int
    has_clear: bool
    lost: bool


@dataclass(frozen=True)
class Completed:
    """A complete (None) or partly complete checkpoint."""

    priority: int | None


Event = Began | Data | Completed | None
Sent = tuple[dict[str, Any], Event]


class ServerConnection:
    """One stream: what it has sent of its target, and what comes next."""

    STREAMS = ({"name": "first", "is_default": True, "errors": []}, {"name": "rest", "is_default": True, "errors": []})

    def __init__(self, server: Server, positions: dict[str, int]) -> None:
        self._server = server
        self._positions = positions
        self.target: Target | None = None
        self._unfinished: set[str] = set()
        self._priorities: list[int] = []
        self.is_idle = False

    def checkpoint(self, wrong: str | None = None) -> Sent:
        """The first line."""
        target = self._server.target()
        wrong = wrong if wrong in target.buckets else None
        removed = frozenset(self._positions) - frozenset(target.buckets)
        self._begin(target, removed, frozenset(target.buckets))
        body = {
            "last_op_id": str(target.last_op_id),
            "buckets": [self._described(name, wrong) for name in target.buckets],
            "streams": list(self.STREAMS),
        }
        if target.write_checkpoint is not None:
            body["write_checkpoint"] = str(target.write_checkpoint)
        return {"checkpoint": body}, Began(target, removed, frozenset(target.buckets), wrong)

    def diff(self, wrong: str | None = None) -> Sent | None:
        """A line that changes the target, also in the middle of a download; None if nothing has changed."""
        assert self.target is not None
        target = self._server.target()
        removed = frozenset(self.target.buckets) - frozenset(target.buckets)
        updated = frozenset(
            name for name, bucket in target.buckets.items() if bucket.differs_from(self.target.buckets.get(name))
        )
        if not removed and not updated and target.write_checkpoint == self.target.write_checkpoint:
            return None
        wrong = wrong if wrong in updated else None
        self._begin(target, removed, updated)
        body: dict[str, Any] = {
            "last_op_id": str(target.last_op_id),
            "updated_buckets": [self._described(name, wrong) for name in sorted(updated)],
            "removed_buckets": sorted(removed),
        }
        if target.write_checkpoint is not None:
            body["write_checkpoint"] = str(target.write_checkpoint)
        return {"checkpoint_diff": body}, Began(target, removed, updated, wrong)

    def next_line(self, limit: int, lose: int | None = None) -> Sent | None:
        """What follows: at most `limit` operations, of which the one at `lose` gets lost; None if all is sent."""
        if self.target is None or self.is_idle:
            return None
        names = {bucket.name: bucket for bucket in self._server.buckets.values()}
        while self._priorities:
            priority = self._priorities[0]
            for name in sorted(self._unfinished):
                if self.target.buckets[name].priority == priority:
                    after = self._positions.get(name, 0)
                    ops = [op for op in names[name].log if after < op.op_id <= self.target.last_op_id]
                    if len(ops) <= limit:
                        self._unfinished.discard(name)
                    if ops:
                        return self._data(name, after, ops[:limit], len(ops) > limit, lose)
            self._priorities.pop(0)
            if self._priorities:
                body = {"last_op_id": str(self.target.last_op_id), "priority": priority}
                return {"partial_checkpoint_complete": body}, Completed(priority)
        self.is_idle = True
        return {"checkpoint_complete": {"last_op_id": str(self.target.last_op_id)}}, Completed(None)

    def _begin(self, target: Target, removed: Iterable[str], updated: frozenset[str]) -> None:
        for name in removed:
            self._positions.pop(name, None)
        self._unfinished = (self._unfinished | updated) & set(target.buckets)
        self._priorities = sorted({target.buckets[name].priority for name in self._unfinished})
        self.target = target
        self.is_idle = False

    def _described(self, name: str, wrong: str | None) -> dict[str, Any]:
        assert self.target is not None
        bucket = self.target.buckets[name]
        checksum = (bucket.checksum + (name == wrong)) % 2**32
        return {
            "bucket": name,
            "checksum": checksum - 2**32 if checksum >= 2**31 else checksum,
            "count": bucket.count,
            "priority": bucket.priority,
            "subscriptions": [{"default": 0 if bucket.priority <= 1 else 1}],
        }

    def _data(self, name: str, after: int, ops: list[Op], has_more: bool, lose: int | None) -> Sent:
        self._positions[name] = ops[-1].op_id
        # The last one is never lost: its loss would only look like a line that ends sooner.
        lost = lose if lose is not None and lose < len(ops) - 1 else None
        sent = [op for position, op in enumerate(ops) if position != lost]
        clears = [position for position, op in enumerate(ops) if op.kind == "CLEAR"]
        body = {
            "bucket": name,
            "after": str(after),
            "next_after": str(ops[-1].op_id),
            "has_more": has_more,
            "data": [op.as_json() for op in sent],
        }
        has_clear = any(op.kind == "CLEAR" for op in sent)
        counts = lost is not None and not any(lost < position for position in clears)
        return {"data": body}, Data(name, ops[-1].op_id, has_clear, counts)
