"""Fixtures of the backend's tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from app.backend import BackendConfig, Limits

from .harness import User, running, signed_in


@pytest.fixture
def config(tmp_path: Path) -> BackendConfig:
    # All tests come from one address, and many are about what is refused.
    limits = Limits(refused_burst=100_000)
    return BackendConfig(tmp_path / "data" / "backend.db", port=0, open_to_all=True, limits=limits)


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
