"""Raw tables: published rows in tables of the app's own, and rows that wait."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sync import (
    Column,
    CrudEntry,
    PendingStatement,
    PowerSyncDatabase,
    RawTable,
    RawTableError,
    RawTableSchema,
    Schema,
    SchemaError,
    Table,
)
from sync.storage import oplog
from tests.kit import inside
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, SCHEMA, ServiceConnector, rows, until_rows, within
from tests.sync.storage.raw_tables import ID, ITEMS, REST, Bucket, column, opened, queue
from tests.sync.test_transcripts import NAMES, load, prepare

LISTS = next(table for table in SCHEMA.tables if table.name == "lists")
CREATE_TODOS = (
    "CREATE TABLE todos(id TEXT PRIMARY KEY, list_id TEXT, created_at TEXT, completed_at TEXT, description TEXT,"
    " completed INTEGER, created_by TEXT, completed_by TEXT)"
)
TODOS = "SELECT id, list_id, created_at, completed_at, description, completed, created_by, completed_by FROM todos"


@pytest.mark.parametrize("name", NAMES)
async def test_a_raw_table_holds_what_the_view_would(name: str, tmp_path: Path) -> None:
    """Real traffic of a service: after each checkpoint the rows are those that the reference client shows."""
    lines, expected = load(name)
    go_on: asyncio.Queue[int] = asyncio.Queue()

    async def service(exchange: Exchange) -> None:
        await exchange.begin_stream()
        sent = 0
        while len(server.requests) == 1 and sent < len(lines):
            until = await go_on.get()
            await exchange.send("".join(f"{line}\n" for line in lines[sent:until]))
            sent = until
        await exchange.closed_by_client()

    async with opened(tmp_path, RawTable("todos", RawTableSchema()), tables=(LISTS,)) as database:
        await database.execute(CREATE_TODOS)
        await database.create_raw_table_triggers("todos")
        async with scripted_service(service) as server:
            await prepare(database, expected["request"])
            await database.connect(ServiceConnector(server.url), QUICK)
            published = database.watch("SELECT * FROM ps_sync_state", throttle=0)
            await anext(published)
            for checkpoint in expected["checkpoints"]:
                if checkpoint["after_line"] == expected["closed_after_line"]:
                    break
                go_on.put_nowait(checkpoint["after_line"])
                await within(10, anext(published))
                assert await rows(database, f"{TODOS} ORDER BY id") == sorted(checkpoint["todos"])
            assert await queue(database) == []  # the triggers keep still while the engine writes
            await database.disconnect()


async def test_values_missing_columns_and_nulls(tmp_path: Path) -> None:
    async with opened(tmp_path, ITEMS) as database:
        await database.execute("CREATE TABLE items(id TEXT PRIMARY KEY, t TEXT, i INTEGER, r REAL, any)")
        bucket = Bucket()
        await bucket.publish(
            database,
            ("items", "a", {"t": "x", "i": 2**63 - 1, "r": 0.1 + 0.2, "any": True, "unknown": 1}),
            ("items", "b", '{"t": {"k": [1.50, null]}, "i": null, "any": 18446744073709551617}'),
        )
        assert await rows(database, "SELECT id, t, i, r, any FROM items ORDER BY id") == [
            ["a", "x", 2**63 - 1, 0.1 + 0.2, 1],
            ["b", '{"k":[1.5,null]}', None, None, float(2**64)],
        ]
        await bucket.publish(database, ("items", "a", {"i": 3}), ("items", "b", None))
        assert await rows(database, "SELECT id, t, i, r, any FROM items") == [["a", None, 3, None, None]]


async def test_columns_of_the_apps_own_keep_their_values(tmp_path: Path) -> None:
    table = RawTable("items", RawTableSchema("goods", synced_columns=["name"]))
    async with opened(tmp_path, table) as database:
        await database.execute("CREATE TABLE goods(id TEXT PRIMARY KEY, name TEXT, seen INTEGER NOT NULL DEFAULT 0)")
        bucket = Bucket()
        await bucket.publish(database, ("items", "a", {"name": "one", "seen": 7}))
        await database.execute("UPDATE goods SET seen = 1")
        await bucket.publish(database, ("items", "a", {"name": "two"}))
        assert await rows(database, "SELECT * FROM goods") == [["a", "two", 1]]


async def test_given_statements_and_the_rest_of_a_row(tmp_path: Path) -> None:
    table = RawTable(
        "items",
        put=PendingStatement(
            "INSERT OR REPLACE INTO goods(key, title, more) VALUES (?, upper(?), ?)", [ID, column("name"), REST]
        ),
        delete=PendingStatement("DELETE FROM goods WHERE key = ?", [ID]),
    )
    async with opened(tmp_path, table) as database:
        await database.execute("CREATE TABLE goods(key TEXT PRIMARY KEY, title TEXT, more TEXT)")
        bucket = Bucket()
        text = '{"id": "a", "name": "one", "price": 1.10, "big": 123456789012345678901234567890, "no": null}'
        await bucket.publish(database, ("items", "a", text), ("items", "b", {"name": "two"}))
        assert await rows(database, "SELECT * FROM goods ORDER BY key") == [
            ["a", "ONE", '{"price":1.10,"big":123456789012345678901234567890,"no":null}'],
            ["b", "TWO", None],
        ]
        await bucket.publish(database, ("items", "b", None))
        assert await rows(database, "SELECT key FROM goods") == [["a"]]


async def test_a_removed_bucket_takes_its_rows_along(tmp_path: Path) -> None:
    async with opened(tmp_path, ITEMS) as database:
        await database.execute("CREATE TABLE items(id TEXT PRIMARY KEY, name TEXT)")
        one, two = Bucket("one"), Bucket("two")
        await one.publish(database, ("items", "a", {"name": "of one"}), ("items", "b", {"name": "of one"}))
        two.last_op = 10
        await two.publish(database, ("items", "a", {"name": "of two"}))
        assert await rows(database, "SELECT * FROM items ORDER BY id") == [["a", "of two"], ["b", "of one"]]
        await inside.write(database, lambda statements: oplog.delete_buckets(statements, ["two"]))
        await one.publish(database)
        assert await rows(database, "SELECT * FROM items ORDER BY id") == [["a", "of one"], ["b", "of one"]]
        await inside.write(database, lambda statements: oplog.delete_buckets(statements, ["one"]))
        await Bucket("three").publish(database)
        assert await rows(database, "SELECT * FROM items") == []


async def test_more_rows_than_one_step_and_deletes_come_first(tmp_path: Path) -> None:
    async with opened(tmp_path, ITEMS) as database:
        await database.execute("CREATE TABLE items(id TEXT PRIMARY KEY, place INTEGER UNIQUE)")
        bucket = Bucket()
        count = 1203
        await bucket.publish(database, *(("items", f"z{number:04}", {"place": number}) for number in range(count)))
        assert await rows(database, "SELECT count(*), sum(place) FROM items") == [[count, sum(range(count))]]
        await bucket.publish(
            database,
            *(("items", f"a{number:04}", {"place": number}) for number in range(count)),
            *(("items", f"z{number:04}", None) for number in range(count)),
        )
        assert await rows(database, "SELECT min(id), count(*) FROM items") == [["a0000", count]]


@pytest.mark.parametrize(
    ("create", "reason"),
    [
        ("CREATE TABLE items(id TEXT PRIMARY KEY, name TEXT NOT NULL)", "NOT NULL"),
        ("CREATE TABLE items(id TEXT, name TEXT)", "ON CONFLICT"),
        ("CREATE TABLE items(key TEXT PRIMARY KEY, name TEXT)", "no column 'id'"),
    ],
)
async def test_a_table_that_cannot_take_a_row_stops_the_checkpoint(tmp_path: Path, create: str, reason: str) -> None:
    async with opened(tmp_path, ITEMS, tables=(LISTS,)) as database:
        await database.execute(create)
        with pytest.raises(RawTableError, match=f"'items'.*{reason}"):
            await Bucket().publish(database, ("lists", "l", {"name": "Home"}), ("items", "a", {"name": None}))
        assert await rows(database, "SELECT * FROM lists") == []
        assert await rows(database, "SELECT * FROM ps_kv WHERE key <> 'client_id'") == []
        await database.execute("DROP TABLE items")
        await database.execute("CREATE TABLE items(id TEXT PRIMARY KEY, name TEXT)")
        await Bucket().publish(database, ("lists", "l", {"name": "Home"}), ("items", "a", {"name": None}))
        assert await rows(database, "SELECT * FROM items") == [["a", None]]


# Rows that wait


async def test_rows_wait_until_the_schema_names_the_table_and_the_app_made_it(tmp_path: Path) -> None:
    bucket = Bucket()
    async with opened(tmp_path) as database:
        await bucket.publish(database, ("items", "a", {"name": "early"}), ("items", "b", {"name": "gone"}))
    async with opened(tmp_path, ITEMS) as database:
        assert await rows(database, "SELECT id FROM ps_untyped ORDER BY id") == [["a"], ["b"]]
        await bucket.publish(database, ("items", "b", None), ("items", "c", {"name": "late"}))
        assert await rows(database, "SELECT id FROM ps_untyped ORDER BY id") == [["a"], ["c"]]
        await database.execute("CREATE TABLE items(id TEXT PRIMARY KEY, name TEXT)")
        await database.create_raw_table_triggers("items")
        assert await rows(database, "SELECT * FROM items ORDER BY id") == [["a", "early"], ["c", "late"]]
        assert await rows(database, "SELECT * FROM ps_untyped") == []
        assert await queue(database) == []


async def test_rows_that_wait_are_moved_when_the_file_is_opened_or_a_checkpoint_comes(tmp_path: Path) -> None:
    bucket = Bucket()
    async with opened(tmp_path) as database:
        await bucket.publish(database, ("items", "a", {"name": "x"}))
        await database.execute("CREATE TABLE items(id TEXT PRIMARY KEY, name TEXT NOT NULL)")
    async with opened(tmp_path, ITEMS) as database:
        assert await rows(database, "SELECT * FROM items") == [["a", "x"]]
    async with opened(tmp_path) as database:
        await bucket.publish(database, ("items", "b", {"name": None}), ("items", "c", {"name": "y"}))
    async with opened(tmp_path, ITEMS) as database:  # a row that the table refuses does not keep the file shut
        assert await rows(database, "SELECT id FROM ps_untyped ORDER BY id") == [["b"], ["c"]]
        assert await rows(database, "SELECT * FROM items") == [["a", "x"]]
        await database.execute("UPDATE ps_untyped SET data = '{\"name\": \"mended\"}' WHERE id = 'b'")
        await bucket.publish(database, ("items", "d", {"name": "z"}))
        assert await rows(database, "SELECT * FROM items ORDER BY id") == [
            ["a", "x"],
            ["b", "mended"],
            ["c", "y"],
            ["d", "z"],
        ]


async def test_a_view_becomes_a_raw_table_and_a_view_again(tmp_path: Path) -> None:
    view = Table("items", [Column.text("name")])
    bucket = Bucket()
    async with opened(tmp_path, tables=(view,)) as database:
        await bucket.publish(database, ("items", "a", {"name": "one"}))
        await database.update_schema(Schema([], raw_tables=[ITEMS]))
        await database.execute("CREATE TABLE items(id TEXT PRIMARY KEY, name TEXT)")
        await database.create_raw_table_triggers("items")
        await bucket.publish(database, ("items", "b", {"name": "two"}))
        assert await rows(database, "SELECT * FROM items ORDER BY id") == [["a", "one"], ["b", "two"]]
        await database.execute("DROP TABLE items")
        await database.update_schema(Schema([view]))
        await bucket.publish(database)  # the service names a checkpoint whenever a client connects
        assert await rows(database, "SELECT * FROM items ORDER BY id") == [["a", "one"], ["b", "two"]]


async def test_a_table_that_got_a_column_is_filled_again(tmp_path: Path) -> None:
    async with opened(tmp_path, ITEMS) as database:
        await database.execute("CREATE TABLE items(id TEXT PRIMARY KEY, name TEXT)")
        bucket = Bucket()
        await bucket.publish(database, ("items", "a", {"name": "x", "size": 3}))
        await database.execute("ALTER TABLE items ADD COLUMN size INTEGER")
        await bucket.publish(database)
        assert await rows(database, "SELECT * FROM items") == [["a", "x", None]]
        await database.resync_raw_table("items")
        await bucket.publish(database)
        assert await rows(database, "SELECT * FROM items") == [["a", "x", 3]]


# With a service


async def test_an_edit_goes_up_and_the_services_version_comes_back(tmp_path: Path) -> None:
    """Two files on one service: what is written in the raw table of one is published in that of the other."""
    streams: asyncio.Queue[Exchange] = asyncio.Queue()
    uploaded: list[CrudEntry] = []
    answered = asyncio.Event()

    async def service(exchange: Exchange) -> None:
        if exchange.path == "/sync/checkpoint-request":
            await exchange.answer(200, {"data": {"checkpoint_request_id": exchange.json["checkpoint_request_id"]}})
            answered.set()
            return
        await exchange.begin_stream()
        await streams.put(exchange)
        await exchange.closed_by_client()

    async def upload(database: PowerSyncDatabase) -> None:
        async for transaction in database.crud_transactions():
            uploaded.extend(transaction.crud)
            await transaction.complete()

    def lines(description: str, **more: Any) -> list[dict[str, Any]]:
        data = {"id": "t", "description": description, "completed": 0}
        operation = {"op_id": "1", "op": "PUT", "object_type": "todos", "object_id": "t", "checksum": 7, "subkey": "s"}
        buckets = [{"bucket": "b", "checksum": 7, "count": 1, "priority": 3}]
        return [
            {"checkpoint": {"last_op_id": "1", "buckets": buckets, "streams": [], **more}},
            {"data": {"bucket": "b", "data": [{**operation, "data": json.dumps(data)}]}},
            {"checkpoint_complete": {"last_op_id": "1"}},
        ]

    schema = Schema([LISTS], raw_tables=[RawTable("todos", RawTableSchema())])
    async with (
        PowerSyncDatabase(tmp_path / "one.db", schema) as one,
        PowerSyncDatabase(tmp_path / "two.db", schema) as two,
        scripted_service(service) as server,
    ):
        for database in (one, two):
            await database.execute(CREATE_TODOS)
            await database.create_raw_table_triggers("todos")
        await one.execute("INSERT INTO todos(id, description) VALUES ('t', 'Milk')")
        await one.connect(ServiceConnector(server.url, upload), QUICK)
        first = await within(10, streams.get())
        await within(10, answered.wait())
        assert [(entry.op, entry.table, entry.id, entry.data) for entry in uploaded] == [
            ("PUT", "todos", "t", {"description": "Milk"})
        ]
        await two.connect(ServiceConnector(server.url, upload), QUICK)
        second = await within(10, streams.get())
        for stream, more in ((first, {"write_checkpoint": "1"}), (second, {})):
            for line in lines("MILK", **more):
                await stream.send_line(line)
        for database in (one, two):
            await until_rows(database, "SELECT description, completed FROM todos", [["MILK", 0]])
            assert await queue(database) == []
            await database.disconnect()
        assert len(uploaded) == 1


async def test_a_refused_row_shows_in_the_status_and_is_tried_again(tmp_path: Path) -> None:
    async def service(exchange: Exchange) -> None:
        operation = {"op_id": "1", "op": "PUT", "object_type": "items", "object_id": "a", "checksum": 7, "subkey": "s"}
        buckets = [{"bucket": "b", "checksum": 7, "count": 1, "priority": 3}]
        await exchange.begin_stream()
        await exchange.send_line({"checkpoint": {"last_op_id": "1", "buckets": buckets, "streams": []}})
        await exchange.send_line({"data": {"bucket": "b", "data": [{**operation, "data": "{}"}]}})
        await exchange.send_line({"checkpoint_complete": {"last_op_id": "1"}})
        await exchange.closed_by_client()

    async with opened(tmp_path, ITEMS) as database, scripted_service(service) as server:
        await database.execute("CREATE TABLE items(id TEXT PRIMARY KEY, name TEXT NOT NULL)")
        await database.connect(ServiceConnector(server.url), QUICK)
        async with asyncio.timeout(10):
            async for status in database.watch_status():
                if isinstance(status.download_error, RawTableError):
                    break
        assert not database.status.has_synced
        await database.execute("DROP TABLE items")
        await database.execute("CREATE TABLE items(id TEXT PRIMARY KEY, name TEXT)")
        await database.wait_for_first_sync(10)
        assert await rows(database, "SELECT * FROM items") == [["a", None]]
        await database.disconnect()


async def test_watches_see_what_the_engine_puts_and_deletes(tmp_path: Path) -> None:
    async with opened(tmp_path, ITEMS) as database:
        async with database.write_transaction() as transaction:
            await transaction.execute("CREATE TABLE items(id TEXT PRIMARY KEY, name TEXT)")
        bucket = Bucket()
        watch = database.watch("SELECT name FROM items", throttle=0)
        assert await anext(watch) == []
        for operation, expected in (({"name": "x"}, [["x"]]), ({"name": "y"}, [["y"]]), (None, [])):
            await bucket.publish(database, ("items", "a", operation))
            assert [list(row) for row in await within(10, anext(watch))] == expected


# Validation


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RawTable("items"), "'items' has no schema"),
        (lambda: RawTable("", RawTableSchema()), "name of a raw table is empty"),
        (lambda: RawTable("items", RawTableSchema("ps_items")), "'items'.*'ps_items'"),
        (lambda: RawTable("items", RawTableSchema(synced_columns=["a", "A"])), "'items'.*'A' twice"),
        (lambda: RawTable("items", RawTableSchema(synced_columns=["id"])), "'items'.*'id'"),
        (
            lambda: RawTable("items", RawTableSchema(), delete=PendingStatement("DELETE", [column("x")])),
            "delete statement of raw table 'items'",
        ),
        (lambda: Schema([], raw_tables=[ITEMS, RawTable("ITEMS", RawTableSchema("other"))]), "'ITEMS' twice"),
        (lambda: Schema([Table("items", [])], raw_tables=[ITEMS]), "'items' twice"),
        (lambda: Schema([], raw_tables=[ITEMS, RawTable("x", RawTableSchema("items"))]), "'x' is stored in 'items'"),
        (lambda: Schema([Table("v", [])], raw_tables=[RawTable("x", RawTableSchema("V"))]), "'x' is stored in 'V'"),
    ],
)
def test_a_bad_schema_is_refused(make: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        make()
