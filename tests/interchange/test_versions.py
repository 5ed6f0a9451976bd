"""Files of other versions: this engine and PowerSync's core make the same of them, upwards and downwards."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sync import PowerSyncDatabase
from tests.interchange.core import Core
from tests.interchange.rig import query_of
from tests.interchange.versions import dump, make
from tests.kit.contents import contents, everything, layout
from tests.kit.versions import VERSIONS, restore
from tests.sync.rig import SCHEMA


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_old_file_becomes_what_the_core_makes_of_it(version: int, tmp_path: Path) -> None:
    restore(version, tmp_path / "core.db")
    restore(version, tmp_path / "ours.db")
    with Core(tmp_path / "core.db") as core:
        core.open(SCHEMA)
        async with PowerSyncDatabase(tmp_path / "ours.db", SCHEMA):
            pass
        ours = query_of(tmp_path / "ours.db")
        assert contents(ours) == contents(core.execute)
        assert layout(ours) == layout(core.execute)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fixtures_are_what_the_core_makes(version: int, tmp_path: Path) -> None:
    restore(version, tmp_path / "fixture.db")
    make(tmp_path / "made.db", version)
    assert dump(tmp_path / "fixture.db") == dump(tmp_path / "made.db")


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_core_undoes_our_versions_as_it_undoes_its_own(version: int, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.db", tmp_path / "ours.db"
    restore(13, theirs)
    with Core(theirs) as core:
        core.open(SCHEMA)
        core.execute("PRAGMA journal_mode = DELETE")
    shutil.copy(theirs, ours)
    async with PowerSyncDatabase(tmp_path / "new.db", SCHEMA):
        pass
    records = query_of(tmp_path / "new.db")("SELECT down_migrations, id FROM ps_migration")
    assert [number for down, number in records if down is not None] == list(range(2, 15))
    async with PowerSyncDatabase(ours, SCHEMA):
        pass
    with closing(sqlite3.connect(ours)) as connection, connection:
        connection.executemany("UPDATE ps_migration SET down_migrations = ? WHERE id = ?", records)

    with Core(ours) as mine, Core(theirs) as core:
        for client in (mine, core):
            client.migrate_to(version)
        assert everything(mine.execute) == everything(core.execute)
        assert layout(mine.execute) == layout(core.execute)
        if version < 10:
            assert mine.execute("SELECT name FROM sqlite_master WHERE type IN ('view', 'trigger')") == []
        core.open(SCHEMA)
        expected = contents(core.execute)
    async with PowerSyncDatabase(ours, SCHEMA):
        pass
    assert contents(query_of(ours)) == expected


async def test_a_version_of_the_future_is_undone(tmp_path: Path) -> None:
    """The core records how to undo version 15; the file has its triggers, which call what only the core has."""
    path = tmp_path / "future.db"
    with Core(path) as core:
        core.open(SCHEMA)
        core.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home')")
        before = contents(core.execute)
        with core.transaction():
            core.execute("ALTER TABLE ps_buckets RENAME TO ps_chests")
            core.execute("CREATE TABLE ps_future(id INTEGER PRIMARY KEY)")
            down = ["SELECT powersync_drop_view(name) FROM sqlite_master WHERE type = 'view'", "DROP TABLE ps_future"]
            down += ["ALTER TABLE ps_chests RENAME TO ps_buckets", "DELETE FROM ps_migration WHERE id >= 15"]
            record = json.dumps([{"sql": sql, "params": []} for sql in down])
            core.execute("INSERT INTO ps_migration(id, down_migrations) VALUES (15, ?)", [record])
    async with PowerSyncDatabase(path, SCHEMA) as database:
        assert [entry.op async for found in database.crud_transactions() for entry in found.crud] == ["PUT"]
    assert contents(query_of(path)) == before
    assert "ps_future" not in layout(query_of(path))
