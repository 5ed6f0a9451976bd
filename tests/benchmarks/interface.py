"""How quick the interface is: `python -m tests.benchmarks.interface [--rows N --rounds N]`.

Owns the measuring of a real `todo-tui` in a terminal of its own: from the start of the process to the first rows, from
a key to the first bytes that are painted, also during a first sync, from a row of another client and from a commit of
another process to the screen, and the memory. Beside it stands a bare Textual app that reads the same rows with
sqlite3 and shows the first of them. It prints figures and gates nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import httpx

from app.store import Store
from app.store.schema import APP_SCHEMA
from sync import PowerSyncDatabase
from tests.benchmarks.load import backend, entry, signed_in, write

_SECONDS = 60.0
_BACKEND = "http://127.0.0.1:9"
_BARE = """
import sqlite3, sys
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        rows = sqlite3.connect(sys.argv[1]).execute("SELECT description FROM todos").fetchall()
        yield Static("\\n".join(row[0] for row in rows[:20]), markup=False)
Bare().run()
"""


class Terminal:
    """A program in a terminal of 80 columns and 24 lines."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environment, "LINES": "24", "COLUMNS": "80", "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(slave)
        self.seen = b""

    def read_until(self, text: bytes) -> float:
        """Read until the text is painted; gives the moment."""
        deadline = time.perf_counter() + _SECONDS
        while text not in self.seen:
            self.read_some(max(0.0, deadline - time.perf_counter()))
        return time.perf_counter()

    def read_some(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return False
        self.seen += os.read(self._master, 1 << 20)
        return True

    def until_quiet(self, seconds: float = 0.1) -> None:
        while self.read_some(seconds):
            continue

    def press(self, key: bytes, *, quiet: float = 0.1) -> float:
        """Seconds from a key to the first bytes that are painted for it."""
        self.until_quiet(quiet)
        self.seen = b""
        began = time.perf_counter()
        os.write(self._master, key)
        if not self.read_some(_SECONDS):
            raise TimeoutError
        return time.perf_counter() - began

    def memory(self) -> int:
        """Megabytes of memory of the process."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) // 1024
        raise AssertionError

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


async def fill(directory: Path, rows: int) -> str:
    """A data directory with one list of so many to-dos, nothing of which waits; gives the list's id."""
    async with PowerSyncDatabase(directory / "todo.db", APP_SCHEMA) as database:
        store = Store(database, "user", _stay)
        list_id = await store.edit.add_list("Everything")
        values = [
            [f"{number:08}-0000-4000-8000-000000000000", list_id, f"2026-01-01T00:00:00.{number:06}Z", f"Row {number}"]
            for number in range(rows)
        ]
        await database.execute_many(
            "INSERT INTO todos (id, list_id, created_at, description, completed) VALUES (?, ?, ?, ?, 0)", values
        )
        last = [each async for each in database.crud_transactions()][-1]
        await last.complete()
    return list_id


async def _stay() -> None:
    """Nothing syncs while it is measured."""


def told(name: str, seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"{name}: median {statistics.median(ordered) * 1000:.1f} ms, p95 {p95 * 1000:.1f} ms of {len(ordered)}"


async def put_rows(http: httpx.AsyncClient, rows: int, first_digit: int) -> None:
    """A list, made by another client, with so many to-dos."""
    list_id = str(uuid.uuid4())
    await write(http, entry("PUT", "lists", list_id, name=f"List {first_digit}"))
    for first in range(0, rows, 1000):
        puts = [
            entry(
                "PUT",
                "todos",
                f"{first_digit}{number:07}-0000-4000-8000-000000000000",
                list_id=list_id,
                created_at=f"2026-01-01T00:00:00.{number:06}Z",
                description=f"Row {number}",
            )
            for number in range(first, min(rows, first + 1000))
        ]
        await write(http, *puts)


def other_client(url: str, user: str, rows: int) -> None:
    """Many rows for another list, from a process that would have a machine of its own."""
    os.nice(10)

    async def put() -> None:
        async with aclosing(await signed_in(url, user)) as http:
            await put_rows(http, rows, 1)

    asyncio.run(put())


def _environment(data_dir: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # Modules are compiled once then, as pip does with all that it installs.
    return {**kept, "TODO_TUI_DATA_DIR": str(data_dir)}


async def synced(scratch: Path, rows: int, count: int) -> None:
    """With a real backend: a first sync of so many to-dos, rows of another client, and keys while as many more come."""
    user = str(uuid.uuid4())
    with backend() as (url, _):
        http = await signed_in(url, user)
        await put_rows(http, rows, 0)
        environment = _environment(scratch)
        program = [str(Path(sys.executable).with_name("todo-tui")), "--backend", url, "--user", user]
        terminal = Terminal(program, environment)
        seconds = await asyncio.to_thread(terminal.read_until, f"{rows:,} open".encode()) - terminal.started
        print(f"start, and first sync of all rows: {seconds:.1f} s")
        terminal.until_quiet(1.0)
        found: list[float] = []
        for number in range(count):
            terminal.until_quiet()
            terminal.seen = b""
            row_id = f"{0:08}-0000-4000-8000-000000000000"
            await write(http, entry("PATCH", "todos", row_id, description=f"Edited {number}."))
            began = time.perf_counter()
            found.append(await asyncio.to_thread(terminal.read_until, f"{number}.".encode()) - began)
        print(told("a row of another client, from the backend's answer to the screen", found))
        terminal.press(b"\x1b[C")
        other = multiprocessing.get_context("spawn").Process(target=other_client, args=(url, user, rows))
        other.start()
        pressed = [terminal.press(b"j", quiet=0.02) for _ in range(count)]
        while other.is_alive():
            pressed.append(terminal.press(b"j", quiet=0.02))
        print(told("down while as many rows come for another list", pressed))
        print(f"memory {terminal.memory()} MB")
        terminal.end()
        await http.aclose()


async def commits(directory: Path, list_id: str, terminal: Terminal, count: int) -> list[float]:
    """Seconds from a commit of this process to its row on the screen of the other."""
    found: list[float] = []
    async with PowerSyncDatabase(directory / "todo.db", APP_SCHEMA) as database:
        store = Store(database, "user", _stay)
        first = f"{0:08}-0000-4000-8000-000000000000"
        for number in range(count):
            terminal.until_quiet()
            terminal.seen = b""
            await store.edit.edit_todo(first, f"Edited {number}.")
            began = time.perf_counter()
            found.append(await asyncio.to_thread(terminal.read_until, f"{number}.".encode()) - began)
    assert list_id
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.interface", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        list_id = asyncio.run(fill(directory, arguments.rows))
        environment = _environment(directory)
        program = [str(Path(sys.executable).with_name("todo-tui")), "--backend", _BACKEND]
        bare = [sys.executable, "-c", _BARE, str(directory / "todo.db")]
        starts: dict[str, list[float]] = {"todo-tui": [], "a bare Textual app": []}
        for _ in range(arguments.rounds):
            for name, command in (("todo-tui", program), ("a bare Textual app", bare)):
                terminal = Terminal(command, environment)
                starts[name].append(terminal.read_until(b"Row 1") - terminal.started)
                terminal.end()
        ratio = statistics.median(starts["todo-tui"]) / statistics.median(starts["a bare Textual app"])
        for name, seconds in starts.items():
            print(told(f"start of {name} to its first rows", seconds))
        print(f"ratio {ratio:.2f}")
        terminal = Terminal(program, environment)
        terminal.read_until(b"Row 1")
        terminal.until_quiet(1.0)
        terminal.press(b"\x1b[C")
        print(told("down to the first painted bytes", [terminal.press(b"j") for _ in range(100)]))
        print(told("a page down", [terminal.press(b"\x1b[6~") for _ in range(50)]))
        print(f"memory {terminal.memory()} MB")
        terminal.press(b"g")
        print(told("commit of another process to its row", asyncio.run(commits(directory, list_id, terminal, 20))))
        terminal.press(b"/")
        print(
            told(
                "a letter in the filter, to the first painted bytes",
                [terminal.press(each) for each in (b"R", b"o", b"w")],
            )
        )
        print(f"memory {terminal.memory()} MB")
        terminal.end()
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(synced(Path(scratch), arguments.rows, 20))


if __name__ == "__main__":
    main()
