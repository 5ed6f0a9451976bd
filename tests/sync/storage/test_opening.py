"""Opening: new files, files of others, changed schemas."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from sync import Column, DatabaseOpenError, Index, PowerSyncDatabase, Schema, Table
from tests.sync.rig import SCHEMA, rows


async def test_a_new_file_is_private_and_of_version_14(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    async with PowerSyncDatabase(path, SCHEMA) as database:
        assert await rows(database, "SELECT min(id), max(id), count(*) FROM ps_migration") == [[1, 14, 14]]
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert await rows(database, "PRAGMA journal_mode") == [["wal"]]


async def test_the_client_id_is_kept(tmp_path: Path) -> None:
    ids: list[str] = []
    for _ in range(2):
        async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
            ids.append((await rows(database, "SELECT value FROM ps_kv WHERE key = 'client_id'"))[0][0])
    assert ids[0] == ids[1]


async def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    async def schema_version(database: PowerSyncDatabase) -> int:
        return (await rows(database, "PRAGMA schema_version"))[0][0]

    async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
        await database.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home')")
        first = await schema_version(database)
    async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
        assert await schema_version(database) == first
        assert await rows(database, "SELECT name FROM lists") == [["Home"]]
        assert database.status.upload_queue_count == 1


async def test_a_changed_schema_keeps_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    one = Schema([Table("a", [Column.text("x")], indexes=[Index("i", ["x"])]), Table("b", [Column.text("x")])])
    two = Schema([Table("a", [Column.text("x"), Column.integer("y")])])
    async with PowerSyncDatabase(path, one) as database:
        await database.execute("INSERT INTO a(id, x) VALUES ('1', 'a1')")
        await database.execute("INSERT INTO b(id, x) VALUES ('1', 'b1')")
    async with PowerSyncDatabase(path, two) as database:
        assert await rows(database, "SELECT id, x, y FROM a") == [["1", "a1", None]]
        assert await rows(database, "SELECT type, id FROM ps_untyped") == [["b", "1"]]
        assert await rows(database, "SELECT name FROM sqlite_master WHERE name GLOB 'ps_data_*__i'") == []
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await database.get_all("SELECT * FROM b")
        await database.execute("UPDATE a SET y = 2")
    async with PowerSyncDatabase(path, one) as database:
        assert await rows(database, "SELECT id, x FROM b") == [["1", "b1"]]
        assert await rows(database, "SELECT * FROM ps_untyped") == []
        plan = await rows(database, "EXPLAIN QUERY PLAN SELECT * FROM a WHERE x = 'a1'")
        assert "ps_data__a__i" in plan[0][-1]


async def test_a_file_that_is_not_sqlite_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("my notes, not a database at all " * 100)
    with pytest.raises(DatabaseOpenError, match=f"{path} is not a SQLite database"):
        await PowerSyncDatabase(path, SCHEMA).open()
    assert path.read_text().startswith("my notes")


async def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseOpenError, match="No such file or directory"):
        await PowerSyncDatabase(tmp_path / "missing" / "c.db", SCHEMA).open()


@pytest.mark.parametrize("version", [13, 15])
async def test_a_version_that_the_file_only_claims_to_have_is_refused_and_untouched(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "c.db"
    async with PowerSyncDatabase(path, SCHEMA):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM ps_migration WHERE id > ?", (version,))
        connection.execute("INSERT OR IGNORE INTO ps_migration(id) VALUES (?)", (version,))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    before = path.read_bytes()
    with pytest.raises(DatabaseOpenError, match=f"version {version}"):
        await PowerSyncDatabase(path, Schema([])).open()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["c.db"]


async def test_a_database_object_is_opened_once(tmp_path: Path) -> None:
    database = PowerSyncDatabase(tmp_path / "c.db", SCHEMA)
    await database.open()
    await database.close()
    with pytest.raises(DatabaseOpenError, match="opened before"):
        await database.open()


async def test_in_memory() -> None:
    async with PowerSyncDatabase(":memory:", SCHEMA) as database:
        await database.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home')")
        watch = database.watch("SELECT name FROM lists", throttle=0)
        assert [tuple(row) for row in await anext(watch)] == [("Home",)]
        await database.execute("DELETE FROM lists")
        assert await anext(watch) == []
