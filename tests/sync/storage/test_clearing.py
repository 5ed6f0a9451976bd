"""Clearing: what goes, what stays, and how quickly the same user's data is back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sync import (
    Column,
    PendingStatement,
    PendingStatementParameter,
    PowerSyncDatabase,
    RawTable,
    RawTableError,
    RawTableSchema,
    Schema,
    Table,
)
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, SCHEMA, ServiceConnector, held_by_another_process, rows, within
from tests.sync.storage.test_raw_tables import Bucket

ID = PendingStatementParameter.id()
WITH_LOCAL = Schema([*SCHEMA.tables, Table("drafts", [Column.text("text")], local_only=True)])


async def fill(database: PowerSyncDatabase) -> None:
    """Something in every table of the file."""
    await Bucket().publish(database, ("lists", "l", {"name": "Home"}), ("photos", "p", {"size": 1}))
    await database.execute("INSERT INTO todos(id, description) VALUES ('t', 'mine')")
    await database.execute("INSERT INTO drafts(id, text) VALUES ('d', 'x')")
    await database.sync_stream("todos", {"list": "l"}).subscribe()
    await database.execute(
        "INSERT INTO ps_kv(key, value) VALUES ('last_requested_checkpoint_request_id', 5),"
        " ('last_seen_checkpoint_request_id', 4)"
    )


async def counts(database: PowerSyncDatabase) -> dict[str, int]:
    names = [row[0] for row in await rows(database, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    kept = {"ps_migration", "ps_tx", "sqlite_sequence", "ps_stream_subscriptions"}
    found: dict[str, int] = {}
    for name in sorted(set(names) - kept):
        if count := (await rows(database, f"SELECT count(*) FROM {name}"))[0][0]:
            found[name] = count
    return found


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("clear_local", [True, False])
async def test_what_goes_and_what_stays(tmp_path: Path, soft: bool, clear_local: bool) -> None:
    async with PowerSyncDatabase(tmp_path / "c.db", WITH_LOCAL) as database:
        await fill(database)
        full = await counts(database)
        assert set(full) == {
            "ps_buckets",
            "ps_crud",
            "ps_crud_times",
            "ps_data__lists",
            "ps_data__todos",
            "ps_data_local__drafts",
            "ps_kv",
            "ps_oplog",
            "ps_sync_state",
            "ps_untyped",
            "ps_updated_rows",
        }
        client_id = await rows(database, "SELECT value FROM ps_kv WHERE key = 'client_id'")
        await database.disconnect_and_clear(soft=soft, clear_local=clear_local)
        expected = {"ps_kv": 1}
        if soft:
            expected |= {"ps_oplog": 2, "ps_buckets": 1}
            assert await rows(database, "SELECT last_op, last_applied_op FROM ps_buckets") == [[2, 0]]
        if not clear_local:
            expected |= {"ps_data_local__drafts": 1}
        assert await counts(database) == expected
        assert await rows(database, "SELECT value FROM ps_kv") == client_id


async def test_the_defaults_are_those_of_the_sdks(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "c.db", WITH_LOCAL) as database:
        await fill(database)
        await database.disconnect_and_clear()
        assert await counts(database) == {"ps_kv": 1}


async def test_rejected_writes_go_too(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "c.db", WITH_LOCAL) as database:
        await fill(database)
        transactions = await database.crud_transaction_batch()
        await transactions[0].reject("no")
        await transactions[-1].complete()
        await database.disconnect_and_clear()
        assert await database.rejected_writes() == []
        assert await counts(database) == {"ps_kv": 1}


async def test_status_and_watches_show_it_at_once(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "c.db", WITH_LOCAL) as database:
        await fill(database)
        watch = database.watch("SELECT name FROM lists", throttle=0)
        assert len(await anext(watch)) == 1
        await database.disconnect_and_clear()
        status = database.status
        assert (status.has_synced, status.upload_queue_count, status.wanted) == (False, 0, False)
        assert await within(10, anext(watch)) == []


async def test_the_database_is_usable_afterwards(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "c.db", WITH_LOCAL) as database:
        await fill(database)
        transaction = await anext(database.crud_transactions())
        await database.disconnect_and_clear()
        await database.execute("INSERT INTO lists(id, name) VALUES ('new', 'New')")
        await transaction.complete()  # of the user before: must not touch what is new
        assert [entry.id async for found in database.crud_transactions() for entry in found.crud] == ["new"]


async def test_raw_tables_are_cleared_each_by_its_own_means(tmp_path: Path) -> None:
    put = PendingStatement("INSERT INTO given VALUES (?)", [ID])
    delete = PendingStatement("DELETE FROM given WHERE key = ?", [ID])
    schema = Schema(
        [],
        raw_tables=[
            RawTable("inferred", RawTableSchema("plain")),
            RawTable("told", RawTableSchema(), clear="DELETE FROM told WHERE id <> 'kept'"),
            RawTable("given", put=put, delete=delete),
            RawTable("never_made", RawTableSchema()),
        ],
    )
    async with PowerSyncDatabase(tmp_path / "c.db", schema) as database:
        await database.execute("CREATE TABLE plain(id TEXT PRIMARY KEY)")
        await database.execute("CREATE TABLE told(id TEXT PRIMARY KEY)")
        await database.execute("CREATE TABLE given(key TEXT PRIMARY KEY)")
        for name in ("inferred", "told"):
            await database.create_raw_table_triggers(name)
        await Bucket().publish(
            database, *((name, row, {}) for name in ("inferred", "told", "given") for row in ("kept", "other"))
        )
        await database.execute("INSERT INTO plain VALUES ('local')")
        await database.execute("INSERT INTO given VALUES ('of the app')")
        await database.disconnect_and_clear()
        assert await rows(database, "SELECT * FROM plain") == []
        assert await rows(database, "SELECT * FROM told") == [["kept"]]
        assert await rows(database, "SELECT * FROM given") == [["of the app"]]
        assert await counts(database) == {"ps_kv": 1, "told": 1, "given": 1}  # and nothing was queued


async def test_a_raw_table_that_cannot_be_cleared_keeps_everything(tmp_path: Path) -> None:
    schema = Schema(WITH_LOCAL.tables, raw_tables=[RawTable("r", RawTableSchema(), clear="DELETE FROM nowhere")])
    async with PowerSyncDatabase(tmp_path / "c.db", schema) as database:
        await fill(database)
        full = await counts(database)
        with pytest.raises(RawTableError, match=r"'r'.*nowhere"):
            await database.disconnect_and_clear()
        assert await counts(database) == full
        assert database.status.has_synced


def lines(*operations: tuple[int, str, str], stream: bool = False) -> list[dict[str, Any]]:
    """A checkpoint of one bucket (operations of checksum 0), what it lacks, and its end."""
    last = operations[-1][0] if operations else 2
    buckets = [{"bucket": "b", "checksum": 0, "count": last, "priority": 3}]
    streams = [{"name": "todos", "is_default": False, "errors": []}] if stream else []
    common = {"op": "PUT", "object_type": "lists", "subkey": "s", "checksum": 0}
    data = [
        {**common, "op_id": str(op_id), "object_id": row, "data": json.dumps({"name": name})}
        for op_id, row, name in operations
    ]
    return [
        {"checkpoint": {"last_op_id": str(last), "buckets": buckets, "streams": streams}},
        *([{"data": {"bucket": "b", "data": data}}] if data else []),
        {"checkpoint_complete": {"last_op_id": str(last)}},
    ]


async def serving(streams: asyncio.Queue[Exchange]) -> Callable[[Exchange], Awaitable[None]]:
    async def service(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await streams.put(exchange)
        await exchange.closed_by_client()

    return service


async def send(exchange: Exchange, script: list[dict[str, Any]]) -> None:
    for line in script:
        await exchange.send_line(line)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("soft", [False, True])
async def test_after_a_soft_clear_only_what_is_new_comes_again(tmp_path: Path, soft: bool, raw: bool) -> None:
    schema = Schema([], raw_tables=[RawTable("lists", RawTableSchema())]) if raw else SCHEMA
    streams: asyncio.Queue[Exchange] = asyncio.Queue()
    async with (
        PowerSyncDatabase(tmp_path / "c.db", schema) as database,
        scripted_service(await serving(streams)) as server,
    ):
        if raw:
            await database.execute("CREATE TABLE lists(id TEXT PRIMARY KEY, name TEXT)")
            await database.create_raw_table_triggers("lists")
        await database.connect(ServiceConnector(server.url), QUICK)
        first = await within(10, streams.get())
        assert first.json["buckets"] == []
        await send(first, lines((1, "a", "one"), (2, "b", "two")))
        await database.wait_for_first_sync(10)
        synced = await rows(database, "SELECT id, name FROM lists ORDER BY id")
        assert synced == [["a", "one"], ["b", "two"]]

        await database.disconnect_and_clear(soft=soft)
        assert await rows(database, "SELECT * FROM lists") == []
        assert not database.status.has_synced
        await database.connect(ServiceConnector(server.url), QUICK)
        again = await within(10, streams.get())
        assert again.json["client_id"] == first.json["client_id"]
        if soft:
            assert again.json["buckets"] == [{"name": "b", "after": "2"}]
            await send(again, lines())
        else:
            assert again.json["buckets"] == []
            await send(again, lines((1, "a", "one"), (2, "b", "two")))
        await database.wait_for_first_sync(10)
        assert await rows(database, "SELECT id, name FROM lists ORDER BY id") == synced
        await database.disconnect()


async def test_a_subscription_in_use_begins_anew_and_others_are_forgotten(tmp_path: Path) -> None:
    streams: asyncio.Queue[Exchange] = asyncio.Queue()
    async with (
        PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database,
        scripted_service(await serving(streams)) as server,
    ):
        held = await database.sync_stream("todos", {"list": "held"}).subscribe(ttl=timedelta(hours=1), priority=2)
        let_go = await database.sync_stream("todos", {"list": "let go"}).subscribe()
        await let_go.unsubscribe()
        await database.connect(ServiceConnector(server.url), QUICK)
        first = await within(10, streams.get())
        assert len(first.json["streams"]["subscriptions"]) == 2
        await send(first, lines((2, "a", "one"), stream=True))
        await within(10, held.wait_for_first_sync())

        await database.disconnect_and_clear()
        assert await rows(
            database, "SELECT local_params, active, local_priority, ttl, last_synced_at FROM ps_stream_subscriptions"
        ) == [['{"list":"held"}', 0, 2, 3600, None]]
        status = database.status.for_stream("todos", {"list": "held"})
        assert status is not None
        assert not status.has_synced
        assert len(database.status.streams) == 1

        await database.connect(ServiceConnector(server.url), QUICK)
        again = await within(10, streams.get())
        assert [each["parameters"] for each in again.json["streams"]["subscriptions"]] == [{"list": "held"}]
        await send(again, lines((2, "a", "one"), stream=True))
        await within(10, held.wait_for_first_sync())
        await held.unsubscribe()
        await database.disconnect()


async def test_a_connection_wished_for_meanwhile_begins_after_the_clearing(tmp_path: Path) -> None:
    streams: asyncio.Queue[Exchange] = asyncio.Queue()
    async with (
        PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database,
        scripted_service(await serving(streams)) as server,
    ):
        asked = asyncio.Event()

        async def token(_count: int) -> str:
            asked.set()
            return "token"

        await database.connect(ServiceConnector(server.url, tokens=token), QUICK)
        await send(await within(10, streams.get()), lines((2, "a", "one")))
        await database.wait_for_first_sync(10)
        async with asyncio.TaskGroup() as group:
            with held_by_another_process(database):  # the clearing has to wait for this
                clearing = group.create_task(database.disconnect_and_clear())
                while database.status.wanted:
                    await asyncio.sleep(0)
                asked.clear()
                group.create_task(database.connect(ServiceConnector(server.url, tokens=token), QUICK))
                with pytest.raises(TimeoutError):
                    await within(0.3, asked.wait())
                assert database.status.wanted
            await within(10, clearing)
        again = await within(10, streams.get())
        assert again.json["buckets"] == []
        assert await rows(database, "SELECT * FROM lists") == []
        await database.disconnect()
