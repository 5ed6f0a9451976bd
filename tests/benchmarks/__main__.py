"""`python -m tests.benchmarks`: measures in turn, and prints each figure with its spread, its reference and its goal.

Nothing here fails when it is slow. `--write` puts the table into docs/performance.md.
"""

from __future__ import annotations

import argparse

from tests.benchmarks import measurements, report
from tests.benchmarks.workload import Workload

PARTS = ("first-sync", "many-buckets", "live", "writes", "files")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one; may be given several times")
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000], help="of first syncs")
    parser.add_argument("--buckets", type=int, default=10)
    parser.add_argument("--tables", type=int, default=1)
    parser.add_argument("--row-bytes", type=int, default=340)
    parser.add_argument("--ids", choices=("random", "ascending"), default="random")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    rows: list[str] = []

    def tell(goals: list[report.Goal], results: report.Results) -> None:
        for goal in goals:
            rows.append(goal.row(results))
            print(rows[-1], flush=True)

    if measurements.SDK is None:
        print("POWERSYNC_NODE does not name the npm package @powersync/node: there is no such reference.")
    for part in options.part or PARTS:
        match part:
            case "first-sync":
                for count in options.rows:
                    workload = Workload(count, options.buckets, options.tables, options.row_bytes, options.ids)
                    results = measurements.first_sync(workload, measurements.contenders("bare"), options.rounds)
                    tell(report.first_sync_goals(count, options.buckets), results)
            case "many-buckets":
                workload = Workload(100_000, 1000)
                results = measurements.first_sync(workload, measurements.contenders(), options.rounds)
                tell(report.first_sync_goals(100_000, 1000)[:1], results)
            case "live":
                tell(report.LIVE, measurements.live(Workload(100_000), options.rounds))
            case "writes":
                tell(report.WRITES, measurements.writes(options.rounds))
            case _:
                tell(report.FILES, measurements.files(options.rounds))
    print(f"{options.rounds} rounds, {report.machine()}")
    if options.write:
        report.write_page(rows)


if __name__ == "__main__":
    main()
