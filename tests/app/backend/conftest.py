"""Fixtures of the backend's tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from app.backend import BackendConfig

from .harness import User, running, signed_in


@pytest.fixture
def config(tmp_path: Path) -> BackendConfig:
    return BackendConfig(tmp_path / "data" / "backend.db", port=0, open_to_all=True)


@pytest.fixture
async def backend(config: BackendConfig) -> AsyncGenerator[str]:
    async with running(config) as url:
        yield url


@pytest.fixture
async def ann(backend: str) -> AsyncGenerator[User]:
    async with signed_in(backend, "ann") as user:
        yield user


@pytest.fixture
async def bob(backend: str) -> AsyncGenerator[User]:
    async with signed_in(backend, "bob") as user:
        yield user
