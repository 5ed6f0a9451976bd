"""Our engine's part of each measurement; `node.mjs` is the official SDK's. A process of its own for each.

Run as `python -m tests.benchmarks.engine '{"kind": …}'`: it prints JSON lines, milliseconds unless the name says
otherwise. First syncs are in `first_sync`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from sync import Index, PowerSyncDatabase, Schema, Table
from tests.benchmarks.first_sync import COLUMNS, Connector

INSERT = "INSERT INTO {}(id, list_id, description, created_at, completed, position) VALUES (?, ?, ?, ?, ?, ?)"
OF_LIST = "SELECT id, description, position FROM {} WHERE list_id = ? ORDER BY position"


def schema_of(tables: list[str]) -> Schema:
    return Schema([Table(name, COLUMNS, indexes=[Index("list", ["list_id"])]) for name in tables])


def row(list_id: str, place: int) -> tuple[str, str, str, str, int, int]:
    return (str(uuid.uuid4()), list_id, "buy milk " * 4, "2026-01-01T00:00:00Z", 0, place)


def milliseconds(since: float) -> float:
    return (time.perf_counter() - since) * 1000


async def live(database: PowerSyncDatabase, table: str, port: int) -> None:
    """Tell the highest position of the live list with the moment at which the watched query gave it."""
    await database.connect(Connector(port))
    await database.wait_for_first_sync()
    async for result in database.watch(OF_LIST.format(table), ["live"], throttle=0):
        now = time.monotonic_ns()
        print(json.dumps({"seen": result[-1]["position"] if result else -1, "at": now}), flush=True)


async def writes(database: PowerSyncDatabase, table: str, rows: dict[str, int]) -> dict[str, Any]:
    insert = INSERT.format(table)
    inserts: list[float] = []
    for place in range(rows["single"]):
        values = row(f"list {place % 1000}", place)
        began = time.perf_counter()
        await database.execute(insert, values)
        inserts.append(milliseconds(began))
    many = [row(f"list {place % 1000}", place) for place in range(rows["many"])]
    began = time.perf_counter()
    await database.execute_many(insert, many)
    batch = milliseconds(began)
    await database.execute_many(insert, [row(f"list {place % 1000}", place) for place in range(rows["table"])])
    watched = await watching(database, table, 1, rows["watched"])
    return {"inserts": inserts, "batch": batch, "watched": watched}


async def watchers(database: PowerSyncDatabase, table: str, rows: dict[str, int]) -> dict[str, Any]:
    filling = [row(f"list {place % 1000}", place) for place in range(rows["table"])]
    await database.execute_many(INSERT.format(table), filling)
    return {"watched": await watching(database, table, rows["watchers"], rows["watched"])}


async def watching(database: PowerSyncDatabase, table: str, count: int, times: int) -> list[float]:
    """From a local write until every one of some watched queries has given its result, so many times."""
    watches = [database.watch(OF_LIST.format(table), ["list 7"], throttle=0) for _ in range(count)]
    for watch in watches:
        await anext(watch)
    watched: list[float] = []
    for place in range(times):
        values = row("list 7", place)
        began = time.perf_counter()
        await database.execute(INSERT.format(table), values)
        await asyncio.gather(*(anext(watch) for watch in watches))
        watched.append(milliseconds(began))
    for watch in watches:
        await watch.aclose()
    return watched


async def drain(database: PowerSyncDatabase) -> dict[str, float]:
    began = time.perf_counter()
    count = 0
    async for transaction in database.crud_transactions():
        await transaction.complete()
        count += 1
    return {"seconds": time.perf_counter() - began, "transactions": count}


async def main(kind: str, path: str, tables: list[str], port: int = 0, rows: Any = None) -> None:
    began = time.perf_counter()
    async with PowerSyncDatabase(Path(path), schema_of(tables)) as database:
        match kind:
            case "live":
                await live(database, tables[0], port)
            case "writes":
                print(json.dumps(await writes(database, tables[0], rows)))
            case "watchers":
                print(json.dumps(await watchers(database, tables[0], rows)))
            case "drain":
                print(json.dumps(await drain(database)))
            case "open":
                await database.get(f"SELECT description FROM {tables[0]} WHERE id = ?", [rows["id"]])
                print(json.dumps({"ms": milliseconds(began)}))
            case _:
                raise SystemExit(f"there is no measurement {kind!r}")


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
