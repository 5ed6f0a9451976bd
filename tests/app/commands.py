"""What tests of commands share: how one is run, and what it answered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = str(Path(sys.executable).with_name("todo-tui"))
WAIT_SECONDS = 60.0

Run = Callable[..., subprocess.CompletedProcess[str]]


def out(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr
    return done.stdout.rstrip("\n")


def data(run: Run, *arguments: object) -> Any:
    return json.loads(out(run(*arguments)))
