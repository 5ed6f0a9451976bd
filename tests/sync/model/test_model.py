"""Random lives of a client, against a model of what must be visible.

A run is a random interleaving of what a service does (rows put, removed and compacted in buckets of several
priorities, buckets that come, go, change their priority or their name, checkpoints that overtake a download, wrong
checksums, operations that get lost, connections that end anywhere) and what happens at the client (transactions,
rollbacks, uploads, checkpoint requests, closing and opening again with other tables). After every step the file must
show what the model says, and at the end of every run the client must converge to the service's rows.

The engine's own download loop takes the bytes of the stream and works on a real file; only HTTP is left out. Everyday
use makes few runs, always the same ones. `TODO_TUI_MODEL_RUNS=2000` makes as many, new ones each time, and reduces a
counterexample to its core, which may take minutes; `THRESHOLDS` of `tests.sync.model.client` are drawn for each run.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.sync.model.client import SCHEMAS, THRESHOLDS, Client, thresholds
from tests.sync.model.expectation import ConflictError, Edit, Entry, Expectation
from tests.sync.model.server import Place, Row, Sent, Server, ServerConnection, Value

T = TypeVar("T")

EVERYDAY_RUNS = 40
RUNS = int(os.environ.get("TODO_TUI_MODEL_RUNS", EVERYDAY_RUNS))
STEPS = 40

PRIORITIES = {"urgent": 0, "first": 1, "second": 2, "rest": 3, "more": 3}
EVERYTHING = 1000

rows = st.tuples(st.sampled_from(["lists", "todos", "todos", "notes"]), st.sampled_from("ab"))
values = st.tuples(st.none() | st.sampled_from(["", "x", 'é"\n', "z"]), st.none() | st.integers(-2, 2**60))
buckets = st.sampled_from(sorted(PRIORITIES))
places = st.frozensets(st.tuples(buckets, st.sampled_from([None, "s"])), min_size=1, max_size=3)
edits = st.lists(st.tuples(st.sampled_from(["insert", "update", "delete"]), rows, values), min_size=1, max_size=3)
wrong = st.sampled_from([None] * 20 + sorted(PRIORITIES))
limits = st.sampled_from([1, 2, 5, EVERYTHING])


class Life(RuleBasedStateMachine):
    """One client, one service."""

    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        self.file = Path(self.exits.enter_context(tempfile.TemporaryDirectory())) / "client.db"
        self.server = Server(PRIORITIES)
        self.expected = Expectation()
        self.connection: ServerConnection | None = None
        self.client: Client | None = None
        self.answer: tuple[int, int] | None = None
        self.accepted: list[list[Entry]] = []

    def wait(self, what: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(what)

    @initialize(
        preloaded=st.sampled_from([0, 3, 30]),
        offered=st.frozensets(buckets, min_size=1),
        tables=st.sampled_from(list(SCHEMAS)),
        lowered=st.fixed_dictionaries({name: st.sampled_from(choices) for name, (_, choices) in THRESHOLDS.items()}),
    )
    def begin(
        self, preloaded: int, offered: frozenset[str], tables: tuple[str, ...], lowered: dict[str, int | None]
    ) -> None:
        self.exits.enter_context(thresholds(lowered))
        for key, bucket in self.server.buckets.items():
            bucket.is_offered = key in offered
        names = sorted(PRIORITIES)
        for number in range(preloaded):
            place: list[Place] = [(names[number % len(names)], None), (names[number % 3], "s")]
            self.server.put(("todos", f"{number:02}"), ("p", number), place[: 1 + number % 2])
        self.open(tables)

    # The service's data

    @rule(row=rows, value=values, where=places)
    def a_row_is_put(self, row: Row, value: Value, where: frozenset[Place]) -> None:
        self.server.put(row, value, where)

    @precondition(lambda self: self.server.rows)
    @rule(which=st.integers(0, 9), is_changed_before=st.booleans())
    def a_row_is_deleted(self, which: int, is_changed_before: bool) -> None:
        there = sorted(self.server.rows)
        row = there[which % len(there)]
        if is_changed_before:
            (name, _), where = self.server.rows[row]
            self.server.put(row, (name, -1), where)
        self.server.delete(row)

    @rule(key=buckets, priority=st.sampled_from([None, None, None, 0, 1, 2, 3]))
    def a_bucket_comes_or_goes(self, key: str, priority: int | None) -> None:
        bucket = self.server.buckets[key]
        if priority is None:
            bucket.is_offered = not bucket.is_offered
        else:
            bucket.priority = priority

    @rule(keys=st.just(frozenset(PRIORITIES)) | st.frozensets(buckets, min_size=1), clear=st.booleans())
    def buckets_are_compacted(self, keys: frozenset[str], clear: bool) -> None:
        """Never beyond a target that a client works towards: its checksums must go on to add up."""
        target = None if self.connection is None or self.connection.is_idle else self.connection.target
        for key in keys:
            self.server.buckets[key].compact(
                self.server.last_op_id if target is None else target.last_op_id, clear=clear
            )

    @rule(what=st.sampled_from(["deploy", "forget checkpoint requests", "drop the connection"]))
    def the_service_is_restarted(self, what: str) -> None:
        self.end_stream()
        if what == "deploy":
            self.server.deploy()
        elif what == "forget checkpoint requests":
            self.server.checkpoint_requests = 0

    # The stream

    @precondition(lambda self: self.connection is None)
    @rule(spoiled=wrong)
    def the_service_accepts(self, spoiled: str | None) -> None:
        self.accept(spoiled)

    @precondition(lambda self: self.connection is not None)
    @rule(spoiled=wrong)
    def the_target_changes(self, spoiled: str | None) -> None:
        assert self.connection is not None
        name = None if spoiled is None else self.server.buckets[spoiled].name
        if (sent := self.connection.diff(name)) is not None:
            self.send([sent])

    @precondition(lambda self: self.connection is not None and not self.connection.is_idle)
    @rule(count=st.integers(1, 4), limit=limits, in_one=st.booleans(), lose=st.sampled_from([None, None, None, 0, 1]))
    def lines_come(self, count: int, limit: int, in_one: bool, lose: int | None) -> None:
        assert self.connection is not None
        if not in_one:
            for _ in range(count):
                if self.connection is not None and (sent := self.connection.next_line(limit, lose)) is not None:
                    self.send([sent])
            return
        lines: list[Sent] = []
        while len(lines) < count and (sent := self.connection.next_line(limit, lose)) is not None:
            lines.append(sent)
            if "data" not in sent[0]:
                break  # the client may end the stream here
        if lines:
            self.send(lines)

    @rule(limit=limits, is_newest=st.booleans())
    def all_of_the_target_comes(self, limit: int, is_newest: bool) -> None:
        self.catch_up(limit)
        if is_newest and self.connection is not None and (sent := self.connection.diff()) is not None:
            self.send([sent])
            self.catch_up(limit)

    @rule(where=places)
    def all_is_uploaded_and_comes_back(self, where: frozenset[Place]) -> None:
        self.upload_all(where)
        self.all_of_the_target_comes(EVERYTHING, is_newest=True)

    @precondition(lambda self: self.connection is not None)
    @rule()
    def a_sign_of_life_comes(self) -> None:
        self.send([({"token_expires_in": 300}, None)])

    @precondition(lambda self: self.connection is not None)
    @rule(limit=limits, share=st.sampled_from([0.0, 0.3, 0.9]))
    def the_connection_ends_within_a_line(self, limit: int, share: float) -> None:
        assert self.connection is not None
        if (sent := self.connection.next_line(limit)) is not None:
            text = json.dumps(sent[0]).encode()
            assert self.wait(self.opened.send(text[: int(len(text) * share)] or b" "))
        self.end_stream()

    # The client

    @rule(changes=edits, roll_back=st.sampled_from([False, False, True]))
    def the_app_writes(self, changes: list[Edit], roll_back: bool) -> None:
        changes = [change for change in changes if change[1][0] in self.opened.tables]
        before = self.expected
        try:
            if roll_back:
                scratch = Expectation(visible=dict(before.visible))
                scratch.write(changes)
            else:
                before.write(changes)
        except ConflictError:
            with pytest.raises(sqlite3.IntegrityError):
                self.wait(self.opened.write(changes, roll_back=roll_back))
        else:
            self.wait(self.opened.write(changes, roll_back=roll_back))

    @precondition(lambda self: self.expected.queue)
    @rule(where=places)
    def the_backend_takes_a_transaction(self, where: frozenset[Place]) -> None:
        """Its answer comes later, or never: then the same transaction is sent again."""
        first, *_ = self.wait(self.opened.waiting_transactions())
        assert first == self.expected.queue[0]
        for op, row, data in first:
            self.server.apply(op, row, data or {}, where)
        self.accepted = [first]

    @precondition(lambda self: self.accepted)
    @rule()
    def the_backend_answers(self) -> None:
        self.accepted.clear()
        self.wait(self.opened.complete_first())
        self.expected.uploaded()

    @precondition(lambda self: not self.expected.queue)
    @rule()
    def a_checkpoint_is_requested(self) -> None:
        self.request_checkpoint()

    @precondition(lambda self: self.answer is not None)
    @rule()
    def the_request_is_answered(self) -> None:
        self.checkpoint_answered()

    @rule(tables=st.sampled_from(list(SCHEMAS)))
    def the_file_is_closed_and_opened(self, tables: tuple[str, ...]) -> None:
        self.wait(self.opened.close())
        self.client = self.connection = self.answer = None
        self.accepted.clear()
        self.open(tables)

    # How

    @property
    def opened(self) -> Client:
        assert self.client is not None
        return self.client

    def open(self, tables: tuple[str, ...]) -> None:
        self.client = self.wait(Client.open(self.file, tables))
        assert self.client.has_synced == bool(2147483647 in self.expected.priorities)
        self.expected.requested(self.client.stream.positions)

    def accept(self, spoiled: str | None = None) -> None:
        self.wait(self.opened.accept())
        self.connection = ServerConnection(self.server, dict(self.opened.stream.positions))
        self.send([self.connection.checkpoint(None if spoiled is None else self.server.buckets[spoiled].name)])

    def send(self, lines: list[Sent]) -> None:
        goes_on = self.wait(self.opened.send(b"".join(json.dumps(line).encode() + b"\n" for line, _ in lines)))
        refused: set[str] = set()
        for _, event in lines:
            refused |= self.expected.took(event)
        assert goes_on == (not refused), self.opened.database.status.download_error
        if refused:
            assert set(self.opened.refused_buckets) == refused
            self.connection = None
            self.expected.requested(self.opened.stream.positions)

    def end_stream(self) -> None:
        if self.connection is not None:
            self.connection = None
            self.wait(self.opened.end())
            self.expected.ended()
            self.expected.requested(self.opened.stream.positions)

    def catch_up(self, limit: int) -> None:
        if self.connection is None:
            self.accept()
        while self.connection is not None and (sent := self.connection.next_line(limit)) is not None:
            self.send([sent])

    def request_checkpoint(self) -> None:
        request = self.wait(self.opened.request_checkpoint(self.server))
        assert (request is not None) == (self.expected.gate_target == 2**63 - 1)
        if request is not None:
            self.answer = (request[0], request[1])
            self.written_then = self.expected.written

    def checkpoint_answered(self) -> None:
        assert self.answer is not None
        answer, self.answer = self.answer, None
        self.wait(self.opened.checkpoint_answered(*answer))
        self.expected.checkpoint_answered(answer[0], self.written_then)
        self.wait(self.opened.uploads_completed())
        self.expected.uploads_completed()

    def upload_all(self, where: frozenset[Place]) -> None:
        while self.expected.queue:
            self.the_backend_takes_a_transaction(where)
            self.the_backend_answers()
        if self.answer is not None:
            self.checkpoint_answered()
        self.request_checkpoint()
        if self.answer is not None:
            self.checkpoint_answered()

    @invariant()
    def look(self) -> None:
        """The file shows what the model says."""
        seen = self.wait(self.opened.look())
        assert seen.visible == self.expected.visible
        assert seen.queue == self.expected.queue
        assert seen.is_gate_open == self.expected.is_gate_open
        assert seen.priorities == self.expected.priorities
        assert seen.streams == self.expected.streams
        assert not (seen.has_notes and self.expected.is_settled)

    def teardown(self) -> None:
        with self.exits:
            if self.client is not None:
                try:
                    if sys.exc_info()[0] is None:
                        self.converge()
                finally:
                    self.wait(self.opened.close())

    def converge(self) -> None:
        """Let all that is under way come to its end."""
        for _ in range(3):
            self.end_stream()
            self.upload_all(frozenset({("rest", None)}))
            self.catch_up(EVERYTHING)
        self.look()
        assert self.expected.is_gate_open
        assert self.expected.visible == {row: value for row, (_, value) in self.server.target().visible().items()}
        assert self.wait(self.opened.integrity()) == "ok"


@pytest.mark.timeout(600 + 2 * RUNS)
def test_every_life_shows_what_it_must() -> None:
    with asyncio.Runner() as runner:
        Life.runner = runner
        run_state_machine_as_test(
            Life,
            settings=settings(
                max_examples=RUNS,
                derandomize=RUNS == EVERYDAY_RUNS,
                phases=[Phase.generate] if RUNS == EVERYDAY_RUNS else [Phase.reuse, Phase.generate, Phase.shrink],
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
