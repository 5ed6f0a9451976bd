"""A first sync, from the opened stream to visible rows: the engine, and bare sqlite3 doing the least that it takes.

Run as `python -m tests.benchmarks.first_sync engine|observed|watched|bare PORT TABLES`: one measurement in a process of
its own, whose figures it prints as JSON (seconds, milliseconds, MB). `observed` is the engine while its event loop and
its log are looked at, which takes it a tenth of the time; `watched` the same with three watched queries open.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import resource
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from sync import BackendConnector, Column, PowerSyncCredentials, PowerSyncDatabase, Schema, SyncOptions, Table

COLUMNS = [
    Column.text("list_id"),
    Column.text("created_at"),
    Column.text("description"),
    Column.integer("position"),
    Column.integer("completed"),
]


class Connector(BackendConnector):
    """A connector that uploads nothing.

    Attributes:
        asked_at: when credentials were asked for, which comes right before the stream is opened.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.asked_at = 0.0

    async def fetch_credentials(self) -> PowerSyncCredentials:
        self.asked_at = self.asked_at or time.perf_counter()
        return PowerSyncCredentials(f"http://127.0.0.1:{self._port}", "token")

    async def upload_data(self, _database: PowerSyncDatabase) -> None:
        raise AssertionError("nothing is uploaded")


async def _longest_block(longest: dict[str, float]) -> None:
    """How long the event loop was kept from running, at most, in milliseconds, and by its own thread's work alone."""
    while True:
        before, used = time.perf_counter(), time.thread_time()
        await asyncio.sleep(0.001)
        longest["block_ms"] = max(longest["block_ms"], (time.perf_counter() - before - 0.001) * 1000)
        longest["own_block_ms"] = max(longest["own_block_ms"], (time.thread_time() - used) * 1000)


def watched_queries(table: str) -> list[str]:
    return [
        f'SELECT count(*) FROM "{table}"',
        f'SELECT id, description FROM "{table}" ORDER BY position DESC LIMIT 100',
        f'SELECT completed, count(*) FROM "{table}" GROUP BY completed',
    ]


async def engine(path: Path, port: int, tables: list[str]) -> dict[str, float]:
    async with PowerSyncDatabase(path, Schema([Table(name, COLUMNS) for name in tables])) as database:
        connector = Connector(port)
        await database.connect(connector, SyncOptions())
        await database.wait_for_first_sync()
        seconds = time.perf_counter() - connector.asked_at
        return {"seconds": seconds, "rows": await _count(database, tables)}


async def _count(database: PowerSyncDatabase, tables: list[str]) -> int:
    return sum([(await database.get(f'SELECT count(*) FROM "{name}"'))[0] for name in tables])


async def observed(path: Path, port: int, tables: list[str], *, watched: bool) -> dict[str, float]:
    schema = Schema([Table(name, COLUMNS) for name in tables])
    longest = {"block_ms": 0.0, "own_block_ms": 0.0}
    wal = 0

    async def watch(sql: str) -> None:
        async for _ in database.watch(sql):
            pass

    async with PowerSyncDatabase(path, schema) as database:
        ticker = asyncio.create_task(_longest_block(longest))
        watching = [asyncio.create_task(watch(sql)) for sql in watched_queries(tables[0])] if watched else []
        connector = Connector(port)
        await database.connect(connector, SyncOptions())
        first = asyncio.create_task(database.wait_for_first_sync())
        while not first.done():
            await asyncio.wait({first}, timeout=0.02)
            wal = max(wal, Path(f"{path}-wal").stat().st_size)
        seconds = time.perf_counter() - connector.asked_at
        for task in (ticker, *watching):
            task.cancel()
        rows = await _count(database, tables)
    return {"seconds": seconds, "rows": rows, "wal_mb": wal / 2**20} | longest


def bare(path: Path, port: int, tables: list[str]) -> dict[str, float]:
    """The same bytes over the same kind of connection, into the same tables, with indexes built last, and no more."""
    database = sqlite3.connect(path, isolation_level=None)
    for sql in (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = NORMAL",
        "PRAGMA secure_delete = OFF",
        """CREATE TABLE ps_oplog(bucket INTEGER NOT NULL, op_id INTEGER NOT NULL, row_type TEXT, row_id TEXT, key TEXT,
        data TEXT, hash INTEGER NOT NULL) STRICT""",
        *(f'CREATE TABLE "ps_data__{name}"(id TEXT PRIMARY KEY NOT NULL, data TEXT)' for name in tables),
    ):
        database.execute(sql)
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/sync/stream", body=b"{}")
    response = connection.getresponse()
    while not (line := response.readline()).startswith(b'{"checkpoint_complete"'):
        if line.startswith(b'{"data"'):
            operations = json.loads(line)["data"]["data"]
            database.execute("BEGIN")
            database.executemany(
                "INSERT INTO ps_oplog VALUES (1, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        int(op["op_id"]),
                        op["object_type"],
                        op["object_id"],
                        f"{op['object_type']}/{op['object_id']}/{op['subkey']}",
                        op["data"],
                        op["checksum"],
                    )
                    for op in operations
                ],
            )
            database.execute("COMMIT")
    database.execute("CREATE INDEX ps_oplog_row ON ps_oplog (row_type, row_id)")
    database.execute("CREATE INDEX ps_oplog_opid ON ps_oplog (bucket, op_id)")
    database.execute("CREATE INDEX ps_oplog_key ON ps_oplog (bucket, key)")
    for name in tables:
        database.execute(
            f'INSERT INTO "ps_data__{name}" SELECT row_id, data FROM ps_oplog NOT INDEXED WHERE row_type = ?', (name,)
        )
    seconds = time.perf_counter() - began
    rows = sum(database.execute(f'SELECT count(*) FROM "ps_data__{name}"').fetchone()[0] for name in tables)
    database.close()
    return {"seconds": seconds, "rows": rows}


def main() -> None:
    kind, port, *tables = sys.argv[1:]
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIRECTORY")) as directory:
        path = Path(directory) / "first.db"
        if kind == "bare":
            result = bare(path, int(port), tables)
        elif kind == "engine":
            result = asyncio.run(engine(path, int(port), tables))
        else:
            result = asyncio.run(observed(path, int(port), tables, watched=kind == "watched"))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        result["cpu_seconds"] = usage.ru_utime + usage.ru_stime
        result["memory_mb"] = usage.ru_maxrss / 1024
        result["file_mb"] = path.stat().st_size / 2**20
    print(json.dumps(result))


if __name__ == "__main__":
    main()
