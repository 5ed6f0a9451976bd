"""A soak of seconds, and that what grows is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fire.soak import Sample, grown

ROOT = Path(__file__).parents[2]
STEADY: Sample = {"memory (MB)": 50, "handles": 20, "threads": 7, "log (MB)": 6, "file (MB)": 1}
GROWING = {"memory (MB)": 0.2, "handles": 0.1, "threads": 0.05, "log (MB)": 0.1, "file (MB)": 0.05}


def test_what_stays_as_it_is_is_flat() -> None:
    wavering = [STEADY | {"memory (MB)": 50 + number % 7} for number in range(100)]
    assert grown(wavering) == []


@pytest.mark.parametrize("name", GROWING)
def test_what_grows_a_little_with_each_sample_is_found(name: str) -> None:
    samples = [STEADY | {name: STEADY[name] + GROWING[name] * number} for number in range(100)]
    [sentence] = grown(samples)
    assert sentence.startswith(name)


@pytest.mark.timeout(120)
def test_a_soak_of_seconds_ends_with_the_same_everywhere() -> None:
    command = [sys.executable, "-m", "tests.fire.soak", "--minutes", "0.1", "--every", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "too short to tell whether flat, and the same everywhere" in done.stdout
