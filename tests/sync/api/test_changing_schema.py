"""The schema changed at run time: the file, watches, and statements that were prepared before."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from sync import Column, ConnectedError, NestedUseError, PowerSyncDatabase, RawTable, RawTableSchema, Schema, Table
from sync.sqlite.pool import READERS
from tests.kit import inside
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, ServiceConnector, held_by_another_process, rows, within

ONE = Schema([Table("a", [Column.text("x")]), Table("b", [Column.text("x")])])
WIDER = Schema([Table("a", [Column.text("x"), Column.integer("y")]), Table("c", [Column.text("x")])])
LOCAL = Schema([Table("a", [Column.text("x")], local_only=True)])


async def test_tables_come_go_and_grow_and_no_row_is_lost(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "c.db", ONE) as database:
        await database.execute("INSERT INTO a(id, x) VALUES ('1', 'a1')")
        await database.execute("INSERT INTO b(id, x) VALUES ('1', 'b1')")
        await database.update_schema(WIDER)
        assert database.schema is WIDER
        assert await rows(database, "SELECT id, x, y FROM a") == [["1", "a1", None]]
        assert await rows(database, "SELECT type, id FROM ps_untyped") == [["b", "1"]]
        with pytest.raises(sqlite3.OperationalError, match="no such table: b"):
            await database.get_all("SELECT * FROM b")
        await database.execute("INSERT INTO c(id, x) VALUES ('1', 'c1')")
        await database.update_schema(ONE)
        assert await rows(database, "SELECT * FROM b") == [["1", "b1"]]
        async with asyncio.timeout(10):
            async for status in database.watch_status():
                if status.upload_queue_count == 3:
                    break
    async with PowerSyncDatabase(tmp_path / "c.db", ONE) as database:
        assert await rows(database, "SELECT * FROM a") == [["1", "a1"]]


async def test_every_reader_sees_the_new_columns(tmp_path: Path) -> None:
    """Also through a statement that it has prepared before."""

    async def columns() -> list[list[str]]:
        async def one() -> list[str]:
            return (await database.get("SELECT * FROM a, (SELECT 1 AS other)")).keys()

        return [sorted(await each) for each in [asyncio.ensure_future(one()) for _ in range(4 * READERS)]]

    async with PowerSyncDatabase(tmp_path / "c.db", ONE) as database:
        await database.execute("INSERT INTO a(id, x) VALUES ('1', 'a1')")
        assert await columns() == [["id", "other", "x"]] * 4 * READERS
        await database.update_schema(WIDER)
        assert await columns() == [["id", "other", "x", "y"]] * 4 * READERS
        await database.execute("UPDATE a SET y = 5")
        assert await rows(database, "SELECT * FROM a, (SELECT 1 AS other)") == [["1", "a1", 5, 1]]


async def test_it_is_refused_while_connected(tmp_path: Path) -> None:
    async def service(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.closed_by_client()

    async with PowerSyncDatabase(tmp_path / "c.db", ONE) as database, scripted_service(service) as server:
        await database.connect(ServiceConnector(server.url), QUICK)
        with pytest.raises(ConnectedError, match="disconnect"):
            await database.update_schema(WIDER)
        assert database.schema is ONE
        assert await rows(database, "SELECT * FROM b") == []
        await database.disconnect()
        await database.update_schema(WIDER)
        assert await rows(database, "SELECT * FROM c") == []


async def test_a_connection_wished_for_meanwhile_waits(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def service(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.closed_by_client()

    async def token(_count: int) -> str:
        asked.set()
        return "token"

    async with PowerSyncDatabase(tmp_path / "c.db", ONE) as database, scripted_service(service) as server:
        async with asyncio.TaskGroup() as group:
            with held_by_another_process(database):
                change = group.create_task(database.update_schema(WIDER))
                await asyncio.sleep(0)
                group.create_task(database.connect(ServiceConnector(server.url, tokens=token), QUICK))
                while not database.status.wanted:
                    await asyncio.sleep(0)
                with pytest.raises(TimeoutError):
                    await within(0.3, asked.wait())
            await within(10, change)
        await within(10, asked.wait())
        assert database.schema is WIDER
        await database.disconnect()


async def test_a_failure_changes_nothing(tmp_path: Path) -> None:
    """The app has a table of its own where a view should stand."""
    async with PowerSyncDatabase(tmp_path / "c.db", ONE) as database:
        await database.execute("CREATE TABLE c(id TEXT)")
        await database.execute("INSERT INTO b(id, x) VALUES ('1', 'b1')")
        with pytest.raises(sqlite3.OperationalError, match=r'"?c"? already exists'):
            await database.update_schema(WIDER)
        assert database.schema is ONE
        assert await rows(database, "SELECT * FROM b") == [["1", "b1"]]
        await database.execute("INSERT INTO a(id, x) VALUES ('1', 'a1')")
        assert await rows(database, "SELECT * FROM a") == [["1", "a1"]]
        async with database.write_transaction():
            with pytest.raises(NestedUseError):
                await database.update_schema(ONE)


async def test_cancelled_it_is_done_or_not_done(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "c.db", ONE) as database:
        for turns in range(40):
            before = database.schema
            wanted = WIDER if before is ONE else ONE
            change = asyncio.ensure_future(database.update_schema(wanted))
            for _ in range(turns):
                await asyncio.sleep(0)
            change.cancel()
            await asyncio.wait({change})
            views = [row[0] for row in await rows(database, "SELECT name FROM sqlite_master WHERE type = 'view'")]
            assert sorted(views) == sorted(table.name for table in database.schema.tables)


async def test_watches_follow(tmp_path: Path) -> None:
    """What a query reads is other tables than before: changes of those are seen."""
    async with PowerSyncDatabase(tmp_path / "c.db", ONE) as database:
        insert = "INSERT INTO a(id, x) VALUES (?, ?)"
        await database.execute(insert, ["1", "synced"])
        watch = database.watch("SELECT x FROM a ORDER BY id", throttle=0)
        assert [row[0] for row in await anext(watch)] == ["synced"]
        gone = database.watch("SELECT x FROM b", throttle=0)
        assert await anext(gone) == []

        await database.update_schema(LOCAL)
        assert await within(10, anext(watch)) == []
        with pytest.raises(sqlite3.OperationalError, match="no such table: b"):
            await within(10, anext(gone))
        # As the engine writes: below the view, whose name it does not use.
        await database.execute("INSERT INTO ps_data_local__a(id, data) VALUES ('2', '{\"x\": \"local\"}')")
        assert [row[0] for row in await within(10, anext(watch))] == ["local"]

        await database.update_schema(Schema([], raw_tables=[RawTable("a", RawTableSchema())]))
        with pytest.raises(sqlite3.OperationalError, match="no such table: a"):
            await within(10, anext(watch))
        await database.execute("CREATE TABLE a(id TEXT PRIMARY KEY, x TEXT)")
        await database.create_raw_table_triggers("a")  # brings what waited
        assert [row[0] for row in await within(10, anext(watch))] == ["synced"]
        await database.execute(insert, ["3", "raw"])
        assert [row[0] for row in await within(10, anext(watch))] == ["synced", "raw"]


async def test_watches_follow_a_schema_that_another_process_changes(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "c.db", ONE) as database:
        watch = database.watch("SELECT x FROM a", throttle=0)
        assert await anext(watch) == []
        async with PowerSyncDatabase(tmp_path / "c.db", LOCAL) as other:
            await other.execute("INSERT INTO a(id, x) VALUES ('1', 'of the other')")
            assert [row[0] for row in await within(10, anext(watch))] == ["of the other"]
        await database.execute("UPDATE a SET x = 'mine'")
        assert [row[0] for row in await within(10, anext(watch))] == ["mine"]


async def test_statements_prepared_before_tell_what_they_change_now(tmp_path: Path) -> None:
    commits: list[frozenset[str] | None] = []
    async with PowerSyncDatabase(tmp_path / "c.db", ONE) as database:
        insert = "INSERT INTO a(id, x) VALUES (?, 'x')"
        inside.on_commit(database, commits.append)
        await database.execute(insert, ["1"])
        await database.update_schema(LOCAL)
        await database.execute(insert, ["2"])
        await database.get_all("SELECT 1")
        told = [None if changed is None else {name for name in changed if "_a" in name} for changed in commits]
        assert told[0] == {"ps_data__a"}
        assert told[-1] == {"ps_data_local__a"}
