"""Checkpoints that come faster than they are published: the newest is, and what the others told is not lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sync import PowerSyncDatabase, ProtocolError
from sync.client import line_reader
from sync.client.line_reader import lines_of
from tests.kit import inside
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, ServiceConnector, rows, until_rows, within

FIRST = [
    {
        "checkpoint": {
            "last_op_id": "0",
            "buckets": [{"bucket": "b", "checksum": 0, "count": 0, "priority": 3}],
            "streams": [],
        }
    },
    {"checkpoint_complete": {"last_op_id": "0"}},
]


def change(number: int, write_checkpoint: str | None = None, *, checksum: int | None = None) -> list[dict[str, Any]]:
    """The lines of a checkpoint whose operation gives the one row the name `number`."""
    bucket = {"bucket": "b", "checksum": number if checksum is None else checksum, "count": number, "priority": 3}
    diff: dict[str, Any] = {"last_op_id": str(number), "updated_buckets": [bucket], "removed_buckets": []}
    if write_checkpoint is not None:
        diff["write_checkpoint"] = write_checkpoint
    operation = {
        "op_id": str(number),
        "op": "PUT",
        "object_type": "lists",
        "object_id": "a",
        "subkey": "s",
        "checksum": 1,
        "data": json.dumps({"name": str(number)}),
    }
    return [
        {"checkpoint_diff": diff},
        {"data": {"bucket": "b", "after": str(number - 1), "next_after": str(number), "data": [operation]}},
        {"checkpoint_complete": {"last_op_id": str(number)}},
    ]


def body(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


class Stream:
    """One stream at a time: what is sent goes to whoever has it open."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.exchange: Exchange | None = None
        self.requested = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.path != "/sync/stream":
            await exchange.answer(200, {"data": {"checkpoint_request_id": exchange.json["checkpoint_request_id"]}})
            self.requested.set()
            return
        await exchange.begin_stream()
        await exchange.send(body(FIRST))
        self.exchange = exchange
        self.opened.set()
        await exchange.closed_by_client()

    async def send(self, lines: list[dict[str, Any]]) -> None:
        assert self.exchange is not None
        await self.exchange.send(body(lines))


async def accept_all(database: PowerSyncDatabase) -> None:
    async for transaction in database.crud_transactions():
        await transaction.complete()


async def test_only_the_newest_of_many_is_published(database: PowerSyncDatabase) -> None:
    published: list[str] = []
    stream = Stream()
    async with scripted_service(stream) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_first_sync(10)

        def note(sql: str) -> None:
            if sql.startswith("INSERT OR REPLACE INTO ps_sync_state"):
                published.append(sql)

        await inside.trace_writer(database, note)
        await stream.send([line for number in range(1, 201) for line in change(number)])
        await until_rows(database, "SELECT name FROM lists", [["200"]])
        # All came in one piece; a little slack, should the machine have cut it.
        assert 1 <= len(published) <= 3
        await inside.trace_writer(database, lambda _: None)
        assert database.status.download_error is None
        state = await rows(database, "SELECT last_op, last_applied_op, count_at_last, count_since_last FROM ps_buckets")
        assert state == [[200, 200, 200, 0]]
        await database.disconnect()


async def test_a_checkpoint_request_of_one_that_was_passed_over_opens_the_gate(database: PowerSyncDatabase) -> None:
    stream = Stream()
    async with scripted_service(stream) as service:
        await database.connect(ServiceConnector(service.url, accept_all), QUICK)
        await within(10, stream.opened.wait())
        await database.wait_for_first_sync(10)
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'mine')")
        await within(10, stream.requested.wait())
        await database.wait_for_upload(10)
        # An absent write_checkpoint means none: the newest of these tells of no request.
        await stream.send([*change(1), *change(2, "1"), *change(3)])
        await until_rows(database, "SELECT name FROM lists", [["3"]])
        applied = "SELECT value FROM ps_kv WHERE key = 'last_applied_checkpoint_request_id'"
        assert await rows(database, applied) == [[1]]
        await database.disconnect()


async def test_what_came_before_a_line_that_cannot_be_read_is_published(database: PowerSyncDatabase) -> None:
    stream = Stream()
    async with scripted_service(stream) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await within(10, stream.opened.wait())
        await database.wait_for_first_sync(10)
        assert stream.exchange is not None
        await stream.exchange.send(body([*change(1), *change(2)]) + b"{nonsense\n")
        await until_rows(database, "SELECT name FROM lists", [["2"]])
        await database.wait_for_status(lambda status: isinstance(status.download_error, ProtocolError), 10)
        await database.disconnect()


async def chunks_of(*chunks: bytes | Exception) -> AsyncIterator[bytes]:
    for chunk in chunks:
        if isinstance(chunk, Exception):
            raise chunk
        yield chunk


async def test_lines_are_put_together_and_the_rest_without_an_end_is_dropped() -> None:
    given: list[bytearray] = []
    async with lines_of(chunks_of(b"a\nb", b"", b"c\n\nd")) as lines:
        async for several in lines:
            given += several
    assert given == [b"a", b"bc", b""]


async def test_a_body_that_breaks_gives_first_what_it_had() -> None:
    given: list[bytearray] = []
    async with lines_of(chunks_of(b"a\n", b"b\n", ConnectionError("broken"))) as lines:
        given += await anext(lines)
        if len(given) == 1:
            given += await anext(lines)
        with pytest.raises(ConnectionError, match="broken"):
            await anext(lines)
    assert given == [b"a", b"b"]


async def test_a_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_reader, "MAX_LINE_BYTES", 10)
    async with lines_of(chunks_of(b"a\n", b"x" * 11, b"y\n")) as lines:
        assert await anext(lines) == [b"a"]
        with pytest.raises(ProtocolError, match="that is too long"):
            await anext(lines)


async def test_no_more_is_read_ahead_than_is_worth_it() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b"x" * 65_535 + b"\n"

    async with lines_of(endless()) as lines:
        await anext(lines)
        before = 0
        while read != before:
            before = read
            for _ in range(10):
                await asyncio.sleep(0)
        assert 10 <= read <= 25
        for _ in range(20):
            assert len(await anext(lines)) <= 5
    stopped_at = read
    await asyncio.sleep(0)
    assert read == stopped_at
