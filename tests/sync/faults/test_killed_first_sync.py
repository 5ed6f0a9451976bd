"""A process killed at any point of a large first sync leaves a file that is sound, and from which it goes on.

`KILLS=200 pytest tests/sync/faults/test_killed_first_sync.py` kills so many times.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sync import PowerSyncDatabase
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, SCHEMA, ServiceConnector, until_rows, within

KILLS = int(os.environ.get("KILLS", "8"))
ROOT = Path(__file__).parents[3]
OLD_ROWS = {f"old-{number}": "old" for number in range(20)}


class Service:
    """Knows the buckets of an old checkpoint and, once `renewed`, those of a large new one, none of them the same."""

    def __init__(self) -> None:
        self.renewed = False
        self.old = {"old": [put(number + 1, row, "old") for number, row in enumerate(OLD_ROWS)]}
        self.new: dict[str, list[dict[str, Any]]] = {"first": [], "second": [], "third": []}
        self.rows: dict[str, str] = {}
        chance = random.Random(1)
        live: dict[str, dict[str, tuple[int, str]]] = {name: {} for name in self.new}
        for op_id in range(100, 2500):
            bucket = list(self.new)[(op_id - 100) // 800]
            row = chance.choice(["shared-", f"{bucket}-", f"{bucket}-", "old-"]) + str(chance.randrange(600))
            kind = chance.choice(["put"] * 8 + ["remove", "move"])
            if kind == "put":
                self.new[bucket].append(put(op_id, row, f"name {op_id}"))
                live[bucket][row] = (op_id, f"name {op_id}")
            elif kind == "remove":
                self.new[bucket].append(put(op_id, row, None) | {"op": "REMOVE"})
                live[bucket].pop(row, None)
            else:
                self.new[bucket].append({"op_id": str(op_id), "op": "MOVE", "checksum": op_id})
        self.new["third"].append(put(2500, "the last one", "name"))
        live["third"]["the last one"] = (2500, "name")
        for row in {row for rows in live.values() for row in rows}:
            self.rows[row] = max(rows[row] for rows in live.values() if row in rows)[1]
        self.partly = OLD_ROWS | {row: name for row, (_, name) in live["first"].items()}

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.begin_stream()
        buckets = self.new if self.renewed else self.old
        last_op_id = "2500" if self.renewed else "20"
        sums = [
            {
                "bucket": name,
                "checksum": sum(operation["checksum"] for operation in operations),
                "priority": 1 if name == "first" else 3,
                "count": len(operations),
            }
            for name, operations in buckets.items()
        ]
        await exchange.send_line({"checkpoint": {"last_op_id": last_op_id, "buckets": sums, "streams": []}})
        after = {bucket["name"]: int(bucket["after"]) for bucket in exchange.json["buckets"]}
        for name, operations in buckets.items():
            wanted = [operation for operation in operations if int(operation["op_id"]) > after.get(name, 0)]
            for start in range(0, len(wanted), 40):
                await exchange.send_line({"data": {"bucket": name, "data": wanted[start : start + 40]}})
            if name == "first":
                await exchange.send_line({"partial_checkpoint_complete": {"last_op_id": last_op_id, "priority": 1}})
        await exchange.send_line({"checkpoint_complete": {"last_op_id": last_op_id}})
        await exchange.closed_by_client()


def put(op_id: int, row: str, name: str | None) -> dict[str, Any]:
    data = None if name is None else json.dumps({"name": name, "owner_id": "x" * 100})
    return {
        "op_id": str(op_id),
        "op": "PUT",
        "checksum": op_id * 7919,
        "object_type": "lists",
        "object_id": row,
        "subkey": "s",
        "data": data,
    }


def look_at(path: Path) -> dict[str, str]:
    """The visible rows of a file that must be sound."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        indexes = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'ps_oplog'")
        assert {name for (name,) in indexes} == {"ps_oplog_row", "ps_oplog_opid", "ps_oplog_key"}
        doubles = connection.execute("SELECT 1 FROM ps_oplog GROUP BY bucket, key HAVING count(*) > 1").fetchall()
        assert doubles == []
        return dict(connection.execute("SELECT id, name FROM lists").fetchall())


async def run_and_kill(path: Path, url: str, kill_at: int, how: str) -> int:
    """Run a process that syncs, and kill it; returns how many ticks it took if it came to its end first."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.kit.first_sync_process", str(path), url, str(kill_at), how,
        cwd=ROOT, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        ticks = 0
        async for line in process.stdout:
            if line == b"now\n":
                process.kill()
            else:
                ticks = int(line)
        await process.wait()
        assert process.returncode in {0, -9}
        return ticks
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.timeout(60 + KILLS * 10)
async def test_a_first_sync_killed_anywhere_goes_on_to_its_end(tmp_path: Path) -> None:
    service = Service()
    async with scripted_service(service) as server:
        template = tmp_path / "template.db"
        async with PowerSyncDatabase(template, SCHEMA) as database:
            await database.connect(ServiceConnector(server.url), QUICK)
            await until_rows(database, "SELECT count(*) FROM lists", [[20]])
        service.renewed = True

        whole = tmp_path / "whole.db"
        shutil.copy(template, whole)
        ticks = await within(30, run_and_kill(whole, server.url, 0, "at"))
        assert look_at(whole) == service.rows

        chance = random.Random(KILLS)
        seen: list[int] = []
        for kill in range(KILLS):
            # Spread over all of it, one in each of as many parts, half of them in the last tenth: its publishing.
            part = (kill + chance.random()) / KILLS
            kill_at = 1 + int(ticks * (1.8 * part if part < 0.5 else 0.8 + 0.2 * part))
            path = tmp_path / f"killed-{kill}.db"
            shutil.copy(template, path)
            await within(30, run_and_kill(path, server.url, kill_at, chance.choice(["at", "after"])))

            # The old checkpoint, the part of the new one that has priority, or all of it.
            seen.append([OLD_ROWS, service.partly, service.rows].index(look_at(path)))
            async with PowerSyncDatabase(path, SCHEMA) as database:
                await database.connect(ServiceConnector(server.url), QUICK)
                await until_rows(database, "SELECT count(*) FROM lists WHERE id = 'the last one'", [[1]])
            assert look_at(path) == service.rows
            for file in tmp_path.glob(f"killed-{kill}.db*"):
                file.unlink()
        assert {0, 1} <= set(seen)
