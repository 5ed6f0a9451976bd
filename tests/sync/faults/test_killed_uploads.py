"""A process killed at any point of writing and uploading loses no write that returned, and doubles none.

`KILLS=100 WRITES=5000 pytest tests/sync/faults/test_killed_uploads.py` kills so many processes that make so many
writes each.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.kit.service import Exchange, scripted_service
from tests.kit.uploading_process import TWO_ENTRIES_EVERY
from tests.sync.rig import within

KILLS = int(os.environ.get("KILLS", "4"))
WRITES = int(os.environ.get("WRITES", "120"))
ROOT = Path(__file__).parents[3]


@dataclass
class Backend:
    """Accepts transactions for good, refuses some for good, and puts some off once.

    Attributes:
        accepted: each transaction, named by the id of its row, as often as it was accepted, in the order of arrival.
        newest: the transactions of the newest request.
        requests: how many uploads came.
        kill_at: the number of the request at which `kill` is called, if any.
        kill_when: whether then the request was not yet carried out, was, or was answered.
    """

    accepted: list[str] = field(default_factory=list)
    newest: set[str] = field(default_factory=set)
    requests: int = 0
    kill_at: int = 0
    kill_when: Literal["before", "unanswered", "answered"] = "before"
    kill: Callable[[], None] | None = None
    _put_off: set[str] = field(default_factory=set)

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.path == "/sync/stream":
            await exchange.begin_stream()
            await exchange.closed_by_client()
        elif exchange.path == "/sync/checkpoint-request":
            number = exchange.json["checkpoint_request_id"]
            await exchange.answer(200, {"data": {"checkpoint_request_id": number}})
        else:
            await self._upload(exchange)

    async def _upload(self, exchange: Exchange) -> None:
        self.requests += 1
        kill_when = self.kill_when if self.requests == self.kill_at else None
        if kill_when == "before":
            self._kill()
            return
        self.newest = {crud[0][1] for crud in exchange.json}
        answer: list[str] = []
        for crud in exchange.json:
            answer.append(self._verdict(crud))
            if answer[-1] == "retry":
                break
        if kill_when == "unanswered":
            self._kill()
            return
        await exchange.answer(200, answer)
        if kill_when == "answered":
            self._kill()

    def _kill(self) -> None:
        assert self.kill is not None
        self.kill()

    def _verdict(self, crud: list[Any]) -> str:
        name: str = crud[0][1]
        number = int(name.partition("-")[0])
        # Transactions come whole.
        ops = ["PUT"] if number % TWO_ENTRIES_EVERY else ["PUT", "PATCH"]
        assert [[op, row] for op, row, _ in crud] == [[op, name] for op in ops]
        if is_refused(name):
            return "rejected"
        if number % 50 == 7 and name not in self._put_off:
            self._put_off.add(name)
            return "retry"
        self.accepted.append(name)
        return "accepted"


def is_refused(name: str) -> bool:
    return int(name.partition("-")[0]) % 17 == 3


@dataclass
class Life:
    """What a process said until its end."""

    returned: list[int]
    ticks: int | None


async def live(path: Path, url: str, life: int, first: int, kill_at: int, backend: Backend) -> Life:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.kit.uploading_process",
        *(str(path), url, str(life), str(first), str(WRITES), str(kill_at)),
        cwd=ROOT, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    backend.kill = process.kill
    try:
        said = (await process.stdout.read()).decode().splitlines()
        await process.wait()
        assert process.returncode in {0, -9}
    finally:
        backend.kill = None
        if process.returncode is None:
            process.kill()
            await process.wait()
    ticks = int(said.pop().split()[1]) if said and said[-1].startswith("ticks") else None
    return Life([int(number) for number in said], ticks)


def look_at(path: Path) -> tuple[list[str], list[str]]:
    """The transactions that wait, and those that were rejected, in a file that must be sound."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        firsts = "SELECT data FROM {} WHERE json_extract(data, '$.op') = 'PUT' ORDER BY id"
        return tuple(
            [json.loads(data)["id"] for (data,) in connection.execute(firsts.format(table))]
            for table in ("ps_crud", "ps_rejected_crud")
        )  # type: ignore[return-value]


def in_order(names: list[str]) -> bool:
    keys = [tuple(map(int, name.split("-"))) for name in names]
    return keys == sorted(keys)


@pytest.mark.timeout(60 + KILLS * (10 + WRITES // 50))
async def test_no_write_that_returned_is_lost_or_doubled(tmp_path: Path) -> None:
    whole = Backend()
    async with scripted_service(whole) as service:
        life = await within(60 + WRITES / 20, live(tmp_path / "whole.db", service.url, 1, 1, 0, whole))
    assert life.ticks is not None
    chance = random.Random(KILLS * 10_000 + WRITES)
    killed = repeated = waited = 0
    for trial in range(KILLS):
        backend = Backend()
        ticks = 0
        if trial % 2:
            backend.kill_at = chance.randint(1, max(1, whole.requests * 9 // 10))
            backend.kill_when = chance.choice(["before", "unanswered", "answered"])
        else:
            ticks = chance.randint(1, life.ticks * 9 // 10)
        async with scripted_service(backend) as service:
            path = tmp_path / f"{trial}.db"
            first = await within(60 + WRITES / 20, live(path, service.url, 1, 1, ticks, backend))
            killed += first.ticks is None
            open_at_death = backend.newest
            if path.exists() and path.stat().st_size and first.returned:
                waiting, rejected = look_at(path)
                waited += len(waiting)
                # In one place: what was answered for may wait still, if the answer came too late.
                assert not set(waiting) & set(rejected)
                assert set(waiting) & set(backend.accepted) <= open_at_death
            number = first.returned[-1] + 1 if first.returned else 1
            second = await within(60 + WRITES / 20, live(path, service.url, 2, number, 0, backend))
            assert second.ticks is not None

        returned = [f"{number}-1" for number in first.returned] + [f"{number}-2" for number in second.returned]
        waiting, rejected = look_at(path)
        times = Counter(backend.accepted)
        assert waiting == []
        assert set(returned) <= set(times) | set(rejected)
        assert len(set(rejected)) == len(rejected)
        assert all(is_refused(name) for name in rejected)
        assert not set(rejected) & set(times)
        # What came twice is what was under way when the process died.
        twice = {name for name, count in times.items() if count > 1}
        assert twice <= open_at_death
        assert max(times.values()) <= 2
        assert in_order(list(times))
        assert in_order(rejected)
        repeated += len(twice)
        for file in tmp_path.glob(f"{trial}.db*"):
            file.unlink()
    print(f"{killed} of {KILLS} killed; {waited} transactions waited then, {repeated} came twice")
    assert killed
