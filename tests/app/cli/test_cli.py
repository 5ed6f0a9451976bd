"""The command line through its real entry point: what it prints, how it ends, and one sentence for bad input."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.app.backend.harness import free_port
from tests.app.commands import PROGRAM, WAIT_SECONDS

# Writes as Textual does, long after the terminal is gone.
WRITES_ON = """
import select, sys
from textual.drivers._writer_thread import WriterThread
from app.system.terminal import outlive_terminal
outlive_terminal()
poll = select.poll()
poll.register(0, 0)
writer = WriterThread(sys.__stderr__)
writer.start()
writer.write("ready")
poll.poll()
for number in range(1000):
    writer.write(f"text {number}")
writer.stop()
"""
# Makes the terminal on stdin the controlling one, so that closing it sends SIGHUP as a real terminal does.
IN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.fixture
def port() -> int:
    return free_port()


def run(environment: dict[str, str], *arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, *(str(argument) for argument in arguments)]
    return subprocess.run(command, env=environment, input=text, capture_output=True, text=True, timeout=WAIT_SECONDS)


def refused(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one sentence of a run that went wrong with this exit code."""
    assert done.returncode == code, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("todo-tui: ")
    assert line.endswith((".", "?"))
    return line


@contextmanager
def backend_process(environment: dict[str, str], *arguments: object) -> Generator[tuple[subprocess.Popen[str], str]]:
    """A running `todo-tui backend` and the address that it printed."""
    command = [PROGRAM, "backend", *(str(argument) for argument in arguments)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


class Terminal:
    """A program in a terminal of its own, 24 lines of 80 columns."""

    def __init__(self, environment: dict[str, str], *program: object, controls: bool = True) -> None:
        self._master, slave = pty.openpty()
        command = [sys.executable, "-c", IN_TERMINAL, *program] if controls else program
        self.process = subprocess.Popen(
            [str(part) for part in command],
            env={**environment, "LINES": "24", "COLUMNS": "80"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.output = b""

    def read_until(self, text: bytes) -> None:
        """Read until the program has written `text`."""
        deadline = time.monotonic() + WAIT_SECONDS
        while text not in self.output:
            assert time.monotonic() < deadline, self.output
            assert self._read(), self.output

    def read_to_end(self) -> int:
        """Read until the program has ended; gives its exit code."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self.process.poll() is None or self._read(0):
            assert time.monotonic() < deadline, self.output
            self._read()
        return self.process.wait()

    def hang_up(self) -> None:
        """Close the terminal, as closing its window does."""
        master, self._master = self._master, -1
        os.close(master)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self._master >= 0:
            os.close(self._master)

    def _read(self, seconds: float = 0.1) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return seconds > 0
        with suppress(OSError):
            if chunk := os.read(self._master, 65536):
                self.output += chunk
                return True
        return False


@contextmanager
def terminal(environment: dict[str, str], *program: object, controls: bool = True) -> Generator[Terminal]:
    opened = Terminal(environment, *program, controls=controls)
    try:
        yield opened
    finally:
        opened.close()


def until_remembered(shown: Terminal, data_dir: Path, key: str) -> None:
    """Let the program run until it has remembered the backend of its lists."""
    deadline = time.monotonic() + WAIT_SECONDS
    memory = data_dir / "backend.json"
    while not memory.exists() or key not in memory.read_text():
        assert time.monotonic() < deadline, shown.output
        shown._read()


def liveness(url: str) -> dict[str, str]:
    with urllib.request.urlopen(f"{url}/probes/liveness", timeout=WAIT_SECONDS) as answer:
        return json.load(answer)


def test_help_and_version(environment: dict[str, str]) -> None:
    shown = run(environment, "--help")
    assert shown.returncode == 0
    for word in ("--config", "--data-dir", "--backend", "--user", "--port", "--version", "backend"):
        assert word in shown.stdout
    shown = run(environment, "backend", "--help")
    assert shown.returncode == 0
    assert "--allow-remote" in shown.stdout
    assert "until-stdin" not in shown.stdout
    shown = run(environment, "--version")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("todo-tui 0.")


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        ("import app.cli.main", "app.settings.settings asyncio textual httpx pydantic aiosqlite uvicorn starlette"),
        ("import app.settings.settings", "textual httpx aiosqlite sync uvicorn starlette app.backend"),
        (
            "import app.connection.embedded_backend",
            "textual httpx pydantic aiosqlite sync uvicorn starlette app.backend",
        ),
        ("import app.cli.run", "textual httpx aiosqlite sync uvicorn starlette app.backend"),
        ("import app.connection.connector", "textual pydantic uvicorn starlette app.backend"),
    ],
)
def test_nothing_is_imported_that_is_not_needed(program: str, unwanted: str) -> None:
    check = f"{program}, sys; print(*sorted(set({unwanted.split()!r}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data-dri", "1"], "--data-dir"),
        (["--port"], "--port"),
        (["--port", "x"], "Option --port must be a whole number from 1 to 65535."),
        (["--port", "0"], "Option --port must be a whole number from 1 to 65535."),
        (["--user", "me"], "Option --user must be a UUID"),
        (["--backend", "localhost:6161"], "Option --backend must be an http:// or https:// address"),
        (["--backend", "ftp://x"], "Option --backend must be an http:// or https:// address"),
        (["--config", "no such file"], "Config file no such file does not exist."),
        (["nonsense"], "No such command 'nonsense'."),
        (["backend", "--port", "65536"], "'--port'"),
        (["backend", "--host", "0.0.0.0"], "add --allow-remote"),
        (["backend", "--host", "::"], "add --allow-remote"),
        (["backend", "--host", "example.org"], "add --allow-remote"),
        (["backend", "--host", ""], "Option --host must be an address or a name of this machine"),
    ],
)
def test_wrong_usage(environment: dict[str, str], arguments: list[str], expected: str) -> None:
    assert expected in refused(run(environment, *arguments), 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("backend-url = 'x'\n", "unknown key 'backend-url'; did you mean backend_url?"),
        ("port = 'x'\n", "port must be a whole number from 1 to 65535, not text in quotes."),
        ("port = \n", "is not valid TOML"),
        ("a = " + "[" * 10_000, "is not valid TOML: a value in it is too large."),
    ],
)
@pytest.mark.parametrize("command", [[], ["backend"]])
def test_a_bad_config_file(
    environment: dict[str, str], tmp_path: Path, text: str, expected: str, command: list[str]
) -> None:
    path = tmp_path / "my config.toml"
    path.write_text(text)
    sentence = refused(run(environment, "--config", path, *command), 2)
    assert str(path) in sentence
    assert expected in sentence


def test_a_bad_variable(environment: dict[str, str]) -> None:
    done = run({**environment, "TODO_TUI_PORT": "x"})
    assert "Environment variable TODO_TUI_PORT must be a whole number" in refused(done, 2)


def test_a_data_directory_that_cannot_be_made_or_written(
    environment: dict[str, str], tmp_path: Path, port: int
) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "inside", Path("/dev/null/inside")):
        sentence = refused(run(environment, "--data-dir", directory, "--port", port), 1)
        assert f"The data directory {directory} cannot be used: " in sentence
        assert sentence.endswith("; choose another with --data-dir.")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_data_directory_without_permission(environment: dict[str, str], tmp_path: Path, port: int) -> None:
    tmp_path.chmod(0o500)
    try:
        for directory in (tmp_path, tmp_path / "inside"):
            sentence = refused(run(environment, "--data-dir", directory, "--port", port), 1)
            assert f"The data directory {directory} cannot be used: Permission denied" in sentence
    finally:
        tmp_path.chmod(0o700)


def test_a_port_that_is_taken(environment: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        sentence = refused(run(environment, "--data-dir", tmp_path / "data", "--port", port), 1)
        assert f"Port {port} is used by another program; quit it, or choose another port with --port" in sentence
        sentence = refused(run(environment, "backend", "--database", tmp_path / "b.db", "--port", port), 1)
        assert f"port {port} of 127.0.0.1" in sentence
        done = run(environment, "backend", "--database", tmp_path / "b.db", "--port", port, "--until-stdin-closes")
        assert (done.returncode, done.stderr) == (98, "")


def test_a_database_that_is_not_sqlite(environment: dict[str, str], tmp_path: Path, port: int) -> None:
    (tmp_path / "todo.db").write_text("This is not a database, but it is longer than its header would be." * 9)
    before = (tmp_path / "todo.db").read_bytes()
    sentence = refused(run(environment, "--data-dir", tmp_path, "--port", port), 1)
    assert str(tmp_path / "todo.db") in sentence
    assert (tmp_path / "todo.db").read_bytes() == before
    sentence = refused(run(environment, "backend", "--database", tmp_path / "todo.db", "--port", "0"), 1)
    assert str(tmp_path / "todo.db") in sentence


def test_without_a_terminal(environment: dict[str, str], tmp_path: Path, port: int) -> None:
    assert "needs a terminal" in refused(run(environment, "--data-dir", tmp_path / "data", "--port", port), 1)


def test_the_backend_alone(environment: dict[str, str], tmp_path: Path) -> None:
    database = tmp_path / "lists" / "backend.db"
    with backend_process(environment, "--port", 0, "--database", database) as (process, url):
        assert liveness(url)["database"] == str(database)
        process.send_signal(signal.SIGTERM)
        rest, narration = process.communicate(timeout=WAIT_SECONDS)
        assert (process.returncode, rest) == (128 + signal.SIGTERM, ""), narration
    assert stat.S_IMODE(database.stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_the_backend_ends_cleanly_by_a_signal(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    with backend_process(environment, "--port", 0, "--database", tmp_path / "b.db") as (process, _):
        process.send_signal(number)
        _, narration = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 128 + number
        assert "Traceback" not in narration


def test_the_backend_keeps_its_lists_in_the_data_directory(environment: dict[str, str], tmp_path: Path) -> None:
    environment["TODO_TUI_DATA_DIR"] = str(tmp_path / "data")
    with backend_process(environment, "--port", 0) as (_, url):
        assert liveness(url)["database"] == str(tmp_path / "data" / "backend.db")


def test_the_backend_can_be_reached_from_elsewhere_if_that_is_allowed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    arguments = ("--host", "0.0.0.0", "--allow-remote", "--port", 0, "--database", tmp_path / "b.db")
    with backend_process(environment, *arguments) as (_, url):
        assert liveness(url)["name"] == "todo-tui backend"


def test_the_interface_runs_its_own_backend_and_keeps_everything_private(
    environment: dict[str, str], tmp_path: Path, port: int
) -> None:
    data_dir = tmp_path / "new" / "data"
    with terminal(environment, PROGRAM, "--data-dir", data_dir, "--port", port) as shown:
        shown.read_until(b"\x1b[?1049h")
        until_remembered(shown, data_dir, "backend_id")
        assert liveness(f"http://127.0.0.1:{port}")["database"] == str(data_dir / "backend.db")
        shown.process.send_signal(signal.SIGTERM)
        assert shown.read_to_end() == 128 + signal.SIGTERM
        assert b"\x1b[?1049l" in shown.output, "the terminal is as it was before"
        assert b"Traceback" not in shown.output
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    for name in ("todo.db", "backend.db", "backend.json", "todo-tui.log"):
        assert stat.S_IMODE((data_dir / name).stat().st_mode) == 0o600, name
    log = (data_dir / "todo-tui.log").read_text()
    assert "Backend child" in log
    assert "ended with code 0" in log
    assert "eyJ" not in log, "no token is logged"
    with closing(sqlite3.connect(data_dir / "todo.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("controls", [True, False], ids=["a signal comes", "no signal comes"])
def test_closing_the_terminal_ends_the_interface_and_its_backend(
    environment: dict[str, str], tmp_path: Path, port: int, controls: bool
) -> None:
    with terminal(environment, PROGRAM, "--data-dir", tmp_path, "--port", port, controls=controls) as shown:
        shown.read_until(b"\x1b[?1049h")
        shown.hang_up()
        assert shown.process.wait(WAIT_SECONDS) == 128 + signal.SIGHUP
    log = (tmp_path / "todo-tui.log").read_text()
    assert "Traceback" not in log
    assert "ended with code 0" in log, "it was not ended by force, which leaves its backend running"
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def test_writing_to_a_terminal_that_is_gone_does_not_wait_for_ever(environment: dict[str, str]) -> None:
    with terminal(environment, sys.executable, "-c", WRITES_ON, controls=False) as shown:
        shown.read_until(b"ready")
        shown.hang_up()
        assert shown.process.wait(WAIT_SECONDS) == 0


def test_a_named_backend_is_used_and_nothing_is_started(environment: dict[str, str], tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with (
        backend_process(environment, "--open", "--port", 0, "--database", tmp_path / "b.db") as (_, url),
        terminal(environment, PROGRAM, "--data-dir", data_dir, "--backend", url) as shown,
    ):
        until_remembered(shown, data_dir, "backend_url")
        shown.process.send_signal(signal.SIGTERM)
        assert shown.read_to_end() == 128 + signal.SIGTERM
    assert not (data_dir / "backend.db").exists()
    assert "Backend child" not in (data_dir / "todo-tui.log").read_text()


def test_a_mistake_of_the_interface_is_told_in_one_sentence_and_logged(
    environment: dict[str, str], tmp_path: Path
) -> None:
    broken = "import app.tui.app as tui; tui.TodoApp.on_mount = lambda _: 1 / 0; from app.cli.main import main; main()"
    arguments = ("--data-dir", tmp_path, "--backend", "http://127.0.0.1:9")
    with terminal(environment, sys.executable, "-c", broken, *arguments) as shown:
        assert shown.read_to_end() == 1
        assert b"Traceback" not in shown.output
        _, _, after = shown.output.rpartition(b"\x1b[?1049l")
        assert b"todo-tui: todo-tui crashed (internal error: " in after
        assert b"ZeroDivisionError" not in after
    log = (tmp_path / "todo-tui.log").read_text()
    assert "Traceback" in log
    assert "ZeroDivisionError" in log


def test_lists_are_never_given_to_another_backend_or_user(
    environment: dict[str, str], tmp_path: Path, port: int
) -> None:
    named, inner = tmp_path / "named", tmp_path / "inner"
    other = "11111111-1111-4111-8111-111111111111"
    with backend_process(environment, "--open", "--port", 0, "--database", tmp_path / "b.db") as (_, url):
        for data_dir, key, arguments in ((named, "backend_url", ("--backend", url)), (inner, "backend_id", ())):
            program = (PROGRAM, "--data-dir", data_dir, "--port", port, *arguments)
            with terminal(environment, *program) as shown:
                shown.read_until(b"\x1b[?1049h")
                until_remembered(shown, data_dir, key)
                shown.process.send_signal(signal.SIGTERM)
                shown.read_to_end()
            kept = (data_dir / "backend.json").read_text()
            with terminal(environment, *program, "--user", other) as shown:
                assert shown.read_to_end() == 1
                assert b"belong to user" in shown.output
            with terminal(environment, *program, "--backend", "http://127.0.0.1:9") as shown:
                assert shown.read_to_end() == 1
                assert b"are synced with" in b" ".join(shown.output.split())
            assert (data_dir / "backend.json").read_text() == kept
    sentence = refused(run(environment, "--data-dir", named, "--port", port), 1)
    assert f"The lists in {named} are synced with the backend {url}; use --backend {url}" in sentence
    sentence = refused(run(environment, "--data-dir", inner, "--backend", url), 1)
    assert f"The lists in {inner} are synced with the backend inside todo-tui, not with {url}" in sentence


def test_quitting_does_not_wait_for_a_name_that_is_looked_up(environment: dict[str, str], tmp_path: Path) -> None:
    """The name is never found, and nothing but the end of the program ends it."""
    slow = (
        "import app.cli.run, socket, sys, threading; known = socket.getaddrinfo\n"
        "def look_up(host, *rest, **more):\n"
        "    if 'slow' in str(host):\n"
        "        open(sys.argv[2] + '/looking', 'w').close(); threading.Event().wait()\n"
        "    return known(host, *rest, **more)\n"
        "socket.getaddrinfo = look_up\n"
        "app.cli.run.STUCK_SECONDS = 1e6\n"
        "from app.cli.main import main; main()"
    )
    arguments = ("--data-dir", tmp_path, "--backend", "http://slow.invalid")
    with terminal(environment, sys.executable, "-c", slow, *arguments) as shown:
        deadline = time.monotonic() + WAIT_SECONDS
        while not (tmp_path / "looking").exists():
            assert time.monotonic() < deadline
            shown._read()
        shown.process.send_signal(signal.SIGTERM)
        assert shown.read_to_end() == 128 + signal.SIGTERM
    assert "Traceback" not in (tmp_path / "todo-tui.log").read_text()


def test_changes_that_could_not_be_stored_are_told(environment: dict[str, str], tmp_path: Path) -> None:
    broken = (
        "import asyncio, app.store\n"
        "async def flush(self, seconds): return 2\n"
        "app.store.Store.flush = flush\n"
        "from app.cli.main import main; main()"
    )
    arguments = ("--data-dir", tmp_path, "--backend", "http://127.0.0.1:9")
    with terminal(environment, sys.executable, "-c", broken, *arguments) as shown:
        shown.read_until(b"\x1b[?1049h")
        shown.process.send_signal(signal.SIGTERM)
        assert shown.read_to_end() == 1
        _, _, after = shown.output.rpartition(b"\x1b[?1049l")
        assert b"todo-tui: 2 changes could not be stored: the database was busy." in after


def test_the_interface_shows_what_is_wrong_with_its_backend(
    environment: dict[str, str], tmp_path: Path, port: int
) -> None:
    database = tmp_path / "backend.db"
    with (
        backend_process(environment, "--port", 0, "--database", database),
        terminal(environment, PROGRAM, "--data-dir", tmp_path, "--port", port) as shown,
    ):
        shown.read_until(b"is served at")


def test_the_last_resort_of_every_command_is_a_sentence(environment: dict[str, str], tmp_path: Path) -> None:
    broken = "import app.backend; app.backend.serve = lambda *_, **__: 1 / 0; from app.cli.main import main; main()"
    command = [sys.executable, "-c", broken, "backend", "--port", "0", "--database", str(tmp_path / "b.db")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS)
    assert "todo-tui crashed (internal error): ZeroDivisionError: division by zero." in refused(done, 1)


def test_a_short_loopback_address_needs_no_leave(environment: dict[str, str], tmp_path: Path) -> None:
    with backend_process(environment, "--host", "127.1", "--port", 0, "--database", tmp_path / "b.db") as (_, url):
        assert url.startswith("http://127.")
        assert liveness(url.replace("127.1", "127.0.0.1"))["name"] == "todo-tui backend"
