"""What tests of the engine share. A blocking call on the event loop by the engine's own code is an error in all."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

import sync
from sync import PowerSyncDatabase
from tests.sync.rig import SCHEMA


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Generator[BlockBuster]:
    with blockbuster_ctx(sync) as blockbuster:
        # Two stats of local files: quicker than the hop to a thread.
        blockbuster.functions["os.stat"].can_block_in("sync/sqlite/other_processes.py", "_stamps")
        yield blockbuster


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[PowerSyncDatabase]:
    async with PowerSyncDatabase(tmp_path / "test.db", SCHEMA) as database:
        yield database


@pytest.fixture(params=["file", "memory"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[PowerSyncDatabase]:
    path = tmp_path / "test.db" if request.param == "file" else ":memory:"
    async with PowerSyncDatabase(path, SCHEMA) as database:
        yield database
