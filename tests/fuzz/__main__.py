"""`python -m tests.fuzz --inputs 100000 --seed 7`: so many inputs, divided among all targets; the seed repeats them."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.targets import TARGETS

_SLOW_SECONDS = 2.0
"""Of the processor: what waits because the machine is busy is not slow."""


def run(name: str, inputs: int, seed: int, scratch: Path) -> list[str]:
    """The seeds with which a target failed, and how."""
    failed: list[str] = []
    with TARGETS[name](scratch) as check:
        for number in range(inputs):
            chance = random.Random(f"{seed} {name} {number}")
            began = time.process_time()
            try:
                check(chance)
            except Exception:  # noqa: BLE001 -- whatever it is, it is what is looked for
                failed.append(f"{name} {number}: {traceback.format_exc(limit=-3)}")
            if time.process_time() - began > _SLOW_SECONDS:
                failed.append(f"{name} {number}: computed for {time.process_time() - began:.1f} s")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--targets", default=",".join(TARGETS))
    arguments = parser.parse_args()
    for name in [each for each in os.environ if each.upper().startswith("TODO_TUI_")]:
        del os.environ[name]
    names = arguments.targets.split(",")
    share = arguments.inputs // len(names)
    failed: list[str] = []
    for name in names:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
            found = run(name, share, arguments.seed, Path(scratch))
        print(f"{name}: {share:,} inputs in {time.perf_counter() - began:.1f} s, {len(found)} failed", flush=True)
        failed += found
    for each in failed[:10]:
        print(each)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
