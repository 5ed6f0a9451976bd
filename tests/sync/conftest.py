"""What tests of the engine share: the schema of the transcripts and a connector for scripted services."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from sync import PowerSyncDatabase
from tests.sync.rig import SCHEMA


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[PowerSyncDatabase]:
    async with PowerSyncDatabase(tmp_path / "test.db", SCHEMA) as database:
        yield database
