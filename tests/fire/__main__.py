"""The command of the proof: a run with its verdict, or a history that was kept, checked again."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from tests.fire import checkers, clock, faults, registers
from tests.fire.registers import Event
from tests.fire.run import Run
from tests.kit import network


def possible_faults() -> tuple[list[str], list[str]]:
    """The faults that this machine allows, and why others are left out."""
    left_out: dict[str, str] = {}
    if reason := network.missing():
        left_out |= dict.fromkeys(faults.OF_THE_NETWORK, reason)
    if reason := clock.missing():
        left_out["clock"] = reason
    if os.name != "posix" or os.geteuid() != 0:
        left_out["disk"] = "a small file system cannot be mounted"
    return [name for name in faults.FAULTS if name not in left_out], [
        f"{name} is left out: {reason}" for name, reason in left_out.items()
    ]


def summary(events: list[Event], found: dict[str, list[str]]) -> dict[str, Any]:
    """The figures of a run: what docs/reliability.md is made of."""
    first = next(event for event in events if event["type"] == "run")
    live = next((event for event in events if event["type"] == "live"), {"seconds": None})
    kinds = Counter(event["type"] for event in events)
    return {
        "seed": first["seed"],
        "seconds": first["seconds"],
        "faults": first["faults"],
        "sdk": first["sdk"],
        "consistent": not found.keys() - {"liveness", "strong_convergence", "nothing_leaked"},
        "convergent": "strong_convergence" not in found,
        "live": "liveness" not in found,
        "clean": "nothing_leaked" not in found,
        "in_step_after": live["seconds"],
        "writes": kinds["ok"],
        "failed_writes": kinds["fail"],
        "reads": kinds["read"],
        "uploads": kinds["attempt"],
        "faults_done": dict(Counter(event["name"] for event in events if event["type"] == "fault")),
        "found": {name: len(sentences) for name, sentences in found.items()},
    }


def tell(figures: dict[str, Any], found: dict[str, list[str]]) -> None:
    for name, sentences in found.items():
        print(f"{name}: {len(sentences)}")
        for sentence in sentences[:5]:
            print(f"  {sentence}")
    verdict = "consistent, convergent and live" if not found else "FAILED"
    print(
        f"{verdict}: seed {figures['seed']}, {figures['writes']} writes, {figures['reads']} reads, "
        f"{sum(figures['faults_done'].values())} faults {figures['faults_done']}, "
        f"in step {figures['in_step_after']} s after healing"
    )


def run_once(arguments: argparse.Namespace, seed: int, names: list[str]) -> bool:
    directory = Path(tempfile.mkdtemp(prefix=f"fire-{seed}-"))
    sdk = Path(os.environ["POWERSYNC_NODE"]) if arguments.sdk else None
    run = Run(
        directory,
        seed=seed,
        seconds=arguments.seconds,
        fault_names=names,
        clients=arguments.clients,
        rate=arguments.rate,
        sdk=sdk,
    )
    events = asyncio.run(run())
    found = checkers.check(events)
    figures = summary(events, found)
    if arguments.results is not None:
        with arguments.results.open("ab") as results:
            results.write(msgspec.json.encode(figures | {"at": int(time.time())}) + b"\n")
    tell(figures, found)
    if found:
        print(f"kept: {directory}/history.jsonl (check it again with --check), files and logs beside it")
    else:
        shutil.rmtree(directory)
    return not found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fire", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long the faults of one run go on")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next ones count up")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--rate", type=float, default=15, help="reads and writes a second of each client")
    parser.add_argument("--faults", default="all", help=f"all, none, or some of: {','.join(faults.FAULTS)}")
    parser.add_argument("--sdk", action="store_true", help="one more client that uses the SDK at POWERSYNC_NODE")
    parser.add_argument("--results", type=Path, help="append the figures of each run to this file")
    parser.add_argument("--check", type=Path, metavar="HISTORY", help="only check a history that was kept")
    arguments = parser.parse_args()
    if arguments.check is not None:
        events = registers.load(arguments.check)
        found = checkers.check(events)
        tell(summary(events, found), found)
        return bool(found)
    possible, left_out = possible_faults()
    wanted = {"all": possible, "none": []}.get(arguments.faults, arguments.faults.split(","))
    if unknown := set(wanted) - set(faults.FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    for sentence in left_out:
        print(sentence)
    names = [name for name in wanted if name in possible]
    failed = [
        seed for seed in range(arguments.seed, arguments.seed + arguments.runs) if not run_once(arguments, seed, names)
    ]
    if arguments.runs > 1:
        print(f"{arguments.runs - len(failed)} of {arguments.runs} runs passed; failed seeds: {failed or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
