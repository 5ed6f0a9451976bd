"""Raw tables: what is written in tables of the app's own is queued as writes of views are."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sync import (
    Column,
    PendingStatement,
    PowerSyncDatabase,
    RawTable,
    RawTableError,
    RawTableSchema,
    SchemaError,
    Table,
    TrackPreviousValues,
)
from tests.sync.rig import rows, until_rows
from tests.sync.storage.raw_tables import ID, ITEMS, Bucket, opened, queue


@pytest.fixture
async def goods(tmp_path: Path) -> Any:
    """A raw table with triggers, called otherwise than the synced one, with a column of the app's own."""
    table = RawTable("items", RawTableSchema("goods", synced_columns=["name", "size"]))
    async with opened(tmp_path, table) as database:
        await database.execute(
            "CREATE TABLE goods(id TEXT PRIMARY KEY, name TEXT COLLATE NOCASE, size, seen INTEGER DEFAULT 0)"
        )
        await database.create_raw_table_triggers("items")
        yield database


async def test_local_writes_are_queued_as_those_of_views(goods: PowerSyncDatabase) -> None:
    await goods.execute("INSERT INTO goods(id, name, size, seen) VALUES ('a', json('[1]'), ?, 1)", [0.1 + 0.2])
    await goods.execute("UPDATE goods SET name = '[1] ', size = ?", [2**63 - 1])
    await goods.execute("UPDATE goods SET size = NULL, seen = 2")
    await goods.execute("DELETE FROM goods")
    assert await queue(goods) == [
        {"op": "PUT", "id": "a", "type": "items", "data": {"name": "[1]", "size": 0.1 + 0.2}},
        {"op": "PATCH", "id": "a", "type": "items", "data": {"name": "[1] ", "size": 2**63 - 1}},
        {"op": "PATCH", "id": "a", "type": "items", "data": {"size": None}},
        {"op": "DELETE", "id": "a", "type": "items"},
    ]
    assert await rows(goods, "SELECT tx_id FROM ps_crud ORDER BY id") == [[1], [2], [3], [4]]
    assert await rows(goods, "SELECT row_type, row_id FROM ps_updated_rows") == [["items", "a"]]
    assert await rows(goods, "SELECT key, value FROM ps_kv WHERE key <> 'client_id'") == [
        ["target_checkpoint_request_id", 9223372036854775807]
    ]


async def test_updates_of_the_apps_own_columns_are_not_queued(goods: PowerSyncDatabase) -> None:
    await goods.execute("INSERT INTO goods(id, name) VALUES ('a', 'x')")
    await goods.execute("UPDATE goods SET seen = 5")
    await goods.execute("UPDATE goods SET name = 'X'")  # equal to SQLite by the column's collation, and yet a change
    assert [(entry["op"], entry["data"]) for entry in await queue(goods)] == [
        ("PUT", {"name": "x"}),
        ("PATCH", {"name": "X"}),
    ]


@pytest.mark.parametrize("clause", ["", "OR IGNORE", "OR REPLACE", "OR FAIL", "OR ROLLBACK"])
async def test_conflict_clauses_change_nothing_in_what_is_recorded(goods: PowerSyncDatabase, clause: str) -> None:
    await goods.execute("INSERT INTO goods(id, name) VALUES ('a', 'x')")
    await goods.execute(f"INSERT {clause} INTO goods(id, name) VALUES ('b', 'y')")
    await goods.execute(f"UPDATE {clause} goods SET name = 'z' WHERE id = 'a'")
    assert [(entry["op"], entry["id"]) for entry in await queue(goods)] == [("PUT", "a"), ("PUT", "b"), ("PATCH", "a")]
    assert await rows(goods, "SELECT value FROM ps_kv WHERE key = 'target_checkpoint_request_id'") == [[2**63 - 1]]


async def test_an_upsert_is_queued_as_what_it_did(goods: PowerSyncDatabase) -> None:
    upsert = "INSERT INTO goods(id, name) VALUES ('a', ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
    await goods.execute_many(upsert, [["x"], ["y"]])
    assert [(entry["op"], entry["data"]) for entry in await queue(goods)] == [
        ("PUT", {"name": "x"}),
        ("PATCH", {"name": "y"}),
    ]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("INSERT INTO goods(id, name) VALUES (NULL, 'x')", "id is required"),
        ("INSERT INTO goods(id, name) VALUES (x'00', 'x')", "id should be text"),
        ("UPDATE goods SET id = 'other'", "cannot be changed"),
    ],
)
async def test_bad_ids_are_refused(goods: PowerSyncDatabase, sql: str, message: str) -> None:
    await goods.execute("INSERT INTO goods(id, name) VALUES ('a', 'x')")
    with pytest.raises(sqlite3.IntegrityError, match=message):
        await goods.execute(sql)
    assert await rows(goods, "SELECT id FROM goods") == [["a"]]
    assert len(await queue(goods)) == 1


async def test_any_sqlite_client_may_write(goods: PowerSyncDatabase) -> None:
    with closing(sqlite3.connect(goods.path)) as other, other:
        other.execute("INSERT INTO goods(id, name) VALUES ('a', 'From a shell')")
    await until_rows(goods, "SELECT name FROM goods", [["From a shell"]])
    assert [entry["data"] for entry in await queue(goods)] == [{"name": "From a shell"}]


async def test_previous_values(tmp_path: Path) -> None:
    tables = {
        "everything": True,
        "chosen": TrackPreviousValues(["a"]),
        "changed": TrackPreviousValues(only_when_changed=True),
    }
    raw = [RawTable(name, RawTableSchema(track_previous_values=tracked)) for name, tracked in tables.items()]
    async with opened(tmp_path, *raw) as database:
        for name in tables:
            await database.execute(f"CREATE TABLE {name}(id TEXT PRIMARY KEY, a TEXT, b TEXT)")
            await database.create_raw_table_triggers(name)
            await database.execute(f"INSERT INTO {name} VALUES ('x', 'one', NULL)")
            await database.execute(f"UPDATE {name} SET b = 'two'")
            await database.execute(f"DELETE FROM {name}")
        found = [entry async for transaction in database.crud_transactions() for entry in transaction.crud]
        assert [(entry.table, entry.op, entry.previous_values) for entry in found] == [
            ("everything", "PUT", None),
            ("everything", "PATCH", {"a": "one", "b": None}),
            ("everything", "DELETE", {"a": "one", "b": "two"}),
            ("chosen", "PUT", None),
            ("chosen", "PATCH", {"a": "one"}),
            ("chosen", "DELETE", {"a": "one"}),
            ("changed", "PUT", None),
            ("changed", "PATCH", {"b": None}),
            ("changed", "DELETE", {"a": "one", "b": "two"}),
        ]


async def test_empty_updates_and_insert_only(tmp_path: Path) -> None:
    plain, ignoring = ITEMS, RawTable("quiet", RawTableSchema(ignore_empty_updates=True))
    log = RawTable("log", RawTableSchema(insert_only=True))
    async with opened(tmp_path, plain, ignoring, log) as database:
        for name in ("items", "quiet", "log"):
            await database.execute(f"CREATE TABLE {name}(id TEXT PRIMARY KEY, a TEXT)")
            await database.create_raw_table_triggers(name)
        await database.execute("INSERT INTO log VALUES ('l', 'x')")
        assert await rows(database, "SELECT key FROM ps_kv") == [["client_id"]]  # the gate stays open
        assert await rows(database, "SELECT * FROM ps_updated_rows") == []
        for sql in ("UPDATE log SET a = 'y'", "DELETE FROM log"):
            with pytest.raises(sqlite3.IntegrityError, match="insert-only"):
                await database.execute(sql)
        for name in ("items", "quiet"):
            await database.execute(f"INSERT INTO {name} VALUES ('i', 'x')")
            await database.execute(f"UPDATE {name} SET a = 'x'")
        assert [(entry["type"], entry["op"], entry["data"]) for entry in await queue(database)] == [
            ("log", "PUT", {"a": "x"}),
            ("items", "PUT", {"a": "x"}),
            ("items", "PATCH", {}),
            ("quiet", "PUT", {"a": "x"}),
        ]


async def test_a_table_of_very_many_columns(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(1200)]
    async with opened(tmp_path, ITEMS) as database:
        await database.execute(f"CREATE TABLE items(id TEXT PRIMARY KEY, {', '.join(names)})")
        await database.create_raw_table_triggers("items")
        await Bucket().publish(database, ("items", "a", {"c0": 1, "c1199": 2}))
        await database.execute("UPDATE items SET c1199 = 3, c600 = 4")
        assert [entry["data"] for entry in await queue(database)] == [{"c600": 4, "c1199": 3}]


async def test_triggers_are_made_anew_only_if_they_differ(tmp_path: Path) -> None:
    async with opened(tmp_path, ITEMS) as database:
        await database.execute("CREATE TABLE items(id TEXT PRIMARY KEY, a TEXT)")
        await database.execute("CREATE TRIGGER mine AFTER INSERT ON items BEGIN SELECT 1; END")
        await database.execute(
            "CREATE TRIGGER official AFTER INSERT ON items WHEN NOT powersync_in_sync_operation() BEGIN SELECT 1; END"
        )
        await database.create_raw_table_triggers("items")
        names = "SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
        assert await rows(database, names) == [["items_delete"], ["items_insert"], ["items_update"], ["mine"]]
        version = await rows(database, "PRAGMA schema_version")
        await database.create_raw_table_triggers("items")
        assert await rows(database, "PRAGMA schema_version") == version
        await database.execute("ALTER TABLE items ADD COLUMN b TEXT")
        await database.create_raw_table_triggers("items")
        await database.execute("INSERT INTO items VALUES ('x', 'one', 'two')")
        assert [entry["data"] for entry in await queue(database)] == [{"a": "one", "b": "two"}]


async def test_triggers_need_a_table_and_a_schema(tmp_path: Path) -> None:
    put = PendingStatement("INSERT INTO x VALUES (?)", [ID])
    bare = RawTable("bare", put=put, delete=PendingStatement("DELETE FROM x WHERE id = ?", [ID]))
    async with opened(tmp_path, ITEMS, bare) as database:
        for name, error, message in (
            ("items", RawTableError, "create it first"),
            ("bare", SchemaError, "has no schema"),
            ("other", SchemaError, "no raw table 'other'"),
        ):
            with pytest.raises(error, match=message):
                await database.create_raw_table_triggers(name)


RECORDED = Table("notes", [Column.text("text")], track_previous_values=True, track_metadata=True)
LOGGED = Table("log", [Column.text("text")], insert_only=True)


@pytest.mark.parametrize("target", ["items", "ps_data__things"])
async def test_what_triggers_of_the_app_write_while_the_engine_publishes_is_no_edit(
    tmp_path: Path, target: str
) -> None:
    """Triggers on a raw table, or on the table behind a view, may write views: nobody has edited these."""
    kept = RawTable("kept", RawTableSchema())
    clear_all = RawTable("items", RawTableSchema(), clear="DELETE FROM items")
    async with opened(tmp_path, clear_all, kept, tables=(RECORDED, LOGGED, Table("things", []))) as database:
        for name in ("items", "kept"):
            await database.execute(f"CREATE TABLE {name}(id TEXT PRIMARY KEY, name TEXT)")
        await database.create_raw_table_triggers("kept")
        for name, body in (
            (
                "INSERT",
                """INSERT INTO notes(id, text) SELECT NEW.id, 'x' UNION ALL SELECT NEW.id || '2', 'y';
                INSERT INTO log(id, text) VALUES (NEW.id, 'x'), (NEW.id || '2', 'y');
                INSERT INTO kept(id, name) VALUES (NEW.id, 'x');
                UPDATE notes SET text = 'z' WHERE id = NEW.id""",
            ),
            (
                "DELETE",
                "DELETE FROM notes WHERE id = OLD.id; UPDATE notes SET _deleted = TRUE WHERE id = OLD.id || '2'",
            ),
        ):
            await database.execute(f"CREATE TRIGGER app_{name} AFTER {name} ON {target} BEGIN {body}; END")
        bucket = Bucket()
        service_table = target.removeprefix("ps_data__")
        for row in ("a", "b"):
            await bucket.publish(database, (service_table, row, {"name": "n"}))
        assert await rows(database, "SELECT id, text FROM notes ORDER BY id") == [
            ["a", "z"], ["a2", "y"], ["b", "z"], ["b2", "y"]
        ]  # fmt: skip
        await bucket.publish(database, (service_table, "a", None))
        assert await rows(database, "SELECT id FROM notes ORDER BY id") == [["b"], ["b2"]]
        assert await rows(database, "SELECT id FROM kept ORDER BY id") == [["a"], ["b"]]
        assert await queue(database) == []
        assert await rows(database, "SELECT key FROM ps_kv") == [["client_id"]]
        await database.disconnect_and_clear()
        assert await queue(database) == []
        # And the user's own edits are recorded as ever.
        await database.execute("INSERT INTO notes(id) VALUES ('mine')")
        assert [entry["id"] for entry in await queue(database)] == ["mine"]


async def test_an_id_is_not_changed_to_one_that_the_tables_collation_takes_for_equal(tmp_path: Path) -> None:
    async with opened(tmp_path, ITEMS) as database:
        await database.execute("CREATE TABLE items(id TEXT PRIMARY KEY COLLATE NOCASE, name TEXT)")
        await database.create_raw_table_triggers("items")
        await database.execute("INSERT INTO items(id) VALUES ('a')")
        with pytest.raises(sqlite3.IntegrityError, match="cannot be changed"):
            await database.execute("UPDATE items SET id = 'A'")


async def test_columns_of_the_apps_own_table_may_have_any_name(tmp_path: Path) -> None:
    async with opened(tmp_path, RawTable("odd", RawTableSchema())) as database:
        async with database.write_transaction() as tx:
            await tx.execute("""CREATE TABLE odd(id TEXT PRIMARY KEY, "a""b" TEXT, "it's" TEXT, "back\\" TEXT)""")
        await database.create_raw_table_triggers("odd")
        await database.execute("INSERT INTO odd VALUES ('1', 'x', 'y', 'z')")
        await database.execute("""UPDATE odd SET "a""b" = 'new'""")
        assert [entry["data"] for entry in await queue(database)] == [
            {'a"b': "x", "it's": "y", "back\\": "z"},
            {'a"b': "new"},
        ]
