"""What the triggers record of a local write, whoever makes it."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from sync import Column, NestedUseError, PowerSyncDatabase, Schema, Table
from tests.sync.rig import SCHEMA, rows, until_rows
from tests.sync.storage.plain import database_of, entries, make, plain, transaction_ids

UNKNOWN = 9223372036854775807


async def queue(database: PowerSyncDatabase) -> list[tuple[int, dict[str, Any]]]:
    return [(tx, json.loads(data)) for tx, data in await rows(database, "SELECT tx_id, data FROM ps_crud ORDER BY id")]


async def test_put_carries_the_non_null_columns(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO todos(id, description, completed) VALUES ('t', 'Milk', 0)")
    assert await queue(database) == [
        (1, {"op": "PUT", "id": "t", "type": "todos", "data": {"description": "Milk", "completed": 0}})
    ]


async def test_patch_carries_what_changed_and_null_for_cleared_columns(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO todos(id, description, completed_at, completed) VALUES ('t', 'Milk', 'now', 1)")
    await database.execute("UPDATE todos SET description = 'Oat milk', completed_at = NULL, completed = 1")
    assert (await queue(database))[1] == (
        2,
        {"op": "PATCH", "id": "t", "type": "todos", "data": {"description": "Oat milk", "completed_at": None}},
    )


async def test_delete_carries_no_data(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO todos(id, description) VALUES ('t', 'Milk')")
    await database.execute("DELETE FROM todos WHERE id = 't'")
    assert (await queue(database))[1] == (2, {"op": "DELETE", "id": "t", "type": "todos"})
    assert await rows(database, "SELECT * FROM todos") == []


async def test_all_entries_of_a_transaction_share_its_id(database: PowerSyncDatabase) -> None:
    await database.execute_many(
        "INSERT INTO todos(id, description) VALUES (?, ?)", [(str(number), "x") for number in range(3)]
    )
    await database.execute("UPDATE todos SET completed = 1")
    async with database.write_transaction() as transaction:
        await transaction.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home')")
        await transaction.execute("DELETE FROM todos WHERE id = '0'")
    assert [tx for tx, _ in await queue(database)] == [1, 1, 1, 2, 2, 2, 3, 3]


async def test_a_rolled_back_transaction_leaves_nothing(database: PowerSyncDatabase) -> None:
    async def fail() -> None:
        async with database.write_transaction() as transaction:
            await transaction.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await rows(database, "SELECT * FROM lists") == []
    assert await queue(database) == []
    await database.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home')")
    assert [tx for tx, _ in await queue(database)] == [1]


async def test_a_write_closes_the_gate_and_forgets_older_checkpoints(database: PowerSyncDatabase) -> None:
    await database.execute(
        "INSERT INTO ps_kv(key, value) VALUES ('target_checkpoint_request_id', 3),"
        " ('last_seen_checkpoint_request_id', 3), ('last_applied_checkpoint_request_id', 3),"
        " ('last_requested_checkpoint_request_id', 3)"
    )
    await database.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home')")
    assert await rows(database, "SELECT key, value FROM ps_kv WHERE key <> 'client_id' ORDER BY key") == [
        ["last_requested_checkpoint_request_id", 3],
        ["target_checkpoint_request_id", UNKNOWN],
    ]
    assert await rows(database, "SELECT row_type, row_id FROM ps_updated_rows") == [["lists", "l"]]


@pytest.mark.parametrize("clause", ["", "OR IGNORE", "OR ABORT", "OR FAIL", "OR ROLLBACK", "OR REPLACE"])
@pytest.mark.parametrize("verb", ["INSERT", "UPDATE"])
async def test_a_conflict_clause_of_the_app_changes_nothing_in_what_is_recorded(
    database: PowerSyncDatabase, verb: str, clause: str
) -> None:
    """SQLite hands the clause of the outer statement down to the triggers' own statements."""
    await database.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home')")
    await database.execute("DELETE FROM ps_crud")
    await database.execute("UPDATE ps_kv SET value = 3 WHERE key = 'target_checkpoint_request_id'")
    await database.execute("INSERT INTO ps_kv(key, value) VALUES ('last_seen_checkpoint_request_id', 3)")
    if verb == "INSERT":
        await database.execute(f"INSERT {clause} INTO lists(id, name) VALUES ('new', 'Garden')")
        expected = {"op": "PUT", "id": "new", "type": "lists", "data": {"name": "Garden"}}
    else:
        await database.execute(f"UPDATE {clause} lists SET name = 'House'")
        expected = {"op": "PATCH", "id": "l", "type": "lists", "data": {"name": "House"}}
    assert [entry for _, entry in await queue(database)] == [expected]
    assert await rows(database, "SELECT key, value FROM ps_kv WHERE key <> 'client_id'") == [
        ["target_checkpoint_request_id", UNKNOWN]
    ]


async def test_an_ignored_insert_uploads_nothing(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home')")
    await database.execute("INSERT OR IGNORE INTO lists(id, name) VALUES ('l', 'Other'), ('m', 'New')")
    assert await rows(database, "SELECT id, name FROM lists ORDER BY id") == [["l", "Home"], ["m", "New"]]
    assert [entry["id"] for _, entry in await queue(database)] == ["l", "m"]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("INSERT INTO lists(id, name) VALUES (NULL, 'x')", "id is required"),
        ("INSERT INTO lists(id, name) VALUES (7, 'x')", "id should be text"),
        ("UPDATE lists SET id = 'other'", "cannot be changed"),
    ],
)
async def test_bad_ids_are_refused(database: PowerSyncDatabase, sql: str, message: str) -> None:
    await database.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home')")
    with pytest.raises(sqlite3.IntegrityError, match=message):
        await database.execute(sql)
    assert await rows(database, "SELECT id, name FROM lists") == [["l", "Home"]]
    assert len(await queue(database)) == 1


async def test_values_survive_exactly(tmp_path: Path) -> None:
    schema = Schema([Table("v", [Column.integer("i"), Column.real("r"), Column.text("t")])])
    async with PowerSyncDatabase(tmp_path / "v.db", schema) as database:
        text = 'quotes "\' and {"json": 1}, a\\b, \x1b[31m, \u202e, 🦄'
        values = [2**63 - 1, 0.1 + 0.2, text]
        await database.execute("INSERT INTO v(id, i, r, t) VALUES ('a', ?, ?, ?)", values)
        await database.execute("INSERT INTO v(id, t) VALUES ('b', json('{\"x\": [1]}'))")
        await database.execute("UPDATE v SET r = ?, i = ? WHERE id = 'b'", [-1e-300, -(2**63)])
        assert await rows(database, "SELECT i, r, t FROM v ORDER BY id") == [
            values,
            [-(2**63), -1e-300, '{"x":[1]}'],
        ]
        found = [entry async for transaction in database.crud_transactions() for entry in transaction.crud]
        assert [entry.data for entry in found] == [
            {"i": 2**63 - 1, "r": 0.1 + 0.2, "t": text},
            {"t": '{"x":[1]}'},
            {"i": -(2**63), "r": -1e-300},
        ]


async def test_local_only_tables_queue_nothing(tmp_path: Path) -> None:
    schema = Schema([Table("draft", [Column.text("t")], local_only=True)])
    async with PowerSyncDatabase(tmp_path / "l.db", schema) as database:
        await database.execute("INSERT INTO draft(id, t) VALUES ('a', 'x')")
        await database.execute("UPDATE draft SET t = 'y'")
        assert await rows(database, "SELECT id, t FROM draft") == [["a", "y"]]
        await database.execute("DELETE FROM draft")
        assert await rows(database, "SELECT * FROM draft") == []
        assert await queue(database) == []


async def test_any_sqlite_client_may_write(database: PowerSyncDatabase) -> None:
    """The edit is queued, and watches of this process see it."""
    with plain(database.path) as other:
        other.execute("BEGIN")
        other.execute("INSERT INTO lists(id, name) VALUES ('l', 'From a shell')")
        other.execute("INSERT INTO lists(id, name) VALUES ('m', 'In the same transaction')")
        other.execute("COMMIT")
    await until_rows(database, "SELECT id FROM lists ORDER BY id", [["l"], ["m"]])
    await database.execute("UPDATE lists SET name = 'Home' WHERE id = 'l'")
    assert [(tx, entry["op"]) for tx, entry in await queue(database)] == [(1, "PUT"), (1, "PUT"), (2, "PATCH")]


def test_each_new_connection_of_another_client_begins_a_transaction(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    make(path, SCHEMA)
    for number in range(3):
        with plain(path) as other:
            other.execute("INSERT INTO lists(id, name) VALUES (?, 'a'), (?, 'b')", (f"{number}a", f"{number}b"))
    with plain(path) as other:
        other.execute("BEGIN")
        other.execute("UPDATE lists SET name = 'c' WHERE id = '0a'")
        other.execute("DELETE FROM lists WHERE id = '0b'")
        other.execute("COMMIT")
        assert transaction_ids(other) == [1, 1, 2, 2, 3, 3, 4, 4]


def test_a_number_that_another_client_drew_is_not_used_again(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    make(path, SCHEMA)
    with plain(path) as other:
        other.execute("INSERT INTO lists(id) VALUES ('a')")
        # As the official clients do it: they count, and leave the current one alone.
        other.execute("INSERT INTO ps_crud(tx_id, data) SELECT next_tx, '{}' FROM ps_tx")
        other.execute("UPDATE ps_tx SET next_tx = next_tx + 1")
        other.execute("INSERT INTO lists(id) VALUES ('b'), ('c')")
        assert transaction_ids(other) == [1, 2, 3, 3]


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 shell is not installed")
def test_the_sqlite3_shell_may_write(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    make(path, SCHEMA)
    for sql in (
        "INSERT INTO todos(id, description) VALUES ('t', 'Milk')",
        "UPDATE todos SET completed = 1; DELETE FROM todos",
    ):
        done = subprocess.run(["sqlite3", path, sql], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
    with plain(path) as connection:
        assert entries(connection) == [
            {"op": "PUT", "id": "t", "type": "todos", "data": {"description": "Milk"}},
            {"op": "PATCH", "id": "t", "type": "todos", "data": {"completed": 1}},
            {"op": "DELETE", "id": "t", "type": "todos"},
        ]
        assert transaction_ids(connection) == [1, 2, 2]


def test_text_with_nul_is_queued_and_stored_whole() -> None:
    """What a view shows of it depends on SQLite: old versions end it at the NUL."""
    with database_of(SCHEMA) as connection:
        connection.execute("INSERT INTO lists(id, name) VALUES ('l', ?)", ("a\0b",))
        connection.execute("UPDATE lists SET owner_id = 'me'")
        assert [entry["data"] for entry in entries(connection)] == [{"name": "a\0b"}, {"owner_id": "me"}]
        (stored,) = connection.execute("SELECT data FROM ps_data__lists").fetchone()
        assert json.loads(stored) == {"name": "a\0b", "owner_id": "me"}


@pytest.mark.parametrize("number", [math.inf, -math.inf])
@pytest.mark.parametrize("sql", ["INSERT OR IGNORE INTO r(id, n) VALUES ('2', ?)", "UPDATE OR IGNORE r SET n = ?"])
def test_what_json_cannot_hold_is_refused(sql: str, number: float) -> None:
    with database_of(Schema([Table("r", [Column.real("n")])])) as connection:
        connection.execute("INSERT INTO r(id, n) VALUES ('1', 1)")
        with pytest.raises(sqlite3.IntegrityError, match="an infinite number cannot be stored"):
            connection.execute(sql, (number,))
        with pytest.raises(sqlite3.OperationalError, match="JSON cannot hold BLOB values"):
            connection.execute(sql, (b"blob",))
        assert connection.execute("SELECT * FROM r").fetchall() == [("1", 1.0)]
        assert len(entries(connection)) == 1


async def test_ids_are_made_by_sql_functions(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO lists(id, name) VALUES (uuid(), 'a'), (gen_random_uuid(), 'b')")
    ids = {row[0] for row in await rows(database, "SELECT id FROM lists")}
    assert len(ids) == 2
    assert all(uuid.UUID(text).version == 4 for text in ids)
    for uses in (database.get_all, database.execute):
        made = {value for _ in range(2) for value in next(iter(await uses("SELECT uuid(), gen_random_uuid()")))}
        assert len(made) == 4
        assert all(uuid.UUID(text).version == 4 for text in made)


async def test_the_transaction_object_is_the_only_handle_inside(database: PowerSyncDatabase) -> None:
    async with database.write_transaction() as transaction:
        for use in (database.execute("SELECT 1"), database.get_all("SELECT 1")):
            with pytest.raises(NestedUseError):
                await use
        await transaction.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home')")
        assert (await transaction.get("SELECT name FROM lists"))["name"] == "Home"
    assert await rows(database, "SELECT name FROM lists") == [["Home"]]
