"""A small share of what `python -m tests.fuzz` does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.__main__ import run
from tests.fuzz.targets import TARGETS


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("TODO_TUI_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_does_harm(name: str, tmp_path: Path) -> None:
    assert run(name, 300, 7, tmp_path) == []
