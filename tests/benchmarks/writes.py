"""Local writes and watched queries: `python -m tests.benchmarks.writes`. Bare sqlite3 stores the same in the same file.

Each figure is the median over several rounds of a round's own median, with their spread; engine and bare sqlite3 take
turns, so that both have the same of the machine. Nothing here fails when it is slow.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sync import Column, Index, PowerSyncDatabase, Schema, Table

COLUMNS = [
    Column.text("list_id"),
    Column.text("description"),
    Column.text("created_at"),
    Column.integer("done"),
    Column.integer("position"),
]
SCHEMA = Schema([Table("notes", COLUMNS), Table("todos", COLUMNS, indexes=[Index("list", ["list_id"])])])
INSERT = "INSERT INTO {}(id, list_id, description, created_at, done, position) VALUES (?, ?, ?, ?, ?, ?)"
INTO_NOTES = INSERT.format("notes")
INTO_TODOS = INSERT.format("todos")
QUERY = "SELECT id, description, position FROM todos WHERE list_id = ? ORDER BY position"
SINGLE = 500
MANY = 10_000
ROWS = 100_000
LISTS = 1000
FOREIGN = 10

Row = tuple[str, str, str, str, int, int]


def rows(count: int, list_id: str | None = None) -> list[Row]:
    return [
        (str(uuid.uuid4()), list_id or f"list {place % LISTS}", "buy milk " * 4, "2026-01-01T00:00:00Z", 0, place)
        for place in range(count)
    ]


def bare_connection(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.create_function("uuid", 0, lambda: str(uuid.uuid4()))
    for setting in ("synchronous = NORMAL", "secure_delete = OFF", "cache_size = -16384"):
        connection.execute(f"PRAGMA {setting}")
    return connection


def store(connection: sqlite3.Connection, table: str, row: Row) -> None:
    """What a trigger stores, by three plain statements."""
    names = ("list_id", "description", "created_at", "done", "position")
    data = json.dumps(dict(zip(names, row[1:], strict=True)))
    connection.execute(f'INSERT INTO "ps_data__{table}"(id, data) VALUES (?, ?)', (row[0], data))
    connection.execute("INSERT INTO ps_crud(tx_id, data) VALUES (1, ?)", (data,))
    connection.execute("INSERT INTO ps_updated_rows(row_type, row_id) VALUES (?, ?)", (table, row[0]))


def timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return (time.perf_counter() - began) * 1000


async def measure_writes(database: PowerSyncDatabase, bare: sqlite3.Connection) -> dict[str, float]:
    """Milliseconds."""
    singles: list[float] = []
    for row in rows(SINGLE):
        began = time.perf_counter()
        await database.execute(INTO_NOTES, row)
        singles.append((time.perf_counter() - began) * 1000)

    def store_one(row: Row) -> None:
        bare.execute("BEGIN IMMEDIATE")
        store(bare, "notes", row)
        bare.execute("COMMIT")

    bare_singles = [timed(lambda row=row: store_one(row)) for row in rows(SINGLE)]

    many = rows(MANY)
    began = time.perf_counter()
    await database.execute_many(INTO_NOTES, many)
    many_ms = (time.perf_counter() - began) * 1000

    def store_many(many: list[Row]) -> None:
        bare.execute("BEGIN IMMEDIATE")
        for row in many:
            store(bare, "notes", row)
        bare.execute("COMMIT")

    bare_many = rows(MANY)
    return {
        "one insert": statistics.median(singles),
        "bare one insert": statistics.median(bare_singles),
        "10,000 inserts": many_ms,
        "bare 10,000 inserts": timed(lambda: store_many(bare_many)),
    }


async def measure_watch(database: PowerSyncDatabase, bare: sqlite3.Connection) -> dict[str, float]:
    """Milliseconds from a write to the new result of a watched query on a table of 100,000 rows."""
    watch = database.watch(QUERY, ["list 7"], throttle=0)
    await anext(watch)
    own: list[float] = []
    for row in rows(200, "list 7"):
        began = time.perf_counter()
        await database.execute(INTO_TODOS, row)
        await anext(watch)
        own.append((time.perf_counter() - began) * 1000)

    def store_and_read(row: Row) -> None:
        bare.execute("BEGIN IMMEDIATE")
        store(bare, "todos", row)
        bare.execute("COMMIT")
        bare.execute(QUERY, ["list 8"]).fetchall()

    bare_own = [timed(lambda row=row: store_and_read(row)) for row in rows(200, "list 8")]
    await watch.aclose()
    return {"write to result": statistics.median(own), "bare write and query": statistics.median(bare_own)}


async def measure_other_process(database: PowerSyncDatabase, path: Path) -> list[float]:
    """Milliseconds from each commit of another process to the new result of a watched query."""
    watch = database.watch(QUERY, ["list 7"], throttle=0)
    seen = {row["id"] for row in await anext(watch)}
    arrived: dict[str, float] = {}
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.writes", str(path), stdout=asyncio.subprocess.PIPE
    )
    while len(arrived) < FOREIGN:
        now_there = {row["id"] for row in await anext(watch)}
        arrived |= dict.fromkeys(now_there - seen - arrived.keys(), time.monotonic())
    printed, _ = await program.communicate()
    await watch.aclose()
    return [(arrived[row_id] - float(at)) * 1000 for row_id, at in map(str.split, printed.decode().splitlines())]


def other_process(path: str) -> None:
    """Commits now and then, and prints the row and the moment (of the clock that all processes share) of each."""
    with closing(bare_connection(Path(path))) as connection:
        for row in rows(FOREIGN, "list 7"):
            time.sleep(0.3 + 0.1 * int(row[0][0], 16) / 16)
            connection.execute(INTO_TODOS, row)
            print(row[0], time.monotonic(), flush=True)


async def measure(rounds: int) -> None:
    results: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIRECTORY")) as directory:
        for round_ in range(rounds):
            path = Path(directory) / f"{round_}.db"
            async with PowerSyncDatabase(path, SCHEMA) as database:
                with closing(bare_connection(path)) as bare:
                    figures = await measure_writes(database, bare)
                    await database.execute_many(INTO_TODOS, rows(ROWS))
                    figures |= await measure_watch(database, bare)
                if round_ == 0:
                    foreign = await measure_other_process(database, path)
                    used, began = time.process_time(), time.monotonic()
                    await asyncio.sleep(5)
                    idle = (time.process_time() - used) / (time.monotonic() - began)
            for name, figure in figures.items():
                results.setdefault(name, []).append(figure)
    print(f"local writes and watched queries, {rounds} rounds, load {os.getloadavg()[0]:.1f}")
    medians = {name: statistics.median(figures) for name, figures in results.items()}
    for (name, median), (_, bare_median) in zip(*[iter(medians.items())] * 2, strict=True):
        spread = f"{min(results[name]):.2f}-{max(results[name]):.2f}"
        print(f"  {name}: {median:.2f} ms ({spread}), {median / bare_median:.2f} x bare ({bare_median:.2f} ms)")
    print(f"  another process's commit to result: {statistics.median(foreign):.0f} ms, at most {max(foreign):.0f} ms")
    print(f"  an open database that nobody uses: {idle:.3%} of one core", flush=True)


def main() -> None:
    match sys.argv[1:]:
        case [path]:
            other_process(path)
        case _:
            asyncio.run(measure(5))


if __name__ == "__main__":
    main()
