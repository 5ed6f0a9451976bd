"""`python -m tests.benchmarks`: measures in turn, and prints medians, their spread and ratios."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.service import write_body
from tests.benchmarks.workload import Workload
from tests.benchmarks.writes import measure as measure_writes

KINDS = ("engine", "watched", "bare")


def measure_first_sync(workload: Workload, rounds: int, kinds: tuple[str, ...] = KINDS) -> None:
    with tempfile.TemporaryDirectory() as directory:
        body = Path(directory) / "body"
        write_body(body, workload.lines())
        with subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.service", str(body)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as service:
            assert service.stdout is not None
            port = service.stdout.readline().strip()
            results: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
            for _ in range(rounds):
                for kind in kinds:
                    done = subprocess.run(
                        [sys.executable, "-m", "tests.benchmarks.first_sync", kind, port, *workload.table_names],
                        capture_output=True,
                        text=True,
                    )
                    if done.returncode:
                        raise SystemExit(done.stderr)
                    results[kind].append(json.loads(done.stdout))
            assert service.stdin is not None
            service.stdin.close()
    print(workload)
    medians = {kind: statistics.median(result["seconds"] for result in results[kind]) for kind in kinds}
    for kind, runs in results.items():
        seconds = [run["seconds"] for run in runs]
        figures = {
            name: round(statistics.median(run[name] for run in runs), 1)
            for name in runs[0]
            if name not in {"seconds", "rows"}
        }
        assert {run["rows"] for run in runs} == {workload.rows}
        ratio = f"{medians[kind] / medians[kinds[-1]]:.2f} x {kinds[-1]}"
        print(
            f"  {kind}: {medians[kind]:.2f} s ({min(seconds):.2f}-{max(seconds):.2f}), {ratio}, {figures}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--buckets", type=int, default=10)
    parser.add_argument("--tables", type=int, default=1)
    parser.add_argument("--row-bytes", type=int, default=340)
    parser.add_argument("--ids", choices=("random", "ascending"), default="random")
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--no-writes", action="store_true", help="only first syncs")
    options = parser.parse_args()
    for rows in options.rows:
        workload = Workload(rows, options.buckets, options.tables, options.row_bytes, options.ids)
        measure_first_sync(workload, options.rounds, KINDS if options.only is None else (options.only,))
    if not options.no_writes:
        # Last: a process counts the peak memory of the one that started it as its own.
        asyncio.run(measure_writes(options.rounds))


if __name__ == "__main__":
    main()
