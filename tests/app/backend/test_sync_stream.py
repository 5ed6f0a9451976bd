"""The sync stream: its lines, what moves in them, what wakes it, and how it ends."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from typing import Any

import pytest

from app.backend import BackendConfig
from app.backend.http.sync_stream import TokenClock
from tests.kit.stopped_time import stopped_time

from .harness import Replica, User, delete, patch, put, running, signed_in, subscription, todos_of

OP_KEYS = {"op_id", "op", "object_type", "object_id", "checksum", "subkey", "data"}


def described(bucket: dict[str, Any]) -> tuple[str, int, list[dict[str, int]]]:
    """A bucket of a checkpoint: its stream, priority and subscriptions."""
    stream = bucket["bucket"].partition("#")[2].partition("|")[0]
    return stream, bucket["priority"], bucket["subscriptions"]


async def first_line(user: User, *subscriptions: Any, **options: Any) -> dict[str, Any]:
    async with user.stream(list(subscriptions), **options) as lines:
        key, content = await lines.next()
        assert key == "checkpoint"
        return content


async def test_the_first_checkpoint_and_a_diff_have_the_services_shape(ann: User) -> None:
    await ann.write(put("lists", "l", name="Groceries", created_at="2026-01-01T00:00:00Z"))
    await ann.write(put("todos", "t", description="Milk", list_id="l", created_at="2026-01-01T00:00:00Z", completed=0))
    async with ann.stream(todos_of("l")) as lines:
        (_, checkpoint), (_, of_lists), (_, of_todos), complete = await lines.checkpoint()
        assert list(checkpoint) == ["last_op_id", "buckets", "streams"]
        assert checkpoint["last_op_id"] == "3"  # the list, whose it is, the to-do
        assert [described(bucket) for bucket in checkpoint["buckets"]] == [
            ("lists", 3, [{"default": 0}]),
            ("todos", 3, [{"sub": 0}]),
        ]
        assert checkpoint["streams"] == [
            {"name": "lists", "is_default": True, "errors": []},
            {"name": "todos", "is_default": False, "errors": []},
        ]
        assert list(of_lists) == ["bucket", "after", "has_more", "data", "next_after"]
        assert (of_lists["after"], of_lists["next_after"], of_lists["has_more"]) == ("0", "1", False)
        (op,) = of_todos["data"]
        assert set(op) == OP_KEYS
        assert (op["op_id"], op["op"], op["object_type"], op["object_id"]) == ("3", "PUT", "todos", "t")
        assert op["data"] == (
            '{"id":"t","created_at":"2026-01-01T00:00:00Z","completed_at":null,"description":"Milk",'
            '"completed":0,"created_by":null,"completed_by":null,"list_id":"l","photo_id":null}'
        )
        assert complete == ("checkpoint_complete", {"last_op_id": "3"})

        await ann.write(patch("todos", "t", completed=True, completed_by="ann"))
        (key, diff), (_, update), complete = await lines.checkpoint()
        assert key == "checkpoint_diff"
        assert list(diff) == ["last_op_id", "removed_buckets", "updated_buckets"]
        assert [described(bucket) for bucket in diff["updated_buckets"]] == [("todos", 3, [{"sub": 0}])]
        assert update["after"] == "3"
        (second,) = update["data"]
        assert second["subkey"] == op["subkey"]
        assert second["checksum"] != op["checksum"]
        assert json.loads(second["data"]) == {**json.loads(op["data"]), "completed": 1, "completed_by": "ann"}
        assert complete == ("checkpoint_complete", {"last_op_id": "4"})

        await ann.write(delete("todos", "t"))
        (_, update) = (await lines.checkpoint())[1]
        (removal,) = update["data"]
        assert (removal["op"], removal["data"], removal["subkey"]) == ("REMOVE", None, op["subkey"])


async def test_without_raw_data_rows_are_nested_objects(ann: User) -> None:
    await ann.write(put("lists", "l", name="N"), put("lists", "m", name="N"), delete("lists", "m"))
    async with ann.stream(raw_data=False) as lines:
        (_, data) = (await lines.checkpoint())[1]
    assert data["data"][0]["data"]["name"] == "N"
    assert data["data"][2]["data"] is None


LISTS_DEFAULT = ("lists", 3, [{"default": 0}])


@pytest.mark.parametrize(
    ("subscriptions", "include_defaults", "buckets", "streams"),
    [
        ([], True, [LISTS_DEFAULT], ["lists"]),
        ([], False, [], []),
        ([subscription("no_such_stream", {"a": 1})], True, [LISTS_DEFAULT], ["lists"]),
        ([subscription("no_such_stream")], False, [], []),
        ([subscription("todos")], True, [LISTS_DEFAULT], ["lists", "todos"]),
        ([subscription("todos", {"list": "not mine"})], True, [LISTS_DEFAULT], ["lists", "todos"]),
        ([subscription("todos", {"list": "a"})], False, [("todos", 3, [{"sub": 0}])], ["todos"]),
        ([subscription("lists", None, 1)], True, [("lists", 1, [{"sub": 0}, {"default": 0}])], ["lists"]),
        ([subscription("lists", None, 1)], False, [("lists", 1, [{"sub": 0}])], ["lists"]),
        (
            [
                subscription("todos", {"list": "a"}, 0),
                subscription("no_such_stream"),
                subscription("todos", {"list": "b"}, 1),
                subscription("lists", None, 3),
                subscription("todos", {"list": "a"}, 2),
                subscription("todos", {"list": "b"}),
            ],
            True,
            [
                ("lists", 3, [{"sub": 3}, {"default": 0}]),
                ("todos", 0, [{"sub": 0}, {"sub": 4}]),
                ("todos", 1, [{"sub": 2}, {"sub": 5}]),
            ],
            ["lists", "todos"],
        ),
        (
            [subscription("todos", {"list": value}) for value in (None, 5, ["a"], {"a": 1}, 10**30)],
            False,
            [],
            ["todos"],
        ),
    ],
)
async def test_which_buckets_and_streams_a_request_selects(
    ann: User, subscriptions: Any, include_defaults: bool, buckets: Any, streams: Any
) -> None:
    await ann.write(put("lists", "a", name="A"), put("lists", "b", name="B"))
    checkpoint = await first_line(ann, *subscriptions, include_defaults=include_defaults)
    assert [described(bucket) for bucket in checkpoint["buckets"]] == buckets
    assert [stream["name"] for stream in checkpoint["streams"]] == streams


async def test_empty_buckets_are_listed_without_data(ann: User) -> None:
    await ann.write(put("lists", "l", name="N"))
    async with ann.stream(todos_of("l")) as lines:
        (_, checkpoint), _, complete = await lines.checkpoint()
    assert [(bucket["count"]) for bucket in checkpoint["buckets"]] == [1, 0]
    assert checkpoint["buckets"][1]["checksum"] == 0
    assert complete == ("checkpoint_complete", {"last_op_id": "2"})


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'{"streams":{"include_defaults":false,"subscriptions":[]}}', "text/plain"),
        (b"[1]", "application/json"),
        (b"null", "application/json"),
        (b"not json", "application/json"),
        (b"", "application/json"),
        (b"{}", "application/json; charset=utf-8"),
    ],
)
async def test_a_body_that_is_no_json_object_counts_as_empty(ann: User, content: bytes, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    async with ann.http.stream("POST", "/sync/stream", content=content, headers=headers) as answer:
        assert answer.status_code == 200
        checkpoint = json.loads((await anext(answer.aiter_bytes())).partition(b"\n")[0])["checkpoint"]
    assert [described(bucket) for bucket in checkpoint["buckets"]] == [LISTS_DEFAULT]


@pytest.mark.parametrize(
    "body",
    [
        *(
            {"streams": {"subscriptions": [{k: v for k, v in subscription("todos").items() if k != missing}]}}
            for missing in ("stream", "parameters", "override_priority")
        ),
        {"streams": {"subscriptions": [subscription("todos", [])]}},
        {"streams": {"subscriptions": [{**subscription("todos"), "override_priority": "high"}]}},
        {"streams": {"subscriptions": [{**subscription("todos"), "override_priority": 4}]}},
        {"streams": []},
        {"buckets": [{"name": "b", "after": 5}]},
        {"buckets": [{"name": "b", "after": "-5"}]},
        {"buckets": [{"name": "b"}]},
        {"buckets": {}},
    ],
    ids=lambda value: json.dumps(value)[:70],
)
async def test_a_body_of_the_wrong_shape_is_refused(ann: User, body: Any) -> None:
    answer = await ann.http.post("/sync/stream", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["name"] == "ValidationError"


async def test_more_than_a_thousand_buckets_are_refused(ann: User) -> None:
    names = [f"l{number}" for number in range(1000)]
    await ann.write(*(put("lists", name, name="N") for name in names))
    answer = await ann.http.post("/sync/stream", json={"streams": {"subscriptions": todos_of(*names)}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "PSYNC_S2305")
    checkpoint = await first_line(ann, *todos_of(*names[:-1], *names[:-1]))
    assert len(checkpoint["buckets"]) == 1000


async def test_a_commit_reaches_another_client_by_itself(backend: str, ann: User) -> None:
    """While time stands still: with a backend that polls, or delays what it has, it would never come."""
    await ann.write(put("lists", "l", name="N"))
    with stopped_time():
        async with signed_in(backend, "ann") as other, other.stream(todos_of("l")) as lines:
            replica = Replica()
            await replica.take_checkpoint(lines)
            for number in range(25):
                await ann.write(put("todos", f"t{number}", description="D", list_id="l"))
                await replica.take_checkpoint(lines)
                assert f"t{number}" in replica.rows("todos")


async def test_a_moved_todo_leaves_one_bucket_and_enters_the_other(ann: User) -> None:
    await ann.write(put("lists", "a", name="A"), put("lists", "b", name="B"))
    await ann.write(put("todos", "t", description="D", list_id="a"))
    replica = Replica()
    async with ann.stream(todos_of("a", "b")) as lines:
        await replica.take_checkpoint(lines)
        await ann.write(patch("todos", "t", list_id="b"))
        await replica.take_checkpoint(lines)
    of_a, of_b = (replica.ops[replica.bucket("todos", containing=f'"{name}"')] for name in ("a", "b"))
    assert [op["op"] for op in of_a] == ["PUT", "REMOVE"]
    assert [op["op"] for op in of_b] == ["PUT"]
    assert replica.rows("todos")["t"]["list_id"] == "b"
    assert (await ann.synced("a")).rows("todos") == {}


async def test_a_deleted_list_takes_its_todos_along(ann: User) -> None:
    await ann.write(put("lists", "a", name="A"), put("lists", "b", name="B"))
    await ann.write(
        *(put("todos", f"{name}{number}", description="D", list_id=name) for name in "ab" for number in "123")
    )
    replica = Replica()
    async with ann.stream(todos_of("a", "b")) as lines:
        await replica.take_checkpoint(lines)
        await ann.write(delete("lists", "a"))
        await replica.take_checkpoint(lines)
    assert set(replica.rows("lists")) == {"b"}
    assert set(replica.rows("todos")) == {"b1", "b2", "b3"}
    assert [name for name in replica.target if '"a"' in name] == []


async def test_users_see_only_their_own(ann: User, bob: User) -> None:
    await ann.write(put("lists", "l", name="Secret"), put("todos", "t", description="Secret", list_id="l"))
    replica = Replica()
    async with bob.stream(todos_of("l")) as lines:
        await replica.take_checkpoint(lines)
        assert replica.streams == ["lists", "todos"]
        assert all(bucket["count"] == 0 for bucket in replica.target.values())
        await ann.write(put("todos", "t2", description="Secret", list_id="l"))
        await bob.write(put("lists", "b", name="Bob's"))
        await replica.take_checkpoint(lines)
        assert set(replica.rows("lists")) == {"b"}
        assert replica.rows("todos") == {}
    stolen = [{"name": name, "after": "0"} for name in (await ann.synced("l")).target]
    assert not {bucket["name"] for bucket in stolen} & set((await bob.synced("l", buckets=stolen)).target)


async def test_a_list_id_that_is_used_again_by_another_user_shows_no_history(ann: User, bob: User) -> None:
    await ann.write(put("lists", "l", name="N"), put("todos", "t", description="Secret", list_id="l"))
    await ann.write(delete("lists", "l"))
    await bob.write(put("lists", "l", name="B"), put("todos", "u", description="Tea", list_id="l"))
    replica = await bob.synced("l")
    assert set(replica.rows("todos")) == {"u"}
    assert "Secret" not in json.dumps(replica.ops)
    assert (await ann.synced("l")).rows("todos") == {}


async def test_long_buckets_come_in_lines_of_a_thousand(ann: User) -> None:
    await ann.write(put("lists", "l", name="N"))
    for start in range(0, 2500, 500):
        await ann.write(
            *(put("todos", f"t{number}", description="D", list_id="l") for number in range(start, start + 500))
        )
    async with ann.stream(todos_of("l"), include_defaults=False) as lines:
        taken = await lines.checkpoint()
        replica = Replica()
        for key, content in taken:
            replica.take(key, content)
    data = [content for key, content in taken if key == "data"]
    assert [len(content["data"]) for content in data] == [1000, 1000, 500]
    assert [content["has_more"] for content in data] == [True, True, False]
    assert len(replica.rows("todos")) == 2500


async def test_a_commit_during_a_long_download_overtakes_its_checkpoint(ann: User) -> None:
    await ann.write(put("lists", "l", name="N"))
    text = "x" * 9000
    for start in range(0, 3000, 100):
        await ann.write(*(put("todos", f"t{n}", description=text, list_id="l") for n in range(start, start + 100)))
    replica = Replica()
    async with ann.stream(todos_of("l")) as lines:
        for _ in range(2):
            replica.take(*(await lines.next()))
        await ann.write(put("todos", "late", description="Late", list_id="l"), put("lists", "m", name="N"))
        keys = await replica.take_checkpoint(lines)
    assert keys.count("data") > 20
    # One complete checkpoint, of the newer target, and nothing came twice: the replica would have refused it.
    assert keys.count("checkpoint_diff") == 1
    assert 0 < keys.index("checkpoint_diff") < len(keys) - 2
    assert len(replica.rows("todos")) == 3001
    assert set(replica.rows("lists")) == {"l", "m"}


async def test_higher_priorities_complete_first(ann: User) -> None:
    await ann.write(*(put("lists", name, name="N") for name in "abc"))
    await ann.write(*(put("todos", f"t{name}", description="D", list_id=name) for name in "abc"))
    requested = [
        subscription("todos", {"list": name}, priority) for name, priority in zip("abc", (2, 0, 2), strict=True)
    ]
    replica = Replica()

    async with ann.stream(requested) as lines:

        async def order() -> list[Any]:
            seen: list[Any] = []
            for key, content in await lines.checkpoint():
                replica.take(key, content)
                if key == "data":
                    seen.append(content["bucket"].partition("#")[2])
                elif key == "partial_checkpoint_complete":
                    seen.append(content["priority"])
            return seen

        todos = [f'todos|0["{name}"]' for name in "abc"]
        assert await order() == [todos[1], 0, todos[0], todos[2], 2, 'lists|0["ann"]']
        await ann.write(patch("todos", "ta", completed=1), patch("todos", "tb", completed=1))
        assert await order() == [todos[1], 0, todos[0]]
        await ann.write(patch("todos", "tb", completed=0), patch("lists", "a", name="M"))
        assert await order() == [todos[1], 0, 'lists|0["ann"]']


async def test_checksums_hold_over_random_writes_and_after_resuming_anywhere(ann: User) -> None:
    chance = random.Random(20260101)
    lists, todos = ["a", "b", "c"], [f"t{number}" for number in range(8)]
    live = Replica()
    async with ann.stream(todos_of(*lists)) as lines:
        await live.take_checkpoint(lines)
        for step in range(60):
            entries: list[dict[str, Any]] = [put("lists", chance.choice(lists), name=f"N{step}")]
            for _ in range(chance.randint(1, 5)):
                row_id, list_id = chance.choice(todos), chance.choice(lists)
                the_list = put("lists", list_id, name=f"N{step}")
                entries += chance.choice(
                    [
                        [the_list, put("todos", row_id, description=f"D{step}", list_id=list_id)],
                        [patch("todos", row_id, completed=chance.randint(0, 1))],
                        [the_list, patch("todos", row_id, list_id=list_id)],
                        [delete("todos", row_id)],
                        [delete("lists", list_id)],
                    ]
                )
            await ann.write(*entries)
            await live.take_checkpoint(lines)
    fresh = await ann.synced(*lists)
    assert fresh.ops == live.ops
    assert len({op["checksum"] for ops in fresh.ops.values() for op in ops if op["op"] == "PUT"}) > 100
    for table in ("lists", "todos"):
        assert fresh.rows(table) == live.rows(table)
    for after in range(0, fresh.last_op_id + 1, 3):
        resumed = Replica(
            ops={name: [op for op in ops if int(op["op_id"]) <= after] for name, ops in fresh.ops.items()}
        )
        positions = [{"name": name, "after": str(after)} for name in fresh.ops]
        held = {name: len(ops) for name, ops in resumed.ops.items()}
        async with ann.stream(todos_of(*lists), buckets=positions) as lines:
            for key, content in await lines.checkpoint():
                if key == "data":
                    assert content["after"] == str(after)
                    assert len(content["data"]) == len(fresh.ops[content["bucket"]]) - held[content["bucket"]]
                    ops = resumed.ops[content["bucket"]]
                    content["after"] = ops[-1]["op_id"] if ops else "0"
                resumed.take(key, content)
        assert resumed.ops == fresh.ops


async def test_buckets_that_only_the_client_knows_are_left_out(ann: User) -> None:
    positions = [{"name": "1#global[]", "after": "7"}, {"name": "", "after": "9999999999999999999"}]
    assert len((await ann.synced(buckets=positions)).target) == 1


async def test_keepalives_come_by_the_clock_and_the_token_ends_the_stream(backend: str) -> None:
    with stopped_time() as clock:
        async with signed_in(backend, "ann") as ann:
            async with ann.stream() as lines:
                await lines.checkpoint()
                # None comes before 18 of its 20 seconds are over, and one has come after 22 of them.
                clock.move_on(17)
                await ann.write(put("lists", "l", name="N"))
                assert [key for key, _ in await lines.checkpoint()] == [
                    "checkpoint_diff",
                    "data",
                    "checkpoint_complete",
                ]
                clock.move_on(6)
                assert await lines.next() == ("token_expires_in", 277)
                for passed in range(46, 277, 23):
                    clock.move_on(23)
                    assert await lines.next() == ("token_expires_in", 300 - passed)
                clock.move_on(24)
                assert await lines.rest() == [("token_expires_in", 0)]
            # Less than a minute after its end a token is still taken, as the real service does it: the stream says it.
            async with ann.stream() as lines:
                assert await lines.rest() == [("token_expires_in", 0)]


async def test_keepalives_come_and_the_token_ends_also_in_a_long_download(
    backend: str, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Time jumps while a send waits for its reader: that is no client that has stopped reading.
    monkeypatch.setattr("app.backend.http.sync_api._SEND_SECONDS", 1e6)
    await ann.write(put("lists", "l", name="N"))
    for start in range(0, 1500, 100):
        await ann.write(
            *(put("todos", f"t{n}", description="x" * 20_000, list_id="l") for n in range(start, start + 100))
        )
    with stopped_time() as clock:
        async with signed_in(backend, "ann", receive_buffer=64 * 1024) as slow:
            slow.http.headers["Accept-Encoding"] = "identity"
            async with slow.stream(todos_of("l")) as lines:
                assert (await lines.next())[0] == "checkpoint"
                clock.move_on(23)
                # It comes while most of the 30 MB are still to come.
                while (line := await lines.next())[0] == "data":
                    pass
                assert line == ("token_expires_in", 277)
                # A client that reads so slowly that its token is over before it has all.
                clock.move_on(277)
                rest = await lines.rest()
            assert rest[-1] == ("token_expires_in", 0)
            assert {key for key, _ in rest[:-1]} == {"data"}


async def test_one_more_keepalive_comes_20_seconds_before_the_end(config: BackendConfig) -> None:
    silent = replace(config, keepalive_seconds=1000)
    async with running(silent) as url:
        with stopped_time() as clock:
            async with signed_in(url, "ann") as ann, ann.stream() as lines:
                await lines.checkpoint()
                clock.move_on(280)
                assert await lines.next() == ("token_expires_in", 20)


def test_the_token_clock_over_a_whole_life() -> None:
    clock, now, told = TokenClock(50.0, 18.0, now=0.0), 0.0, []
    while not told or told[-1][1] != 0:
        now += clock.due_in(now)
        told.append((now, clock.due(now)))
        assert clock.due(now) in (None, 0)
    assert told == [(18.0, 32), (30.0, 20), (36.0, 14), (50.0, 0)]


async def test_many_streams_of_one_user_all_hear_of_a_commit(ann: User) -> None:
    async def follow(ready: asyncio.Event) -> dict[str, Any]:
        replica = Replica()
        async with ann.stream() as lines:
            await replica.take_checkpoint(lines)
            ready.set()
            await replica.take_checkpoint(lines)
        return replica.rows("lists")

    events = [asyncio.Event() for _ in range(20)]
    followers = [asyncio.create_task(follow(event)) for event in events]
    for event in events:
        await event.wait()
    await ann.write(put("lists", "l", name="N"))
    assert all(set(rows) == {"l"} for rows in await asyncio.gather(*followers))


async def test_streams_that_open_while_another_writes_miss_nothing(ann: User) -> None:
    """No commit falls between what a stream saw first and what it is told of later."""
    await ann.write(put("lists", "l", name="N"))

    async def follow(todo: str, delay: float) -> None:
        await asyncio.sleep(delay)
        replica = Replica()
        async with ann.stream(todos_of("l")) as lines:
            while todo not in replica.rows("todos"):
                await replica.take_checkpoint(lines)

    for number in range(25):
        todo = f"t{number}"
        # They open before, during and after the commit; nothing else is written that could put right what was missed.
        followers = [asyncio.create_task(follow(todo, delay / 1000)) for delay in range(12)]
        await asyncio.sleep(0.006)
        await ann.write(put("todos", todo, description="D", list_id="l"))
        await asyncio.gather(*followers)
