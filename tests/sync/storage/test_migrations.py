"""Files of other schema versions, of other programs, in the hands of others: brought to ours whole, or left alone."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sync import DatabaseOpenError, PowerSyncDatabase
from sync.sqlite import pool
from tests.kit.contents import contents
from tests.kit.versions import VERSIONS, restore
from tests.sync.rig import SCHEMA, rows

ROOT = Path(__file__).parents[3]

LISTS = "1#lists|0[]"
TODOS = '1#todos|0["11111111-1111-4111-8111-111111111111"]'

# The checksums that the service names for these buckets.
CHECKSUMS = [[LISTS, 3018729663], [TODOS, 1448548753]]

GATE_OF_VERSION_5_ON = [["last_applied_checkpoint_request_id", 2], ["last_seen_checkpoint_request_id", 3]]


def look(path: Path, sql: str) -> list[list[Any]]:
    with closing(sqlite3.connect(path, timeout=10)) as reader:
        return [list(row) for row in reader.execute(sql)]


def change(path: Path, *connection: str) -> None:
    with closing(sqlite3.connect(path)) as writer, writer:
        for sql in connection:
            writer.execute(sql)


def version_of(path: Path) -> int:
    return look(path, "SELECT max(id) FROM ps_migration")[0][0]


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_old_file_is_brought_to_version_14_with_all_that_is_in_it(version: int, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    restore(version, path)
    async with PowerSyncDatabase(path, SCHEMA) as database:
        assert await rows(database, "SELECT id, down_migrations IS NULL FROM ps_migration") == [
            [1, 1],
            *([number, 0] for number in range(2, 15)),
        ]
        assert await rows(database, "SELECT name FROM lists ORDER BY 1") == [["Groceries"], ["Ours ☃"], ["Work"]]
        gone = [["Gone"]] if version < 6 else []
        assert await rows(database, "SELECT description FROM todos ORDER BY 1") == [["Bread"], ["Eggs"], *gone]
        assert await rows(database, "SELECT * FROM ps_untyped") == [["notes", "n", '{"text":"No table"}']]

        queue = [transaction.crud async for transaction in database.crud_transactions()]
        together = [["PUT", "PATCH"], ["DELETE"]] if version >= 2 else [["PUT"], ["PATCH"], ["DELETE"]]
        assert [[entry.op for entry in crud] for crud in queue] == together
        assert (queue[0][0].id, queue[0][0].data) == ("mine", {"name": "Mine ☃"})

        sums = "SELECT name, (add_checksum + op_checksum) & 0xffffffff FROM ps_buckets ORDER BY name"
        assert await rows(database, sums) == CHECKSUMS
        assert await rows(database, "SELECT last_op, last_applied_op FROM ps_buckets") == [[6, 6], [6, 6]]
        assert await rows(database, "SELECT op_id FROM ps_oplog ORDER BY op_id") == [[1], [2], [3], [4], [6]]
        todo = "aaaaaaaa-0000-4000-8000-000000000001"
        assert await rows(database, "SELECT * FROM ps_updated_rows ORDER BY 1, 2") == [
            ["lists", "mine"],
            ["todos", todo],
            *([["todos", "gone"]] if version < 6 else []),
        ]

        gate = await rows(database, "SELECT key, value FROM ps_kv WHERE key GLOB '*checkpoint_request_id' ORDER BY key")
        target = ["target_checkpoint_request_id", 2**63 - 1]
        assert gate == [*(GATE_OF_VERSION_5_ON if version >= 5 else []), target]
        client_id = (await rows(database, "SELECT value FROM ps_kv WHERE key = 'client_id'"))[0][0]
        assert (client_id == "00000000-0000-4000-8000-00000000000c") == (version >= 3)

        if version >= 3:
            assert await rows(database, "SELECT * FROM ps_sync_state") == [[2147483647, 1_700_000_000_000_000]]
            assert database.status.has_synced
        if version >= 11:
            columns = "stream_name, active, is_default, ttl, expires_at, last_synced_at"
            assert await rows(database, f"SELECT {columns} FROM ps_stream_subscriptions") == [
                ["todos", 1, 0, 86400, 1_700_000_000_000_000, 1_700_000_000_000_000],
                ["lists", 1, 1, None, None, 1_700_000_000_000_000],
            ]
        # The triggers are those of this engine: any SQLite can edit, and the edit is queued.
        await database.execute("UPDATE todos SET completed = 1 WHERE description = 'Eggs'")
        assert await rows(database, "SELECT count(*), max(id) FROM ps_crud") == [[4, 4]]
    assert look(path, "PRAGMA integrity_check") == [["ok"]]


async def test_a_migrated_file_opens_again_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    restore(1, path, "WAL")
    async with PowerSyncDatabase(path, SCHEMA):
        pass
    once = look(path, "SELECT sql FROM sqlite_master"), contents(lambda sql: look(path, sql))
    async with PowerSyncDatabase(path, SCHEMA):
        pass
    assert (look(path, "SELECT sql FROM sqlite_master"), contents(lambda sql: look(path, sql))) == once


# Newer versions


async def future(path: Path, down: object, version: int = 15) -> bytes:
    """A file of a later version with an edit in its queue; returns its bytes."""
    async with PowerSyncDatabase(path, SCHEMA) as database:
        await database.execute("INSERT INTO lists(id, name) VALUES ('l', 'Home')")
    with closing(sqlite3.connect(path)) as writer, writer:
        writer.execute("CREATE TABLE ps_future(id)")
        writer.execute("DROP VIEW todos")
        writer.execute('CREATE VIEW todos(id) AS SELECT id FROM "ps_data__todos" -- powersync-auto-generated')
        # Views and triggers of that client call what only that client has.
        writer.execute(
            "CREATE TRIGGER ps_view_insert_todos INSTEAD OF INSERT ON todos BEGIN"
            " INSERT INTO powersync_crud_of_the_future(data) VALUES (powersync_future(NEW.id)); END"
        )
        stored = down if down is None or isinstance(down, str) else json.dumps(down)
        writer.execute("INSERT INTO ps_migration(id, down_migrations) VALUES (?, ?)", (version, stored))
    change_journal(path, "DELETE")
    return path.read_bytes()


def change_journal(path: Path, mode: str) -> None:
    with closing(sqlite3.connect(path)) as writer:
        writer.execute(f"PRAGMA journal_mode = {mode}")


def steps(*connection: str) -> list[dict[str, object]]:
    return [{"sql": sql, "params": []} for sql in connection]


async def test_a_newer_version_is_undone_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "future.db"
    down = steps(
        "SELECT powersync_drop_view(name) FROM sqlite_master WHERE type = 'view'",
        "-- both at once; the text of the first has a semicolon\n"
        "CREATE TEMP TRIGGER t AFTER DELETE ON ps_future BEGIN SELECT ';'; SELECT 1; END; DROP TABLE ps_future;",
        "/* done */ DELETE FROM ps_migration WHERE id >= 15",
    )
    await future(path, down)
    async with PowerSyncDatabase(path, SCHEMA) as database:
        assert await rows(database, "SELECT max(id) FROM ps_migration") == [[14]]
        assert await rows(database, "SELECT name FROM sqlite_master WHERE name = 'ps_future'") == []
        assert await rows(database, "SELECT name FROM lists") == [["Home"]]
        assert database.status.upload_queue_count == 1
        await database.execute("INSERT INTO todos(id, description) VALUES ('t', 'Milk')")
        assert await rows(database, "SELECT description FROM todos") == [["Milk"]]


async def test_several_newer_versions_are_undone_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "future.db"
    down = steps(
        "DROP TABLE ps_future",
        # SQLite checks all triggers here, and those of the views call what is missing.
        "ALTER TABLE ps_buckets ADD COLUMN other INTEGER",
        "ALTER TABLE ps_buckets DROP COLUMN other",
        "DELETE FROM ps_migration WHERE id >= 15",
    )
    await future(path, down)
    change(
        path,
        "CREATE TABLE ps_far_future(id)",
        "INSERT INTO ps_migration SELECT 17, json_array(json_object('sql', 'DROP TABLE ps_far_future'),"
        " json_object('sql', 'DELETE FROM ps_migration WHERE id >= 17'))",
    )
    async with PowerSyncDatabase(path, SCHEMA) as database:
        assert await rows(database, "SELECT max(id) FROM ps_migration") == [[14]]
        assert await rows(database, "SELECT name FROM sqlite_master WHERE name GLOB '*future'") == []
        assert database.status.upload_queue_count == 1


DONE = "DELETE FROM ps_migration WHERE id >= 15"


@pytest.mark.parametrize(
    ("down", "reason"),
    [
        (None, "does not say how"),
        ("[{", "cannot be read"),
        ("{}", "left it in place"),
        ([1, 2], "cannot be read"),
        ([{"params": []}], "cannot be read"),
        ([{"sql": 5}], "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ([], "left it in place"),
        (steps("DROP TABLE ps_crud"), "left it in place"),
        (steps("DELETE FROM ps_crud", "DROP TABLE nowhere", DONE), "no such table: nowhere"),
        (steps("DELETE FROM ps_crud", "SELECT powersync_unheard_of()", DONE), "no such function"),
        (steps("DELETE FROM ps_crud", "COMMIT", DONE), "not allowed: COMMIT"),
        (steps("DELETE FROM ps_crud; /* ; */ END; DELETE FROM ps_kv", DONE), "not allowed: END"),
        (steps("DELETE FROM ps_crud", "-- \nROLLBACK", DONE), "not allowed: ROLLBACK"),
        (steps("ATTACH 'other.db' AS other", DONE), "not allowed: ATTACH"),
        (steps("PRAGMA writable_schema = ON", DONE), "not allowed: PRAGMA"),
        (
            steps("DELETE FROM ps_crud", "INSERT OR ROLLBACK INTO ps_migration(id) VALUES (15)", DONE),
            "UNIQUE constraint failed",
        ),
        (steps("DELETE FROM ps_crud", "SELECT '\0'", DONE), "version 15"),
    ],
)
async def test_what_cannot_be_undone_is_refused_and_untouched(tmp_path: Path, down: object, reason: str) -> None:
    path = tmp_path / "future.db"
    before = await future(path, down)
    with pytest.raises(DatabaseOpenError, match=reason) as refused:
        await PowerSyncDatabase(path, SCHEMA).open()
    assert "schema version 15" in str(refused.value)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["future.db"]


async def test_a_file_without_its_version_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    restore(7, path)
    change(path, "DELETE FROM ps_migration")
    before = path.read_bytes()
    with pytest.raises(DatabaseOpenError, match="lacks its version record"):
        await PowerSyncDatabase(path, SCHEMA).open()
    assert path.read_bytes() == before


# Several processes, and processes that are killed

OPEN_AND_WRITE = """
import asyncio, sys
from sync import PowerSyncDatabase
from tests.sync.rig import SCHEMA

async def main(path, name):
    async with PowerSyncDatabase(path, SCHEMA) as database:
        await database.execute("INSERT INTO lists(id, name) VALUES (?, ?)", (name, name))

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main(*sys.argv[1:]))
"""

# Kills itself right before the statement of that number, or before or after the first commit.
DIE_AT = """
import asyncio, os, signal, sys
from sync import PowerSyncDatabase
from sync.sqlite.sql_connection import SqlConnection
from tests.sync.rig import SCHEMA

path, when = sys.argv[1:]
count = 0
execute, commit = SqlConnection.execute, SqlConnection.commit

def counted(self, sql, parameters=()):
    global count
    count += 1
    if str(count) == when:
        os.kill(os.getpid(), signal.SIGKILL)
    return execute(self, sql, parameters)

def last(self):
    if when == "count":
        print(count)
        sys.stdout.flush()
    if when in ("count", "before commit"):
        os.kill(os.getpid(), signal.SIGKILL)
    commit(self)
    os.kill(os.getpid(), signal.SIGKILL)

SqlConnection.execute, SqlConnection.commit = counted, last
asyncio.run(PowerSyncDatabase(path, SCHEMA).open())
"""


def start(program: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def nothing(path: Path) -> None:
    """A new file."""


def version_4(path: Path) -> None:
    """An old file that is larger than SQLite's cache, so that a migration writes into it before it commits."""
    restore(4, path, "WAL" if path.stem.startswith("wal") else "DELETE")
    change(
        path,
        "WITH RECURSIVE n(n) AS (SELECT 100 UNION ALL SELECT n + 1 FROM n WHERE n < 3000)"
        f" INSERT INTO ps_oplog SELECT '{LISTS}', n, 3, 'lists', n, 'lists/' || n || '/null',"
        " json_object('name', hex(zeroblob(600))), n % 7, 0 FROM n",
    )


@pytest.mark.parametrize("make", [nothing, version_4])
def test_processes_open_a_file_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "shared.db"
    make(path)
    processes = [start(OPEN_AND_WRITE, path, f"process {number}") for number in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=30)[1] for process in processes]
    assert errors == ["", "", ""]
    assert look(path, "SELECT count(*), max(id) FROM ps_migration") == [[14, 14]]
    assert look(path, "SELECT count(*) FROM ps_kv WHERE key = 'client_id'") == [[1]]
    names = look(path, "SELECT name FROM lists WHERE name GLOB 'process*' ORDER BY 1")
    assert names == [["process 0"], ["process 1"], ["process 2"]]
    transactions = look(path, "SELECT count(DISTINCT tx_id) FROM ps_crud WHERE data GLOB '*process*'")
    assert transactions == [[3]]


@pytest.mark.parametrize("make", [nothing, version_4])
def test_a_process_killed_while_it_opens_leaves_the_old_or_the_new(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(whole := tmp_path / "whole.db")
    old = whole.read_bytes() if whole.exists() else None
    make(tmp_path / "counted.db")
    counted, _ = start(DIE_AT, tmp_path / "counted.db", "count").communicate(timeout=30)
    moments = [str(int(counted) * part // 3) for part in range(1, 4)] + ["before commit", "after commit"]

    def begin(number: int, when: str) -> tuple[Path, subprocess.Popen[str]]:
        path = tmp_path / f"{'wal' if number % 2 else 'journal'}-{number}.db"
        make(path)
        return path, start(DIE_AT, path, when)

    killed = [begin(number, when) for number, when in enumerate(moments)]
    asyncio.run(_open(whole))
    expected = contents(lambda sql: look(whole, sql))
    versions: list[int] = []
    half_written = 0
    for path, process in killed:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL, errors
        half_written += any(file.stat().st_size > 0 for file in tmp_path.glob(f"{path.name}-[jw]*"))
        assert look(path, "PRAGMA integrity_check") == [["ok"]]
        versions.append(version_of(path) if look(path, "SELECT * FROM sqlite_master") else 0)
        asyncio.run(_open(path))
        assert contents(lambda sql, path=path: look(path, sql)) == expected
    assert versions == [*([0 if old is None else 4] * 4), 14]
    assert half_written >= (0 if old is None else 2)


async def _open(path: Path) -> None:
    async with PowerSyncDatabase(path, SCHEMA):
        pass


# Files of other programs, and files that cannot be written


async def test_a_file_of_another_program_gets_our_tables_beside_its_own(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    change(path, "CREATE TABLE notes(text)", "INSERT INTO notes VALUES ('mine')")
    path.chmod(0o640)
    async with PowerSyncDatabase(path, SCHEMA) as database:
        await database.execute("INSERT INTO lists(id, name) SELECT 'l', text FROM notes")
        assert await rows(database, "SELECT name FROM lists") == [["mine"]]
    assert look(path, "SELECT * FROM notes") == [["mine"]]
    # Its owner's choice; only files that we make are private from the start.
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


async def test_a_table_where_a_view_must_stand_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    change(path, "CREATE TABLE lists(text)", "INSERT INTO lists VALUES ('mine')")
    before = path.read_bytes()
    with pytest.raises(DatabaseOpenError, match='"lists" already exists'):
        await PowerSyncDatabase(path, SCHEMA).open()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["notes.db"]


@pytest.mark.parametrize("version", [5, 13])
async def test_a_file_in_the_hands_of_another_is_refused_and_untouched(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.db"
    restore(version, path)
    before = path.read_bytes()
    monkeypatch.setattr(pool, "BUSY_TIMEOUT_SECONDS", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseOpenError, match="locked"):
            await PowerSyncDatabase(path, SCHEMA).open()
    assert path.read_bytes() == before
    async with PowerSyncDatabase(path, SCHEMA):
        assert version_of(path) == 14


OPEN_AS_NOBODY = """
import asyncio, os, sys
from sync import DatabaseOpenError, PowerSyncDatabase
from tests.sync.rig import SCHEMA
import aiosqlite, encodings.idna

if os.getuid() == 0:  # whom no file mode holds back
    os.setuid(65534)
try:
    asyncio.run(PowerSyncDatabase(sys.argv[1], SCHEMA).open())
except DatabaseOpenError as error:
    print(error)
"""


def test_a_file_that_must_not_be_written_is_refused_and_untouched() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "old.db"
        restore(9, path)
        path.chmod(0o444)
        Path(directory).chmod(0o555)
        before = path.read_bytes()
        told, errors = start(OPEN_AS_NOBODY, path).communicate(timeout=30)
        assert f"The database {path} cannot be opened: attempt to write a readonly database" in told, errors
        assert path.read_bytes() == before
        Path(directory).chmod(0o755)
        assert version_of(path) == 9
