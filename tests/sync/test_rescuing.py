"""A new file in place of a damaged one: what is carried over, what damage costs, and when it is refused."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sync import (
    DatabaseInUseError,
    DatabaseOpenError,
    PowerSyncDatabase,
    RescueError,
    Schema,
    Table,
    inspect,
    rescue,
)
from sync.schema.columns import Column
from sync.sqlite import openers
from tests.kit.device_data import SCHEMA, client_id, device_data, fill
from tests.kit.pages import leaves, spoil
from tests.sync.rig import rows

ROOT = Path(__file__).parents[2]


async def filled(path: Path) -> Path:
    async with PowerSyncDatabase(path, SCHEMA) as database:
        await fill(database)
    return path


@contextmanager
def open_elsewhere(path: Path) -> Generator[subprocess.Popen[bytes]]:
    """Another process that has the file open and does not sync."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kit.open_process", str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_all_that_only_this_device_has_is_carried_over(tmp_path: Path, is_damaged: bool) -> None:
    path = await filled(tmp_path / "c.db")
    path.chmod(0o640)
    before, old_client = device_data(path), client_id(path)
    assert all(before.values())
    if is_damaged:
        spoil(path, leaves(path, "ps_data__lists")[0])
    old_bytes = path.read_bytes()
    rescued = await asyncio.to_thread(rescue, path, SCHEMA)
    assert device_data(path) == before
    assert client_id(path) != old_client
    assert (rescued.queue_length, rescued.rejected_writes, rescued.conflicts) == (6, 1, 1)
    assert (rescued.local_rows, rescued.unread, rescued.left) == ({"notes": 1, "places": 2}, {}, ())
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (rescued.kept_in / "c.db").read_bytes()[100:] == old_bytes[100:]  # but for counters in the header
    assert len(json.loads((rescued.kept_in / "queue.json").read_text())) == 6
    assert {file.name for file in tmp_path.iterdir()} == {"c.db", rescued.kept_in.name}
    found = await asyncio.to_thread(inspect, path, full=True)
    assert (found.damage, found.user_id) == ((), "user-1")


async def test_the_new_file_goes_on_where_the_old_one_was(tmp_path: Path) -> None:
    path = await filled(tmp_path / "c.db")
    async with PowerSyncDatabase(path, SCHEMA) as database:
        transactions = [each.crud async for each in database.crud_transactions()]
        [rejected] = await database.rejected_writes()
    await asyncio.to_thread(rescue, path, SCHEMA)
    async with PowerSyncDatabase(path, SCHEMA) as database:
        assert [each.crud async for each in database.crud_transactions()] == transactions
        assert [each.export() for each in await database.rejected_writes()] == [rejected.export()]
        assert len(await database.conflicts()) == 1
        assert await rows(database, "SELECT name FROM lists WHERE id IN ('a', 'b')") == [["AA"]]
        explanation = await database.explain_sync()
        assert explanation.gate.is_target_unknown
        assert not explanation.gate.is_open
        await database.execute("INSERT INTO lists(id, name) VALUES ('c', 'C')")
        *_, last = [each.crud async for each in database.crud_transactions()]
        assert last[0].client_id > max(entry.client_id for crud in [*transactions, rejected.crud] for entry in crud)
        numbers = {entry.transaction_id for crud in [*transactions, rejected.crud] for entry in crud}
        assert last[0].transaction_id not in numbers
        async for transaction in database.crud_transactions():
            await transaction.reject("all of it")
        for write in await database.rejected_writes():
            assert await write.retry()
        assert (await database.upload_queue_stats()).entries == 9


async def test_what_another_client_has_cleared_stays_so(tmp_path: Path) -> None:
    path = await filled(tmp_path / "c.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM ps_kv WHERE key = 'keeps_records'")
    rescued = await asyncio.to_thread(rescue, path, SCHEMA)
    assert (rescued.queue_length, rescued.rejected_writes, rescued.conflicts) == (6, 0, 0)


async def test_a_rejected_write_whose_reason_is_lost_is_kept(tmp_path: Path) -> None:
    path = await filled(tmp_path / "c.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM ps_rejected_transactions")
    assert (await asyncio.to_thread(rescue, path, SCHEMA)).rejected_writes == 1
    async with PowerSyncDatabase(path, SCHEMA) as database:
        [rejected] = await database.rejected_writes()
        assert "could not be read" in rejected.reason
        assert [(entry.data or {})["name"] for entry in rejected.crud] == ["refused", "refused too"]


async def test_tables_that_stay_behind_are_named(tmp_path: Path) -> None:
    path = await filled(tmp_path / "c.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE own(x)")
    schema = Schema([Table("lists", [Column.text("name")]), Table("notes", [Column.text("text")], local_only=True)])
    rescued = await asyncio.to_thread(rescue, path, schema)
    assert (rescued.left, rescued.local_rows) == (("own", "places"), {"notes": 1})


# Damage


async def long_file(path: Path) -> None:
    """Hundreds of rows, so that each table has many pages."""
    async with PowerSyncDatabase(path, SCHEMA) as database:
        for start in range(0, 600, 20):
            values = ", ".join(f"('{number:04}', '{'x' * 200}')" for number in range(start, start + 20))
            await database.execute(f"INSERT INTO lists(id, name) VALUES {values}")
            await database.execute(f"INSERT INTO notes(id, text) VALUES {values}")
        await database.execute("DELETE FROM notes WHERE id LIKE '%3'")  # gaps in the numbers


@pytest.mark.parametrize("which", [[0], [4], [-1], [0, 3, 4, 9, -1], "all"])
@pytest.mark.parametrize("table", ["ps_crud", "ps_data_local__notes"])
async def test_a_damaged_page_costs_only_what_is_on_it(tmp_path: Path, table: str, which: list[int] | str) -> None:
    path = tmp_path / "c.db"
    await long_file(path)
    pages = leaves(path, table)
    assert len(pages) > 12
    spoiled = pages if isinstance(which, str) else [pages[number] for number in which]
    lost = {number for page in spoiled for number in page.numbers}
    with closing(sqlite3.connect(path)) as connection:
        expected = [
            row[1:] for row in connection.execute(f"SELECT rowid, * FROM {table} ORDER BY id") if row[0] not in lost
        ]
    spoil(path, *spoiled)
    rescued = await asyncio.to_thread(rescue, path, SCHEMA)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() == expected
    assert rescued.unread == {"upload queue" if table == "ps_crud" else "notes": len(lost)}
    assert (await asyncio.to_thread(inspect, path)).damage == ()


async def test_rows_that_are_no_longer_what_the_engine_wrote_are_left_out(tmp_path: Path) -> None:
    path = await filled(tmp_path / "c.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE ps_crud SET data = substr(data, 3) WHERE id = (SELECT max(id) FROM ps_crud)")
        connection.execute("DROP INDEX IF EXISTS ps_data_local__notes__i")
        connection.execute("UPDATE ps_data_local__places SET data = '{' WHERE id = 'a'")
    rescued = await asyncio.to_thread(rescue, path, SCHEMA)
    assert (rescued.queue_length, rescued.unread) == (5, {"upload queue": 1, "places": 1})


async def test_a_file_that_is_no_database_any_more(tmp_path: Path) -> None:
    path = await filled(tmp_path / "c.db")
    garbage = os.urandom(path.stat().st_size)
    path.write_bytes(garbage)
    rescued = await asyncio.to_thread(rescue, path, SCHEMA)
    assert (rescued.kept_in / "c.db").read_bytes() == garbage
    assert rescued.queue_length == 0
    async with PowerSyncDatabase(path, SCHEMA) as database:
        assert await rows(database, "SELECT * FROM lists") == []


# Who keeps it from happening


def test_a_file_that_is_open_elsewhere_is_left_alone_by_any_of_its_names(tmp_path: Path) -> None:
    path, link = tmp_path / "c.db", tmp_path / "link.db"
    link.symlink_to(path)
    with open_elsewhere(link) as process:
        before = device_data(path)
        for name in (path, link):
            with pytest.raises(
                DatabaseInUseError, match=rf"open in open_process.py \(process {process.pid}\)"
            ) as caught:
                rescue(name, SCHEMA)
            assert caught.value.processes == (process.pid,)
            assert [each.pid for each in inspect(name).open_in] == [process.pid]
        assert device_data(path) == before
        process.kill()
        process.wait()
        assert inspect(path).open_in == ()
        rescue(link, SCHEMA)
    assert device_data(path) == before
    assert link.is_symlink()
    assert not list(tmp_path.glob("*-open-*"))


async def test_a_file_that_this_process_has_open_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    async with PowerSyncDatabase(path, SCHEMA), PowerSyncDatabase(path, SCHEMA) as second:
        with pytest.raises(DatabaseInUseError, match=f"process {os.getpid()}"):
            await asyncio.to_thread(rescue, path, SCHEMA)
        await second.close()
        with pytest.raises(DatabaseInUseError, match=f"process {os.getpid()}"):
            await asyncio.to_thread(rescue, path, SCHEMA)
    await asyncio.to_thread(rescue, path, SCHEMA)


def test_a_file_that_another_program_has_open_is_left_alone(tmp_path: Path) -> None:
    path = asyncio.run(filled(tmp_path / "c.db"))
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM lists').fetchall(); "
    program += "print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(DatabaseInUseError, match="open in another program"):
            rescue(path, SCHEMA)
        process.kill()
    assert not list(tmp_path.glob("damaged-*"))
    rescue(path, SCHEMA)


async def test_a_directory_without_room_for_a_mark_can_be_opened_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.db"
    (tmp_path / f"c.db-open-{os.getpid()}").mkdir()
    async with PowerSyncDatabase(path, SCHEMA) as database:
        await fill(database)
        assert "others cannot see that" in caplog.text
        program = "import sys; from sync import rescue, Schema; rescue(sys.argv[1], Schema([]))"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(path)), cwd=ROOT, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        assert b"DatabaseInUseError" in errors
        assert await rows(database, "SELECT count(*) FROM ps_crud") == [[6]]


async def test_opening_waits_for_a_rescue_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await filled(tmp_path / "c.db")
    real = os.path.realpath(path)
    database = PowerSyncDatabase(path, SCHEMA)
    lock = openers.alone(real)
    await asyncio.to_thread(lock.__enter__)
    opening = asyncio.create_task(database.open())
    while not list(tmp_path.glob("*-open-*")):  # it has come, and is about to see that it must wait
        await asyncio.sleep(0)
    with pytest.raises(DatabaseInUseError, match="being rescued already, by"):
        await asyncio.to_thread(rescue, path, SCHEMA)
    monkeypatch.setattr(openers, "BUSY_TIMEOUT_SECONDS", 0)
    with pytest.raises(DatabaseInUseError, match=r"is being rescued by .*; open it again when that has ended"):
        await PowerSyncDatabase(path, SCHEMA).open()
    assert not opening.done()
    await asyncio.to_thread(lock.__exit__, None, None, None)
    await opening
    assert await rows(database, "SELECT count(*) FROM ps_crud") == [[6]]
    await database.close()
    assert [file.name for file in tmp_path.iterdir()] == ["c.db"]


async def test_what_cannot_be_done_leaves_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(DatabaseOpenError, match="There is no"):
        await asyncio.to_thread(rescue, tmp_path / "c.db", SCHEMA)
    path = await filled(tmp_path / "c.db")
    before = path.read_bytes()
    (tmp_path / "c.db-rescue").write_text("in the way")
    with pytest.raises(RescueError, match=r"File exists.*The old file is in its place"):
        await asyncio.to_thread(rescue, path, SCHEMA)
    assert path.read_bytes() == before


@pytest.mark.timeout(240)
def test_killed_at_any_line_it_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    template, copies = tmp_path / "template", tmp_path / "copies"
    template.mkdir()
    copies.mkdir()
    with open_elsewhere(template / "c.db"):
        pass  # killed: the file has a log
    assert (template / "c.db-wal").stat().st_size > 0
    (template / "whole").mkdir()
    shutil.copy(template / "c.db", template / "whole")
    shutil.copy(template / "c.db-wal", template / "whole")
    whole = template / "whole" / "c.db"
    before, old_client = device_data(whole), client_id(whole)
    assert all(before.values())
    done = subprocess.run(
        [sys.executable, "-m", "tests.kit.killed_rescue", str(template), str(copies)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    killed = int(done.stdout)
    assert killed > 40
    is_new: list[bool] = []
    for number in range(1, killed + 1):
        path = copies / str(number) / "c.db"
        assert device_data(path) == before, number
        found = inspect(path)
        assert (found.damage, found.open_in) == ((), ()), number
        is_new.append(client_id(path) != old_client)
        if not is_new[-1]:
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("SELECT count(*) FROM ps_data__lists").fetchone() == (5,), number
        if number % 10 == 0:
            rescue(path, SCHEMA)
            assert device_data(path) == before, number
    assert is_new == sorted(is_new)
    assert set(is_new) == {False, True}
