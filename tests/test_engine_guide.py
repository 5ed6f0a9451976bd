"""Each program of the engine's guide runs, and prints what it should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "engine.md").read_text(), re.DOTALL)
PRINTED = [
    "Home Home dict_keys(['id', 'name'])\n1 list, 2 to-dos\n",
    (
        "Todo(id='1', description='Milk', done=False, tags=['shop', 'today'])\n"
        "Milk ['shop', 'today']\n"
        "The column 'done' does not fit Todo: bool was expected, the row holds 'maybe' of type str"
        " (a bool is stored as 0 or 1).\n"
    ),
    "0 ['Home', 'Work']\n[('Home', 'Zoo')] 1\nTrue\n['lists']\n",
    "4998 10000 ['4998', '4999', '5000', '5001', '5002']\nline 09000\n",
    "[('kept',)]\n[1]\n",
    "False 1 1\n1 process has it open\n1 {'drafts': 1} {} damaged-\n",
]


@pytest.mark.parametrize(("program", "printed"), zip(PROGRAMS, PRINTED, strict=True), ids=range(len(PRINTED)))
def test_the_programs_of_the_guide_run(tmp_path: Path, program: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stderr == ""
    assert done.stdout == printed
