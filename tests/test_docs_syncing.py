"""The examples of docs/syncing.md run, against a service; and its tables name what there is."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from sync import PowerSyncDatabase, SyncStatus
from tests.sync.rig import SCHEMA, ServiceConnector, within
from tests.sync.stepwise import COMPLETE, checkpoint, stepwise, stream

PAGE = (Path(__file__).parents[1] / "docs" / "syncing.md").read_text()


def examples() -> dict[str, Any]:
    program = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    names: dict[str, Any] = {}
    exec(compile(program, "docs/syncing.md", "exec"), names)
    return names


async def complete_all(database: PowerSyncDatabase) -> None:
    async for transaction in database.crud_transactions():
        await transaction.complete()


async def test_every_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = examples()
    async with (
        stepwise(checkpoint(streams=[stream("todos")]), COMPLETE) as service,
        PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database,
    ):
        assert await page["save_and_sync"](database, "Groceries") == "Kept on this device until you connect."
        await page["why"](database)
        assert "Not connected: connect() was not called" in capsys.readouterr().out
        await within(20, page["start"](database, ServiceConnector(service.url, complete_all)))
        showing = asyncio.create_task(page["show"](database))
        assert await within(20, page["save_and_sync"](database, "Work")) == "Saved everywhere."
        assert await within(20, page["open_list"](database, "a")) == 0
        await page["forget_list"](database, "a")
        assert database.status.for_stream("todos", {"list": "a"}) is None
        await database.wait_for_status(lambda status: status.connected, 20)
        await within(20, page["stop"](database))
        showing.cancel()
        assert not database.status.wanted
        assert "connected, 0 changes wait" in capsys.readouterr().out


def test_the_tables_name_what_there_is() -> None:
    table = PAGE.partition("## Status")[2].partition("## Waiting")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    fields = re.findall(r"`(\w+)", " ".join(cells))
    assert len(fields) > 20
    assert set(fields) == {name for name in dir(SyncStatus) if not name.startswith("_")}
    for name in re.findall(r"^\| `(\w+)\(", PAGE.partition("## Waiting")[2].partition("##")[0], re.MULTILINE):
        assert hasattr(PowerSyncDatabase, name), name
