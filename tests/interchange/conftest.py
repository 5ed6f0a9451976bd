"""Tests with PowerSync's core extension are skipped, saying why, where it is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interchange import core

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if reason := core.missing():
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=f"no interchange with PowerSync's core: {reason}"))
