"""A short run over all faults: the processes are real, and so is what is done to them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.fire.faults import FAULTS

ROOT = Path(__file__).parents[2]


def fire(*arguments: str, results: Path) -> tuple[int, str, list[dict]]:
    command = [sys.executable, "-m", "tests.fire", *arguments, "--results", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=220)
    lines = results.read_bytes().splitlines() if results.exists() else []
    return done.returncode, done.stdout + done.stderr, [msgspec.json.decode(line) for line in lines]


@pytest.mark.timeout(230)
def test_a_short_run_over_all_faults_is_consistent_convergent_and_live(tmp_path: Path) -> None:
    seed, seconds = os.environ.get("FIRE_SEED", "7"), os.environ.get("FIRE_SECONDS", "10")
    code, told, [figures] = fire("--seed", seed, "--seconds", seconds, results=tmp_path / "results.jsonl")
    assert code == 0, told
    assert [figures[each] for each in ("consistent", "convergent", "live", "clean")] == [True] * 4
    assert figures["writes"] > 20
    assert figures["faults_done"].keys() <= FAULTS.keys()
    assert figures["faults_done"]
