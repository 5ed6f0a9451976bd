"""The pool of connections: how many readers, how long they wait for locks, and the write-ahead log under load."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

import sync.sqlite.wal
from sync import PowerSyncDatabase
from tests.kit import inside
from tests.sync.rig import SCHEMA, rows, within

BUSY = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT count(*) FROM n, lists LIMIT 1"
)


@pytest.mark.parametrize("readers", [1, 5])
async def test_the_number_of_readers_is_what_was_asked_for(tmp_path: Path, readers: int) -> None:
    async with PowerSyncDatabase(tmp_path / "r.db", SCHEMA, readers=readers) as database:
        assert inside.idle_readers(database) == readers
        results = await within(10, asyncio.gather(*(rows(database, "SELECT 1") for _ in range(20))))
        assert results == [[[1]]] * 20
    with pytest.raises(ValueError, match="readers must be at least 1"):
        PowerSyncDatabase(tmp_path / "r.db", SCHEMA, readers=0)


async def test_every_connection_waits_for_locks_of_others(database: PowerSyncDatabase) -> None:
    sql = "PRAGMA busy_timeout"
    async with database.reader() as reader, database.read_transaction() as reading:
        assert [tuple(row) for row in await reader.execute_fetchall(sql)] == [(10_000,)]
        assert tuple(await reading.get(sql)) == (10_000,)
    async with database.writer() as writer:
        assert [tuple(row) for row in await writer.execute_fetchall(sql)] == [(10_000,)]
    assert await rows(database, sql) == [[10_000]]


async def test_the_log_stays_small_though_somebody_always_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 500_000
    monkeypatch.setattr(sync.sqlite.wal, "KEPT_BYTES", limit // 2)
    monkeypatch.setattr(sync.sqlite.wal, "LIMIT_BYTES", limit)
    log = tmp_path / "w.db-wal"

    async def read(database: PowerSyncDatabase) -> None:
        while True:
            await database.get_all(BUSY)

    async with PowerSyncDatabase(tmp_path / "w.db", SCHEMA) as database:
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(read(database)) for _ in range(6)]
            for _ in range(4):
                for _ in range(10):
                    await database.execute("UPDATE lists SET name = ?", ["x" * 100_000])
                async with asyncio.timeout(20):
                    while log.stat().st_size > limit:
                        await asyncio.sleep(0.001)
            for task in reading:
                task.cancel()
        async with asyncio.timeout(10):
            while inside.idle_readers(database) < 3:
                await asyncio.sleep(0)


async def test_a_reader_of_somebody_else_does_not_stop_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 500_000
    monkeypatch.setattr(sync.sqlite.wal, "KEPT_BYTES", limit // 2)
    monkeypatch.setattr(sync.sqlite.wal, "LIMIT_BYTES", limit)
    log = tmp_path / "w.db-wal"
    async with PowerSyncDatabase(tmp_path / "w.db", SCHEMA) as database:
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        other = sqlite3.connect(database.path, isolation_level=None)
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM ps_data__lists").fetchall()
        for number in range(20):
            await within(10, database.execute("UPDATE lists SET name = ?", [str(number % 10) * 100_000]))
        assert log.stat().st_size > limit
        other.close()
        async with asyncio.timeout(30):
            while log.stat().st_size > limit:
                await database.execute("UPDATE lists SET name = ?", ["y" * 10_000])
                await asyncio.sleep(0.01)


async def test_watches_and_transactions_in_memory() -> None:
    async with PowerSyncDatabase(":memory:", SCHEMA) as database:
        watch = database.watch_diff("SELECT id, name FROM lists", throttle=0)
        assert (await within(5, anext(watch))).rows == []
        async with database.write_transaction() as transaction:
            await transaction.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        assert [tuple(row) for row in (await within(5, anext(watch))).added] == [("a", "x")]
        async with database.read_transaction() as reading:
            assert (await reading.get("SELECT count(*) FROM lists"))[0] == 1
        await database.upsert("lists", {"id": "a", "name": "y"})
        assert [tuple(new) for _, new in (await within(5, anext(watch))).updated] == [("a", "y")]
