"""The whole road: a real backend process, and clients with files of their own, as two terminals would have them."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Self

from app.connection.account import account_of
from app.connection.connector import HttpConnector
from app.settings.sources import load_settings
from app.store import Store, Todo, TodoList
from app.store.schema import APP_SCHEMA
from app.todo_text.badges import FRESH
from sync import PowerSyncDatabase, SyncOptions, SyncStatus
from tests.app.conftest import NOW
from tests.app.tui.harness import painted, running

USER = "7c2a9c1e-4d55-4b7c-9a5e-0c8a4f1d2b3c"
OPTIONS = SyncOptions(retry_delay=0.05, max_retry_delay=0.2)
NO_SECOND_ATTEMPT = SyncOptions(retry_delay=1e6, max_retry_delay=1e6, silence_timeout=1e6)
NO_KEEPALIVES = """
import asyncio, sys
from pathlib import Path
from app.backend import BackendConfig, serve
config = BackendConfig(Path(sys.argv[1]), port=0, open_to_all=True, keepalive_seconds=1e6)
asyncio.run(serve(config, on_ready=lambda url: print(url, flush=True)))
"""


class BackendProcess:
    """`todo-tui backend` as a process of its own, on one port and file over its restarts.

    With `keepalives=False` it sends nothing by the clock, and cannot be started again.
    """

    def __init__(self, database: Path, *, keepalives: bool = True) -> None:
        self.database = database
        self._keepalives = keepalives
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        database = str(self.database)
        command = ["-m", "app", "backend", "--open", "--port", str(self.port), "--database", database]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(command if self._keepalives else ["-c", NO_KEEPALIVES, database]),
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            url = (await self._process.stdout.readline()).decode().strip()
        self.port = int(url.rpartition(":")[2])

    async def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
            self._process = None


@asynccontextmanager
async def backend_process(database: Path, *, keepalives: bool = True) -> AsyncGenerator[BackendProcess]:
    backend = BackendProcess(database, keepalives=keepalives)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.kill()


class Client:
    """One terminal's engine and store."""

    def __init__(self, path: Path, backend: BackendProcess, options: SyncOptions = OPTIONS) -> None:
        self._path = path
        self._backend = backend
        self._options = options
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.database = await self._stack.enter_async_context(PowerSyncDatabase(self._path, APP_SCHEMA))
        connector = HttpConnector(self._backend.url, USER)
        self._stack.push_async_callback(connector.aclose)

        async def connect() -> None:
            await self.database.connect(connector, self._options)

        self.store = Store(self.database, USER, connect, now=lambda: NOW)
        await self.store.connect()
        self._keeper = asyncio.create_task(self.store.keep_subscribed())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        await self.database.disconnect()
        await self._stack.aclose()

    async def until_status(self, wanted: Callable[[SyncStatus], bool], seconds: float = 60) -> SyncStatus:
        async with asyncio.timeout(seconds):
            async for status in self.store.watch_status():
                if wanted(status):
                    return status
        raise AssertionError("the database was closed")

    async def until_lists(self, wanted: Callable[[list[TodoList]], bool], seconds: float = 60) -> list[TodoList]:
        async with asyncio.timeout(seconds):
            async for lists in self.store.watch_lists():
                if wanted(lists):
                    return lists
        raise AssertionError("the database was closed")

    async def until_todos(self, list_id: str, wanted: Callable[[list[Todo]], bool], seconds: float = 60) -> list[Todo]:
        async with asyncio.timeout(seconds):
            async for read in self.store.watch_view(list_id):
                if wanted(read.todos):
                    return read.todos
        raise AssertionError("the database was closed")

    async def everything(self) -> list[list[Any]]:
        """All rows, as the views show them."""
        found: list[list[Any]] = []
        for sql in ("SELECT * FROM lists ORDER BY id", "SELECT * FROM todos ORDER BY id"):
            found += [list(row) for row in await self.database.get_all(sql)]
        return found


def texts(todos: list[Todo]) -> list[tuple[str | None, bool]]:
    return [(todo.description, todo.completed) for todo in todos]


def is_settled(status: SyncStatus) -> bool:
    return status.connected and status.upload_queue_count == 0 and not status.uploading


async def test_two_terminals_one_list(tmp_path: Path) -> None:
    """What one does comes to the other by itself: neither a second attempt nor a keepalive would bring it."""
    async with (
        backend_process(tmp_path / "backend.db", keepalives=False) as backend,
        Client(tmp_path / "one.db", backend, NO_SECOND_ATTEMPT) as one,
        Client(tmp_path / "two.db", backend, NO_SECOND_ATTEMPT) as two,
    ):
        list_id = await one.store.edit.add_list("Groceries")
        lists = await two.until_lists(bool)
        assert [(found.id, found.name) for found in lists] == [(list_id, "Groceries")]
        first = await one.store.edit.add_todo(list_id, "Milk")
        await two.until_todos(list_id, lambda todos: texts(todos) == [("Milk", False)])

        async def shows(wanted: list[tuple[str, bool]]) -> None:
            await two.until_todos(list_id, lambda todos: texts(todos) == wanted)

        await one.store.edit.add_todo(list_id, "Bread")
        await shows([("Milk", False), ("Bread", False)])
        await one.store.edit.edit_todo(first, "Oat milk")
        await shows([("Oat milk", False), ("Bread", False)])
        await one.store.edit.set_completed([first], completed=True)
        await shows([("Bread", False), ("Oat milk", True)])
        counts = await two.until_lists(lambda lists: lists[0].done_count == 1)
        assert (counts[0].open_count, counts[0].done_count) == (1, 1)
        await one.store.edit.delete_todos([first])
        await shows([("Bread", False)])
        await two.store.edit.rename_list(list_id, "Food")
        await one.until_lists(lambda lists: lists[0].name == "Food")
        await two.store.edit.delete_list(list_id)
        await one.until_lists(lambda lists: lists == [])


async def test_both_work_on_while_the_backend_is_dead_and_agree_when_it_returns(tmp_path: Path) -> None:
    async with (
        backend_process(tmp_path / "backend.db") as backend,
        Client(tmp_path / "one.db", backend) as one,
        Client(tmp_path / "two.db", backend) as two,
    ):
        list_id = await one.store.edit.add_list("Trip")
        shared = await one.store.edit.add_todo(list_id, "Tickets")
        await two.until_todos(list_id, lambda todos: len(todos) == 1)
        await two.until_status(is_settled)

        await backend.kill()
        for client in (one, two):
            status = await client.until_status(
                lambda status: not status.connected and status.download_error is not None
            )
            assert status.wanted
        mine = await one.store.edit.add_todo(list_id, "Passport")
        await one.store.edit.edit_todo(shared, "Train tickets")
        await two.store.edit.set_completed([shared], completed=True)
        theirs = await two.store.edit.add_todo(list_id, "Hotel")
        await one.until_status(lambda status: status.upload_queue_count == 2)
        await two.until_status(lambda status: status.upload_queue_count == 2)
        assert {row[0] for row in await one.database.get_all("SELECT id FROM todos")} == {shared, mine}

        await backend.start()
        for client in (one, two):
            await client.until_status(is_settled)
            todos = await client.until_todos(
                list_id,
                lambda todos: (
                    {todo.id for todo in todos} == {shared, mine, theirs} and ("Train tickets", True) in texts(todos)
                ),
            )
            assert len(todos) == 3
        assert await one.everything() == await two.everything()


async def test_offline_edits_outlive_a_restart(tmp_path: Path) -> None:
    async with backend_process(tmp_path / "backend.db") as backend:
        async with Client(tmp_path / "one.db", backend) as one:
            list_id = await one.store.edit.add_list("Home")
            await one.until_status(is_settled)
            await one.until_status(lambda status: status.has_synced)
            await backend.kill()
            await one.until_status(lambda status: not status.connected)
            await one.store.edit.add_todo(list_id, "Lamp")
        async with Client(tmp_path / "one.db", backend) as one:
            assert one.store.status.upload_queue_count == 1
            assert one.store.status.has_synced
            await one.until_todos(list_id, lambda todos: texts(todos) == [("Lamp", False)])
            await backend.start()
            await one.until_status(is_settled)
        with closing(sqlite3.connect(backend.database)) as connection:
            assert connection.execute("SELECT description FROM todos").fetchall() == [("Lamp",)]


async def test_a_backend_whose_data_was_replaced_gets_nothing_and_takes_nothing(tmp_path: Path) -> None:
    """A wrong --database for the backend is enough for that."""
    async with backend_process(tmp_path / "backend.db") as backend:
        async with PowerSyncDatabase(tmp_path / "one.db", APP_SCHEMA) as database:
            settings = load_settings(options={"data_dir": tmp_path, "backend_url": backend.url, "user_id": USER})
            connector = HttpConnector(backend.url, USER, check=account_of(settings))

            async def connect() -> None:
                await database.connect(connector, OPTIONS)

            store = Store(database, USER, connect, now=lambda: NOW)
            list_id = await store.edit.add_list("Mine")
            await store.connect()
            async with asyncio.timeout(60):
                async for status in store.watch_status():
                    if is_settled(status) and status.has_synced:
                        break
            await backend.kill()
            backend.database = tmp_path / "other.db"
            await backend.start()
            await store.edit.add_todo(list_id, "Waiting")
            async with asyncio.timeout(60):
                async for status in store.watch_status():
                    refused = "now has other lists than" in str(status.download_error)
                    # The count follows a commit by some milliseconds.
                    if refused and status.upload_queue_count == 1:
                        break
            assert (await database.get("SELECT count(*) FROM lists"))[0] == 1
            assert (await database.upload_queue_stats()).entries == 1
            await database.disconnect()
            await connector.aclose()
        with closing(sqlite3.connect(backend.database)) as connection:
            assert connection.execute("SELECT count(*) FROM todos").fetchone() == (0,)


async def test_a_client_killed_by_force_loses_nothing_that_it_wrote(tmp_path: Path) -> None:
    """Each line that the process prints stands for a write that had returned before it."""
    program = f"""
import asyncio
from sync import PowerSyncDatabase
from app.store.schema import APP_SCHEMA

async def main():
    async with PowerSyncDatabase({str(tmp_path / "one.db")!r}, APP_SCHEMA) as database:
        number = 0
        while True:
            await database.execute("INSERT INTO lists(id, name) VALUES (?, 'x')", [str(number)])
            print(number, flush=True)
            number += 1

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        for _ in range(50):
            await process.stdout.readline()
    process.kill()
    printed = 50 + len((await process.stdout.read()).splitlines())
    await process.wait()
    async with PowerSyncDatabase(tmp_path / "one.db", APP_SCHEMA) as database:
        kept = [int(row[0]) for row in await database.get_all("SELECT id FROM lists ORDER BY CAST(id AS INTEGER)")]
        assert len(kept) >= printed
        assert kept == list(range(len(kept)))
        assert database.status.upload_queue_count == len(kept)
        assert (await database.get("PRAGMA integrity_check"))[0] == "ok"


async def test_what_another_terminal_changed_is_pointed_out_for_a_moment(tmp_path: Path) -> None:
    async with (
        backend_process(tmp_path / "backend.db") as backend,
        Client(tmp_path / "one.db", backend) as one,
        Client(tmp_path / "two.db", backend) as two,
    ):
        list_id = await one.store.edit.add_list("Groceries")
        milk, _ = await one.store.edit.add_todos(list_id, ["Milk", "Bread"])
        await two.until_todos(list_id, lambda todos: len(todos) == 2)
        async with running(two.store) as run:
            assert not any(FRESH.text in line for line in painted(run.todos))
            await one.store.edit.edit_todo(milk, "Oat milk")
            await run.until(lambda: "Oat milk" in (run.texts[0] or ""))
            assert [FRESH.text in line for line in painted(run.todos)[:2]] == [True, False]
            await run.press("right", "j", "e", *" rolls", "enter")
            await run.until(lambda: run.texts[1] == "Bread rolls")
            assert FRESH.text not in painted(run.todos)[1]
            await run.until(lambda: FRESH.text not in painted(run.todos)[0])
