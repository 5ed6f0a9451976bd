"""What tests of the app share: a database file of their own, a store over it, a clock that stands still."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.schema import APP_SCHEMA
from app.store import Store
from sync import PowerSyncDatabase

# Textual reads these when it is imported, which the interface tests do later; snapshots must not depend on them.
for _name in ("NO_COLOR", "TEXTUAL_THEME", "TEXTUAL_COLOR_SYSTEM", "TEXTUAL_ANIMATIONS"):
    os.environ.pop(_name, None)

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with a home directory of its own and no settings."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(("TODO_TUI_", "XDG_"))}
    return {**kept, "HOME": str(tmp_path / "home"), "TERM": "xterm-256color", "PYTHONWARNINGS": "default"}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[PowerSyncDatabase]:
    """An open, empty database with the app's schema."""
    async with PowerSyncDatabase(tmp_path / "todo.db", APP_SCHEMA) as database:
        yield database


@pytest.fixture
def connects() -> list[str]:
    """One entry per call of the store's `connect`."""
    return []


@pytest.fixture
def store(database: PowerSyncDatabase, connects: list[str]) -> Store:
    """A store whose clock stands still, and whose connecting reaches nothing."""

    async def connect() -> None:
        connects.append("connect")

    return Store(database, "user-1", connect, now=lambda: NOW)
