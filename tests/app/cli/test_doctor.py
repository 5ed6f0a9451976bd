"""`todo-tui doctor`: what it finds, and what it repairs."""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
import stat
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

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
        ({"iat": 0, "exp": 3600}, "ok: It holds for "),
        ({"iat": -7200, "exp": -3600}, r"problem: It expired 3\d\d\d s ago by this clock; set the clock, or ask"),
        ({"iat": 600, "exp": 4200}, r"problem: It begins to hold in (59|60)\d s by this clock; set the clock."),
        ({}, "ok: The backend gives one."),
    ],
)
def test_the_token_is_looked_at(run: Run, claims: dict[str, float], told: str):
    made = token(**{name: time.time() + seconds for name, seconds in claims.items()})
    with other_backend(made) as url:
        assert re.match(told, lines_of(run, TODO_TUI_BACKEND_URL=url)["token"])


def test_a_clock_that_is_wrong_and_a_backend_that_gives_no_token(run: Run, environment: dict[str, str], tmp_path: Path):
    with other_backend(token(), seconds_ahead=120) as url:
        clock = lines_of(run, TODO_TUI_BACKEND_URL=url)["clock"]
        assert re.match(r"problem: It is 1[12]\d seconds from that of the backend; set it", clock)
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
        assert lines_of(run, TODO_TUI_USER_ID="7", **named)["user and backend"] == "ok: The lists are those of user 7."


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
        assert "22 changes were rescued and wait again" in done.stderr
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
        assert "Another todo-tui syncs" in refused(run("doctor", "--repair"), 1)
        assert f"syncing: Process {terminal.process.pid} syncs these lists." in run("doctor").stdout
    finally:
        terminal.close()


def test_the_bundle_names_nobody(run: Run, tmp_path: Path, data_dir: Path):
    out(run("add", "Hide the treasure"))
    bundle = tmp_path / "bundle.txt"
    run("doctor", "--bundle", bundle, TODO_TUI_BACKEND_URL="http://secret.example:9", TODO_TUI_USER_ID="42")
    text = bundle.read_text()
    assert "queue: 2 changes wait" in text
    for secret in ("treasure", "secret.example", str(data_dir), "42"):
        assert secret not in text.replace("0.42", "")
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
