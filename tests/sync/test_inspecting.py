"""Looking at a file from outside: what is told of it, in whatever state it is, and that nothing changes."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sync import FileInspection, OpenProcess, PowerSyncDatabase, Schema, inspect
from tests.kit.device_data import SCHEMA, fill
from tests.kit.pages import leaves, spoil
from tests.kit.small_service import SmallConnector, small_service
from tests.kit.versions import restore
from tests.sync.rig import QUICK, rows


def stamps(path: Path) -> list[tuple[bytes, int]]:
    """The bytes and the time of the last change, of the file and its log."""
    files = [file for file in (path, path.with_name(f"{path.name}-wal")) if file.exists()]
    return [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]


async def look(path: Path, *, full: bool = False) -> FileInspection:
    """Inspect a file; nothing of it changes."""
    before = stamps(path)
    found = await asyncio.to_thread(inspect, path, full=full)
    assert stamps(path)[: len(before)] == before
    return found


@pytest.mark.parametrize("full", [False, True])
async def test_a_file_in_use(tmp_path: Path, full: bool) -> None:
    path, link = tmp_path / "c.db", tmp_path / "link.db"
    link.symlink_to(path)
    async with PowerSyncDatabase(path, SCHEMA) as database:
        await fill(database)
        found = await look(link, full=full)
        assert found.path == path
        assert (found.exists, found.unreadable, found.damage, found.is_damaged) == (True, None, (), False)
        assert (found.size, found.log_size) == (path.stat().st_size, (tmp_path / "c.db-wal").stat().st_size)
        assert found.log_size > 0
        assert (found.schema_version, found.queue_length, found.rejected_writes, found.conflicts) == (14, 6, 1, 1)
        assert found.queue_oldest_at is not None
        assert timedelta(0) <= datetime.now(UTC) - found.queue_oldest_at < timedelta(minutes=5)
        assert found.gate == (await database.explain_sync()).gate
        assert (found.client_id, found.user_id) == (await database.client_id(), "user-1")
        assert (found.bucket_count, found.last_synced_at, found.syncing_process) == (0, None, None)
        assert [process.pid for process in found.open_in] == [os.getpid()]
        transaction = database.write_transaction()
        async with transaction as writing:
            await writing.execute("INSERT INTO lists(id, name) VALUES ('open', '')")
            assert (await look(path)).queue_length == 6
    closed = await look(path)
    assert (closed.queue_length, closed.open_in, closed.log_size) == (7, (), 0)


async def test_a_file_that_is_synced(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    async with small_service() as service, PowerSyncDatabase(path, SCHEMA) as database:
        connector = SmallConnector(service.url)
        await database.connect(connector, QUICK)
        await database.wait_for_first_sync(10)
        found = await asyncio.to_thread(inspect, path)
        assert found.syncing_process == os.getpid()
        assert found.last_synced_at == database.status.last_synced_at
        assert found.gate is not None
        assert found.gate.is_open
        await connector.aclose()


async def test_damage_hides_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    async with PowerSyncDatabase(path, SCHEMA) as database:
        await fill(database)
    spoil(path, *leaves(path, "ps_crud"))
    found = await look(path)
    assert found.is_damaged
    assert (found.schema_version, found.queue_length, found.gate) == (14, None, None)
    assert (found.rejected_writes, found.conflicts, found.user_id) == (1, 1, "user-1")


async def test_a_damaged_page_is_found_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    async with PowerSyncDatabase(path, SCHEMA) as database:
        await fill(database)
    spoil(path, leaves(path, "ps_data__lists")[0])
    found = await look(path)
    assert found.is_damaged
    assert found.queue_length == 6


async def test_what_is_no_database(tmp_path: Path) -> None:
    missing = await asyncio.to_thread(inspect, tmp_path / "c.db")
    assert missing == FileInspection(tmp_path / "c.db", exists=False)
    path = tmp_path / "notes.db"
    path.write_text("my notes, not a database at all " * 100)
    found = await look(path)
    assert found.damage == ("file is not a database",)
    assert (found.schema_version, found.queue_length) == (None, None)
    directory = await asyncio.to_thread(inspect, tmp_path)
    assert directory.unreadable is not None
    assert not directory.is_damaged


@pytest.mark.parametrize("version", [1, 4, 9, 13])
async def test_files_of_older_versions(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.db"
    restore(version, path)
    found = await look(path)
    assert (found.damage, found.schema_version) == ((), version)
    assert found.queue_length is not None
    assert (found.rejected_writes, found.conflicts) == (0, 0)


async def test_a_file_opened_by_a_link_keeps_its_log_short(tmp_path: Path) -> None:
    path, link = tmp_path / "c.db", tmp_path / "link.db"
    link.symlink_to(path)
    async with PowerSyncDatabase(link, Schema([])) as database:
        await database.execute("CREATE TABLE own(x)")
        for _ in range(12):
            await database.execute("INSERT INTO own VALUES (randomblob(1 << 20))")
        while path.stat().st_size < 6 << 20:  # the log is moved into the file while both are in use
            await asyncio.sleep(0.01)
        assert await rows(database, "SELECT count(*) FROM own") == [[12]]


def test_a_process_is_named_with_its_program() -> None:
    assert str(OpenProcess(7, "todo-tui")) == "todo-tui (process 7)"
    assert str(OpenProcess(7, None)) == "process 7"
