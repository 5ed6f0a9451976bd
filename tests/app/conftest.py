"""What tests of the app share: a database file of their own, a store over it, a clock that stands still."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from app.store import Store
from app.store.schema import APP_SCHEMA
from app.system.clock import NOW_VARIABLE
from sync import PowerSyncDatabase

from .commands import PROGRAM, WAIT_SECONDS, Run

# Textual reads these when it is imported, which the interface tests do later; snapshots must not depend on them.
for _name in ("NO_COLOR", "TEXTUAL_THEME", "TEXTUAL_COLOR_SYSTEM", "TEXTUAL_ANIMATIONS"):
    os.environ.pop(_name, None)

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with a home directory of its own, no settings, and a clock that stands still."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(("TODO_TUI_", "XDG_"))}
    home = {"HOME": str(tmp_path / "home"), "TERM": "xterm-256color", "PYTHONWARNINGS": "default"}
    return {**kept, **home, NOW_VARIABLE: NOW.isoformat(), "TZ": "UTC"}


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


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def run(environment: dict[str, str], data_dir: Path) -> Run:
    """Runs a command on a data directory of its own, with stdin closed unless text is given.

    Each command comes a minute after the one before: what it adds is younger.
    """
    times = (NOW + timedelta(minutes=number) for number in count(1))

    def run(*arguments: object, text: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        clock = {NOW_VARIABLE: next(times).isoformat()}
        return subprocess.run(
            [PROGRAM, *(str(argument) for argument in arguments)],
            env={**environment, "TODO_TUI_DATA_DIR": str(data_dir), **clock, **more},
            input=text,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )

    return run
