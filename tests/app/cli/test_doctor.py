"""`todo-tui doctor`: what it finds, and what it repairs."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from app.store.schema import APP_SCHEMA
from sync import PowerSyncDatabase
from tests.app.cli.test_cli import Terminal, backend_process, refused
from tests.app.commands import PROGRAM, WAIT_SECONDS, Run, out


def test_the_doctor_tells_the_truth(run: Run, environment: dict[str, str], tmp_path: Path, data_dir: Path):
    assert run("doctor").returncode == 0
    out(run("add", "Milk"))
    assert "queue: 2 changes wait" in out(run("doctor"))
    (data_dir / "todo.db").chmod(0o644)
    assert "! todo.db: Other accounts may read it; run chmod 600" in out(run("doctor"))
    (data_dir / "todo.db").chmod(0o600)
    with closing(sqlite3.connect(data_dir / "todo.db")) as connection, connection:
        connection.execute("UPDATE ps_crud_times SET made_at = made_at - 3 * 86400 * 1000000")
    assert "the oldest for 3 days" in out(run("doctor"))
    dead = run("doctor", TODO_TUI_BACKEND_URL="http://127.0.0.1:9")
    assert dead.returncode == 1
    assert "✗ backend: http://127.0.0.1:9 does not answer" in dead.stdout
    with backend_process(environment, "--open", "--port", 0, "--database", tmp_path / "b.db") as (_, url):
        found = json.loads(run("doctor", "--json", TODO_TUI_BACKEND_URL=url).stdout)
        assert {"what": "backend", "state": "ok", "told": f"{url} answers."} in found
        assert {each["state"] for each in found if each["what"] == "clock"} == {"ok"}


@contextmanager
def other_backend(token: str, *, seconds_ahead: float = 0) -> Generator[str]:
    """A server that gives this token, with a clock of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"token": token}).encode()
            self.send_response_only(200)
            self.send_header("Date", formatdate(time.time() + seconds_ahead, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def token(**claims: float | str) -> str:
    """A token that says this, as far as a client can tell."""
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2lnbmVk"


def lines_of(run: Run, **environment: str) -> dict[str, str]:
    """What was found, each with its state before it."""
    found = json.loads(run("doctor", "--json", **environment).stdout)
    return {each["what"]: f"{each['state']}: {each['told']}" for each in found}


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"iat": 0, "exp": 3600}, r"ok: Valid for another 3\d\d\d s\."),
        ({"iat": -7200, "exp": -3600}, r"problem: It expired 3\d\d\d s ago: check the clock, or ask"),
        ({"iat": 600, "exp": 4200}, r"problem: The token is not valid for another (59|60)\d s: check the clock\."),
        ({}, r"ok: The backend issues one\."),
    ],
)
def test_the_token_is_looked_at(run: Run, claims: dict[str, float], told: str):
    made = token(**{name: time.time() + seconds for name, seconds in claims.items()})
    with other_backend(made) as url:
        assert re.match(told, lines_of(run, TODO_TUI_BACKEND_URL=url)["token"])


def test_a_clock_that_is_wrong_and_a_backend_that_gives_no_token(run: Run, environment: dict[str, str], tmp_path: Path):
    with other_backend(token(), seconds_ahead=120) as url:
        clock = lines_of(run, TODO_TUI_BACKEND_URL=url)["clock"]
        assert re.match(r"problem: It differs from the clock of the backend by 1[12]\d seconds: set it", clock)
    with backend_process(environment, "--port", 0, "--database", tmp_path / "b.db") as (_, url):
        refusal = lines_of(run, TODO_TUI_BACKEND_URL=url)["token"]
        assert refusal.startswith("problem: The backend issued no token: ")
        assert "todo-tui login" in refusal


def test_the_gate_is_told(run: Run, environment: dict[str, str], tmp_path: Path, data_dir: Path):
    with backend_process(environment, "--open", "--port", 0, "--database", tmp_path / "b.db") as (_, url):
        named = {"TODO_TUI_BACKEND_URL": url}
        out(run("add", "Milk", **named))
        assert lines_of(run, **named)["gate"].startswith("ok: Closed: what others changed is shown once")
        assert run("sync", "--wait", 20, **named).returncode == 0
        assert lines_of(run, **named)["gate"] == "ok: Open: what others change is shown as it comes."
        with closing(sqlite3.connect(data_dir / "todo.db")) as connection, connection:
            connection.execute("UPDATE ps_kv SET value = value + 1 WHERE key = 'target_checkpoint_request_id'")
            assert connection.total_changes == 1
        assert lines_of(run, **named)["gate"].startswith("ok: Closed: the service has yet to send back")


def test_the_lists_of_another_user_and_backend(run: Run, environment: dict[str, str], tmp_path: Path):
    with backend_process(environment, "--open", "--port", 0, "--database", tmp_path / "b.db") as (_, url):
        named = {"TODO_TUI_BACKEND_URL": url}
        out(run("add", "Milk", TODO_TUI_USER_ID="7", **named))
        assert run("sync", "--wait", 20, TODO_TUI_USER_ID="7", **named).returncode == 0
        other = lines_of(run, TODO_TUI_USER_ID="8", **named)["user and backend"]
        assert other.startswith("problem: ")
        assert "user 7" in other
        assert lines_of(run, TODO_TUI_USER_ID="7", **named)["user and backend"] == "ok: The lists belong to user 7."


def test_files_of_another_account(run: Run, data_dir: Path):
    if os.getuid() != 0:
        pytest.skip("only the superuser can give a file to another account")
    out(run("add", "Milk"))
    os.chown(data_dir / "todo.db", 12345, -1)
    assert lines_of(run)["todo.db"].startswith("problem: It belongs to another account; run chown 0 ")


def test_the_doctor_finds_a_damaged_page(run: Run, data_dir: Path):
    out(run("add", "-", text="\n".join(f"Number {number} {'x' * 300}" for number in range(300))))
    with closing(sqlite3.connect(data_dir / "todo.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (data_dir / "todo.db").open("r+b") as file:
        file.seek(4096 * 20)
        file.write(b"\xff" * 4096)
    found = run("doctor")
    assert found.returncode == 1
    assert "is damaged" in found.stdout


def damaged(data_dir: Path) -> None:
    """Spoil a page of the lists, none of the queue."""
    database = data_dir / "todo.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'ps_data__todos'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with database.open("r+b") as file:
        file.seek(size * (page - 1))
        file.write(b"\xff" * size)


def test_repairing_loses_nothing_that_waited(run: Run, environment: dict[str, str], tmp_path: Path, data_dir: Path):
    with backend_process(environment, "--open", "--port", 0, "--database", tmp_path / "b.db") as (_, url):
        named = {"TODO_TUI_BACKEND_URL": url}
        out(run("add", "-", text="\n".join(f"Synced {number}" for number in range(50)), **named))
        assert run("sync", "--wait", 20, **named).returncode == 0
        out(run("done", "Synced 7", **named))
        out(run("add", "-", text="\n".join(f"Waiting {number}" for number in range(20)), **named))
        out(run("rm", "Synced 8", **named))
        damaged(data_dir)
        assert "todo-tui doctor --repair" in run("doctor", **named).stdout
        done = run("doctor", "--repair", **named)
        assert done.returncode == 0, done.stderr
        assert "Carried over: 22 changes that wait for upload, 0 rejected changes, 0 conflicts, " in done.stderr
        (kept,) = data_dir.glob("damaged-*")
        assert {path.name for path in kept.iterdir()} >= {"todo.db", "queue.json"}
        assert stat.S_IMODE((kept / "queue.json").stat().st_mode) == 0o600
        assert run("doctor", **named).returncode == 0
        assert json.loads(out(run("status", "--json", **named)))["waiting"] == 22
        assert run("sync", "--wait", 20, **named).stderr == "Everything is synced.\n"
        found = json.loads(out(run("list", "--all", "--json", **named)))
        assert {todo["text"] for todo in found if todo["completed"]} == {"Synced 7"}
        assert {todo["text"] for todo in found} == {
            *(f"Synced {number}" for number in range(50) if number != 8),
            *(f"Waiting {number}" for number in range(20)),
        }


def test_nothing_to_repair_and_what_is_in_use_is_left_alone(run: Run, environment: dict[str, str], data_dir: Path):
    assert "There is no" in refused(run("doctor", "--repair"), 1)
    out(run("add", "Milk"))
    terminal = Terminal({**environment, "TODO_TUI_DATA_DIR": str(data_dir)}, PROGRAM)
    try:
        terminal.read_until(b"Milk")
        deadline = time.monotonic() + WAIT_SECONDS
        while not (data_dir / "todo.db-sync-lock").exists():
            assert time.monotonic() < deadline
        assert f"is open in todo-tui (process {terminal.process.pid}). Quit all" in refused(
            run("doctor", "--repair"), 1
        )
        assert f"syncing: Process {terminal.process.pid} syncs these lists." in run("doctor").stdout
    finally:
        terminal.close()


@contextmanager
def paused(database: Path) -> Generator[subprocess.Popen[str]]:
    """A program that has the lists open and does not sync; it adds one when it is told to, and ends."""
    program = """
import asyncio, sys
from app.store import Store
from app.store.schema import APP_SCHEMA
from sync import PowerSyncDatabase

async def connect():
    pass

async def main():
    async with PowerSyncDatabase(sys.argv[1], APP_SCHEMA) as database:
        print("ready", flush=True)
        if await asyncio.to_thread(sys.stdin.readline):
            await Store(database, "1", connect).add_list("Late")

asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_what_is_typed_in_a_todo_tui_that_does_not_sync_is_not_lost(run: Run, data_dir: Path):
    out(run("add", "Milk"))
    with paused(data_dir / "todo.db") as process:
        damaged(data_dir)
        for options in ((), ("--yes",)):
            line = refused(run("doctor", "--repair", *options), 1)
            assert f"is open in python (process {process.pid}). Quit all todo-tui" in line
        assert lines_of(run)["open in"] == f"ok: python (process {process.pid})"
        process.communicate("add\n", timeout=WAIT_SECONDS)
        assert process.returncode == 0
    assert not list(data_dir.glob("damaged-*"))
    assert "Carried over: 3 changes that wait for upload," in run("doctor", "--repair").stderr
    assert {each["name"] for each in json.loads(out(run("lists", "--json")))} == {"To-dos", "Late"}


def test_a_file_that_is_synced_through_a_link_is_not_repaired(run: Run, environment: dict[str, str], tmp_path: Path):
    for directory in ("real", "linked"):
        (tmp_path / directory).mkdir()
    (tmp_path / "linked" / "todo.db").symlink_to(tmp_path / "real" / "todo.db")
    real, linked = ({"TODO_TUI_DATA_DIR": str(tmp_path / directory)} for directory in ("real", "linked"))
    out(run("add", "Milk", **real))
    for synced_by, repaired_by in ((real, linked), (linked, real)):
        shown = Terminal({**environment, **synced_by}, PROGRAM)
        try:
            shown.read_until(b"Milk")
            deadline = time.monotonic() + WAIT_SECONDS
            while lines_of(run, **repaired_by)["syncing"] != f"ok: Process {shown.process.pid} syncs these lists.":
                assert time.monotonic() < deadline
                shown._read(0)
            line = refused(run("doctor", "--repair", "--yes", **repaired_by), 1)
            assert f"is open in todo-tui (process {shown.process.pid})" in line
        finally:
            shown.close()


def test_repairing_keeps_all_that_is_only_on_this_device(run: Run, data_dir: Path):
    out(run("add", "-", text="Milk\nBread\nButter"))
    out(run("done", "Bread"))

    async def arrange() -> None:
        async with PowerSyncDatabase(data_dir / "todo.db", APP_SCHEMA) as database:
            await database.execute("INSERT INTO todo_positions(id, position) SELECT id, '000000001' FROM todos LIMIT 2")
            await database.execute("INSERT INTO arrangements(id, sort, shows_done) VALUES ('all', 'name', 1)")
            transaction = await database.next_crud_transaction()
            assert transaction is not None
            await transaction.reject("The list is full.")
            await database.execute(
                "INSERT INTO ps_conflicts(row_type, row_id, column_name, mine, theirs, found_at)"
                " VALUES ('lists', 'a', 'name', '1', '2', 1)"
            )

    def kept() -> dict[str, list[tuple[object, ...]]]:
        tables = ("todo_positions", "arrangements", "undo_journal", "ps_rejected_crud", "ps_conflicts", "ps_crud")
        with closing(sqlite3.connect(data_dir / "todo.db")) as connection:
            return {table: connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in tables}

    asyncio.run(arrange())
    before = kept()
    assert all(before.values())
    damaged(data_dir)
    done = run("doctor", "--repair")
    assert done.returncode == 0, done.stderr
    journal = len(before["undo_journal"])
    assert (
        f"1 conflict, {journal} entries of the undo history, 2 positions set by hand, 1 arrangement of" in done.stderr
    )
    assert " rejected change, " in done.stderr
    assert kept() == before
    out(run("undo"))
    assert json.loads(out(run("rejected", "--json")))[0]["reason"] == "The list is full."


def test_a_healthy_database_is_replaced_only_if_the_user_wants_it(
    run: Run, environment: dict[str, str], data_dir: Path
):
    out(run("add", "Milk"))
    before = (data_dir / "todo.db").read_bytes()
    assert "is not damaged" in refused(run("doctor", "--repair"), 1)
    for answer, code in ((b"n", 1), (b"y", 0)):
        assert (data_dir / "todo.db").read_bytes() == before
        asked = Terminal({**environment, "TODO_TUI_DATA_DIR": str(data_dir)}, PROGRAM, "doctor", "--repair")
        try:
            asked.read_until(b"[y/N]")
            os.write(asked._master, answer + b"\r")
            assert asked.read_to_end() == code
        finally:
            asked.close()
    assert (data_dir / "todo.db").read_bytes() != before
    assert run("doctor", "--repair", "--yes").returncode == 0
    assert json.loads(out(run("status", "--json")))["waiting"] == 2
    assert len(list(data_dir.glob("damaged-*"))) == 2


def test_the_app_knows_nothing_of_the_inside_of_the_engines_file():
    app = Path(__file__).parents[3] / "app"
    assert not [path for path in app.rglob("*.py") if re.search(r"\bps_", path.read_text())]


def test_the_bundle_names_nobody(run: Run, tmp_path: Path, data_dir: Path):
    out(run("add", "Hide the treasure"))
    bundle = tmp_path / "bundle.txt"
    run("doctor", "--bundle", bundle, TODO_TUI_BACKEND_URL="http://secret.example:9", TODO_TUI_USER_ID="42")
    text = bundle.read_text()
    assert "queue: 2 changes wait" in text
    for secret in ("treasure", "secret.example", str(data_dir), "42"):
        assert secret not in text.replace("0.42", "")
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
