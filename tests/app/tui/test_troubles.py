"""What the user is told when something is wrong, and that the app goes on."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.store import Store
from app.store.schema import APP_SCHEMA
from app.tui.app import TodoApp
from app.tui.widgets.lines import KeyBar
from sync import NetworkError, PowerSyncDatabase, SyncStatus
from tests.app.conftest import NOW
from tests.kit import inside

from .harness import filled, line_text, running

OFFLINE = SyncStatus(wanted=True, upload_queue_count=3, download_error=NetworkError("The service cannot be reached."))
REFUSED = SyncStatus(
    wanted=True,
    connected=True,
    upload_queue_count=3,
    upload_error=NetworkError("[b]No[/b] \x1b[2J\nthanks" + "x" * 999),
)


@pytest.mark.parametrize(
    ("status", "width", "words"),
    [
        (OFFLINE, 80, "○ Offline · 3 changes waiting · The service cannot be reached"),
        (OFFLINE, 60, "○ Offline · 3 changes waiting · The service cannot be r…"),
        (OFFLINE, 40, "○ Offline · 3 waiting"),
        (REFUSED, 80, "● Connected · 3 changes waiting: [b]No[/b] ␛[2J thanksxxx"),
        (REFUSED, 40, "● Connected · 3 changes waiting"),
    ],
)
async def test_the_status_line_tells_why(store: Store, status: SyncStatus, width: int, words: str):
    async with running(store, (width, 12)) as run:
        run.main.show_status(status)
        assert run.status_text.strip().startswith(words)
        assert "\x1b" not in run.status_text
        run.main.show_status(replace(status, upload_error=None, download_error=None))
        assert "service" not in run.status_text
        assert "No" not in run.status_text


async def test_a_problem_of_the_backend_goes_before_other_reasons(store: Store):
    problem = "Port 4711 is taken by [i]something\x1b[2J[/i]."
    async with running(store) as run:
        run.main.show_status(OFFLINE)
        for _ in range(2):
            run.app.show_problem(problem)
        assert "3 changes waiting · Port 4711 is taken by [i]something␛" in run.status_text
        await run.until(lambda: run.toasts == ["Port 4711 is taken by [i]something␛[2J[/i]."])
        run.app.show_problem(None)
        assert "The service cannot be reached" in run.status_text
        run.app.show_problem(problem)
        await run.until(lambda: len(run.toasts) == 2)


async def test_a_problem_may_be_known_before_the_app_runs(store: Store):
    app = TodoApp(store, now=lambda: NOW, connect=False)
    app.show_problem("Port 4711 is taken.")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert [toast.message for toast in app._notifications] == ["Port 4711 is taken."]
        assert "Port 4711 is taken" in app.export_screenshot().replace("&#160;", " ")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, database: PowerSyncDatabase) -> Iterator[set[str]]:
    """Kinds of work of the database that fail for now: `"read"`, `"write"`."""
    kinds: set[str] = set()
    monkeypatch.setattr("app.store.failures.FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr("app.store.failures.LONGEST_WAIT_SECONDS", 0.05)

    def breakable(kind: str) -> None:
        work = getattr(inside.pool_of(database), kind)

        async def broken(function: Any) -> Any:
            if kind in kinds:
                raise sqlite3.OperationalError("out of order")
            return await work(function)

        monkeypatch.setattr(inside.pool_of(database), kind, broken)

    breakable("read")
    breakable("write")
    return iter([kinds]).__next__()


async def test_the_panes_go_on_after_a_query_failed_and_tell_it_once(store: Store, failing: set[str]):
    await filled(store)
    async with running(store) as run:
        await run.press("down")
        await run.until(lambda: run.texts == ["Fix the tap", "Plant the tomatoes"])
        for trouble in (1, 2):
            failing.add("read")
            await store.edit.add_list(f"Late {trouble}")
            await store.edit.add_todo(run.lists.rows[6].id, f"Late {trouble}")
            await run.until(lambda: any("lists cannot be shown" in toast for toast in run.toasts))
            await asyncio.sleep(0.3)
            failing.clear()
            await run.until(lambda trouble=trouble: f"Late {trouble}" in run.names)
            await run.until(lambda trouble=trouble: f"Late {trouble}" in run.texts)
            told = [toast for toast in run.toasts if "lists cannot" in toast]
            assert told == ["The lists cannot be shown: out of order. Retrying."] * trouble


async def test_new_lists_are_subscribed_though_a_subscription_failed_before(store: Store, failing: set[str]):
    await filled(store)
    async with running(store) as run:
        await run.until(lambda: len(store.status.streams) == 3)
        failing.add("write")
        await store.edit.add_list("Late")
        told = ["Some lists may not sync: out of order. Retrying."]
        await run.until(lambda: run.toasts == told)
        await asyncio.sleep(0.3)
        failing.clear()
        await run.until(lambda: len(store.status.streams) == 4)
        assert run.toasts == told


async def test_a_database_that_closes_under_the_app_is_no_crash(tmp_path: Path):
    async def connect() -> None: ...

    database = PowerSyncDatabase(tmp_path / "closing.db", APP_SCHEMA)
    await database.open()
    store = Store(database, "user-1", connect, now=lambda: NOW)
    await filled(store)
    async with running(store) as run:
        await database.close()
        await run.press("right", "x")
        await run.until(lambda: run.toasts == ["The to-do was not changed: the database is closed."])
        await run.press("d")
        await run.until(lambda: len(run.toasts) == 2)


async def test_the_first_paint_does_not_wait_for_the_database(store: Store, database: PowerSyncDatabase):
    await filled(store)
    release = asyncio.Event()

    async def hold() -> None:
        async with database.write_transaction():
            await release.wait()

    holding = asyncio.create_task(hold())
    app = TodoApp(store, now=lambda: NOW, connect=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert "Lists" in app.export_screenshot()
        await pilot.press("right", "space")
        assert line_text(app.screen.query_one(KeyBar)).strip()
        release.set()
        await holding
