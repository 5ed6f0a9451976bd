"""Compaction: the log stays in proportion to the rows, and clients converge wherever they go on from."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest

from app.backend import BackendConfig

from .harness import WAIT_SECONDS, Lines, Replica, User, delete, patch, put, running, signed_in, subscription, todos_of

QUICK = 0.02
STEPS = int(os.environ.get("COMPACTION_STEPS", "150"))


def stored(config: BackendConfig) -> list[tuple[str, int, int]]:
    """Of each bucket with operations: its name, how many there are, and how many it says it has."""
    with closing(sqlite3.connect(f"file:{config.database}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(
            "SELECT name, count(*), count FROM bucket_ops o JOIN buckets b ON b.id = o.bucket GROUP BY b.id"
        ).fetchall()


def everything(config: BackendConfig) -> str:
    with closing(sqlite3.connect(f"file:{config.database}?mode=ro", uri=True, timeout=10)) as connection:
        return str(connection.execute("SELECT * FROM bucket_ops").fetchall())


def present(replica: Replica) -> dict[str, dict[str, dict[str, Any]]]:
    return {table: replica.rows(table) for table in ("lists", "todos")}


def long_texts(config: BackendConfig) -> int:
    with closing(sqlite3.connect(f"file:{config.database}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute("SELECT count(*) FROM bucket_ops WHERE length(data) > 10000").fetchone()[0]


async def until_smaller(config: BackendConfig, operations: int) -> None:
    async with asyncio.timeout(3 * WAIT_SECONDS):
        while sum(number for _, number, _ in stored(config)) > operations:
            await asyncio.sleep(0.05)


async def test_the_log_of_rows_that_change_for_ever_stays_small(config: BackendConfig) -> None:
    """Also where a row that never changes stands before all that is superfluous."""
    quick = BackendConfig(config.database, port=0, compact_seconds=QUICK, open_to_all=True)
    async with running(quick) as url, signed_in(url, "ann") as ann:
        await ann.write(put("lists", "l", name="N"), put("todos", "first", description="Stays", list_id="l"))
        live = Replica(is_compacted=True)
        async with ann.stream(todos_of("l")) as lines:
            await live.take_checkpoint(lines)
            for step in range(8):
                await ann.write(
                    *(
                        put("todos", f"t{number % 5}", description=f"{step}.{number}", list_id="l")
                        for number in range(250)
                    )
                )
                await live.take_checkpoint(lines)
            await until_smaller(config, 120)
            await ann.write(patch("lists", "l", name="M"))
            fresh = Replica(is_compacted=True)
            async with ann.stream(todos_of("l")) as others:
                await until_alike(fresh, others, live, lines)
        assert len(live.rows("todos")) == 6
        await until_smaller(config, 120)
        for _, number, count in stored(config):
            assert number == count


async def until_alike(one: Replica, its: Lines, other: Replica, others: Lines) -> None:
    """Both take what comes until they hold the same; compaction may put rows again at any time."""
    await one.take_checkpoint(its)
    while present(one) != present(other) or one.last_op_id != other.last_op_id:
        behind, lines = (one, its) if one.last_op_id < other.last_op_id else (other, others)
        await behind.take_checkpoint(lines)


async def test_a_deleted_lists_text_is_gone_for_good(config: BackendConfig) -> None:
    quick = BackendConfig(config.database, port=0, compact_seconds=QUICK, open_to_all=True)
    async with running(quick) as url, signed_in(url, "ann") as ann:
        for step in range(3):
            await ann.write(put("lists", "l", name="N"))
            await ann.write(*(put("todos", f"{step}.{it}", description="Secret", list_id="l") for it in range(200)))
            await ann.write(delete("lists", "l"))
        await until_smaller(config, 20)
        await ann.write(put("lists", "m", name="N"), put("todos", "t", description="Secret", list_id="m"))
        await ann.write(*(patch("todos", "t", description=f"Other {it}") for it in range(8)), delete("lists", "m"))
        async with asyncio.timeout(3 * WAIT_SECONDS):
            while "Secret" in everything(config):
                await asyncio.sleep(0.05)


async def change_something(ann: User, chance: random.Random, step: int) -> None:
    lists, todos = ["a", "b"], [f"t{number}" for number in range(12)]
    entries: list[dict[str, Any]] = []
    for _ in range(chance.randint(1, 30)):
        row_id, list_id = chance.choice(todos), chance.choice(lists)
        entries += chance.choices(
            [
                [put("lists", list_id, name=f"N{step}"), put("todos", row_id, description=f"D{step}", list_id=list_id)],
                [patch("todos", row_id, completed=chance.randint(0, 1))],
                [delete("todos", row_id)],
                [delete("lists", list_id)],
            ],
            weights=[6, 6, 2, 0.2],
        )[0]
    await ann.write(*entries)


@pytest.mark.parametrize("seed", [1, 2])
async def test_clients_converge_through_writes_and_compactions_wherever_they_go_on_from(
    config: BackendConfig, seed: int
) -> None:
    """Random writes, compaction all the time, clients that stop anywhere and go on later with what they had.

    Set COMPACTION_STEPS for more than 150 steps.
    """
    chance = random.Random(seed)
    quick = BackendConfig(config.database, port=0, compact_seconds=QUICK, open_to_all=True)
    async with running(quick) as url, signed_in(url, "ann") as ann:
        clients = [Replica(is_compacted=True) for _ in range(4)]
        for step in range(STEPS):
            await change_something(ann, chance, step)
            if chance.random() < 0.5:
                await go_on(ann, chance.choice(clients), only_lines=chance.choice([None, 1, 2, 3]))
            elif chance.random() < 0.2:
                clients[chance.randrange(4)] = Replica(is_compacted=True)
        for client in clients:
            await go_on(ann, client)
        fresh = Replica(is_compacted=True)
        await go_on(ann, fresh)
        for client in clients:
            assert present(client) == present(fresh)


async def go_on(ann: User, replica: Replica, *, only_lines: int | None = None) -> None:
    """Go on from where the client is, to a complete checkpoint or only for some lines, as if the network broke."""
    replica.forget_target()
    async with ann.stream(todos_of("a", "b"), buckets=replica.positions()) as lines:
        if only_lines is None:
            await replica.take_checkpoint(lines)
            return
        for _ in range(only_lines):
            key, content = await lines.next()
            replica.take(key, content)
            if key == "checkpoint_complete":
                return


async def test_no_checkpoint_is_complete_without_rows_that_compaction_took_away(config: BackendConfig) -> None:
    """What the client waits for is made superfluous by what is newer than its checkpoint, and compacted."""
    quick = BackendConfig(config.database, port=0, compact_seconds=QUICK, open_to_all=True)
    # Too few operations for the newer checkpoint to overtake it, too much text to be sent before it is read.
    number = 900
    text = "x" * 20_000
    async with running(quick) as url, signed_in(url, "ann", receive_buffer=64 * 1024) as ann:
        # Compressed it would all be on its way before it is read.
        ann.http.headers["Accept-Encoding"] = "identity"
        await ann.write(put("lists", "l", name="N"))
        for start in range(0, number, 100):
            await ann.write(*(put("todos", f"t{n}", description=text, list_id="l") for n in range(start, start + 100)))
        replica = Replica(is_compacted=True)
        async with ann.stream(todos_of("l")) as lines:
            for _ in range(3):
                replica.take(*(await lines.next()))
            step = 0
            async with asyncio.timeout(3 * WAIT_SECONDS):
                # When a bucket is worth compacting depends on when that was looked at last.
                while step < 3 or long_texts(config):
                    step += 1
                    await ann.write(*(patch("todos", f"t{n}", description=f"short {step}") for n in range(number)))
            keys = await replica.take_checkpoint(lines)
            assert len(replica.rows("todos")) == number
            assert "checkpoint_diff" in keys  # the first one was overtaken, not completed
            while {row["description"] for row in replica.rows("todos").values()} != {f"short {step}"}:
                await replica.take_checkpoint(lines)
                assert len(replica.rows("todos")) == number


@asynccontextmanager
async def slow_reader(config: BackendConfig) -> AsyncGenerator[User]:
    """A user of a backend that compacts all the time; the list `long` keeps streams busy until they are read.

    As above: it has too few operations to be overtaken, and too much text to be sent before it is read.
    """
    quick = BackendConfig(config.database, port=0, compact_seconds=QUICK, open_to_all=True)
    text = "x" * 20_000
    async with running(quick) as url, signed_in(url, "ann", receive_buffer=64 * 1024) as ann:
        ann.http.headers["Accept-Encoding"] = "identity"
        await ann.write(put("lists", "long", name="N"), put("lists", "other", name="N"))
        for start in range(0, 800, 100):
            await ann.write(
                *(put("todos", f"l{n}", description=text, list_id="long") for n in range(start, start + 100))
            )
        yield ann


LONG_BEFORE_OTHER = [subscription("todos", {"list": "long"}, 0), subscription("todos", {"list": "other"}, 1)]


async def test_no_checkpoint_is_complete_without_a_bucket_that_compaction_cleared(config: BackendConfig) -> None:
    """Of a bucket that is still to come, all is deleted and compacted: one CLEAR is left, newer than the checkpoint."""
    names = [f"t{number}" for number in range(20)]
    async with slow_reader(config) as ann:
        await ann.write(*(put("todos", name, description="D", list_id="other") for name in names))
        replica = Replica(is_compacted=True)
        async with ann.stream(LONG_BEFORE_OTHER) as lines:
            replica.take(*(await lines.next()))
            cleared = replica.bucket("todos", containing='"other"')
            await ann.write(*(delete("todos", name) for name in names))
            async with asyncio.timeout(3 * WAIT_SECONDS):
                while (cleared, 1, 1) not in stored(config):
                    await asyncio.sleep(0.05)
            # The replica would refuse one whose checksums do not add up.
            keys = await replica.take_checkpoint(lines)
        assert "checkpoint_diff" in keys  # the first one was overtaken, not completed
        assert len(replica.rows("todos")) == 800
        assert [op["op"] for op in replica.ops[cleared]] == ["CLEAR"]


async def test_no_checkpoint_is_complete_without_a_row_whose_move_stands_before_others(config: BackendConfig) -> None:
    """What made it superfluous is newer than the checkpoint; all that follows it in the bucket is older."""
    async with slow_reader(config) as ann:
        await ann.write(put("todos", "t", description="First", list_id="other"))
        await ann.write(patch("todos", "t", description="Second"))
        # More than one line of data.
        await ann.write(*(put("todos", f"t{n}", description="x" * 20_000, list_id="other") for n in range(80)))
        await until_gone(config, "First")
        replica = Replica(is_compacted=True)
        async with ann.stream(LONG_BEFORE_OTHER) as lines:
            replica.take(*(await lines.next()))
            await ann.write(*(patch("todos", "t", description=f"Third {step}") for step in range(120)))
            await until_gone(config, "Second")
            keys = await replica.take_checkpoint(lines)
        assert "checkpoint_diff" in keys  # the first one was overtaken, not completed
        assert replica.rows("todos")["t"]["description"] == "Third 119"


async def until_gone(config: BackendConfig, text: str) -> None:
    with closing(sqlite3.connect(f"file:{config.database}?mode=ro", uri=True, timeout=10)) as connection:
        async with asyncio.timeout(3 * WAIT_SECONDS):
            while connection.execute("SELECT 1 FROM bucket_ops WHERE instr(data, ?) LIMIT 1", [text]).fetchone():
                await asyncio.sleep(0.05)
