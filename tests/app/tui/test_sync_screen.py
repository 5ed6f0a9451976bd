"""The sync screen, by key, over a real database and a backend that refuses what is not right any more."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from pytest_textual_snapshot import SVGImageExtension
from syrupy.assertion import SnapshotAssertion
from textual.widgets import Static

from app.backend import BackendConfig
from app.connection.connector import HttpConnector
from app.store import Store
from app.store.sync_report import RejectedChange, ReplacedChange
from app.system.recent_log import KEPT_LINES, RecentLog
from app.tui.screens.confirm import ConfirmScreen
from app.tui.screens.help import HelpScreen
from app.tui.screens.sync import SyncScreen
from app.tui.widgets.lines import KeyBar, StatusLine, TitleLine
from app.tui.widgets.row_list import RowList
from sync import CrudTransaction, PowerSyncDatabase, SyncOptions, Verdict
from tests.app.backend.harness import User, delete, patch, put, signed_in
from tests.app.backend.harness import running as running_backend
from tests.app.conftest import NOW

from .harness import Running, line_text, running

Entry = dict[str, Any]

USER = "7c1f8c5e-61f7-4b0a-8f0e-2d4d8f0b6a11"
QUICK = SyncOptions(retry_delay=0.01, max_retry_delay=0.05)
REASON = "does not exist; it may have been deleted"


def sync_screen(run: Running) -> SyncScreen:
    return cast("SyncScreen", run.app.screen)


def rows(run: Running) -> RowList[RejectedChange | ReplacedChange]:
    return sync_screen(run).query_one(RowList)


def text(run: Running, widget_id: str) -> str:
    return str(sync_screen(run).query_one(f"#{widget_id}", Static).render())


def keys(run: Running) -> str:
    return line_text(sync_screen(run).query_one(KeyBar))


async def opened(run: Running) -> None:
    """Press the key, and wait until the screen has been told everything."""
    await run.press("S")
    await run.until(lambda: isinstance(run.app.screen, SyncScreen) and bool(text(run, "explanation")))
    await run.until(lambda: bool(rows(run).rows or rows(run)._empty))


async def asked(run: Running, key: str) -> None:
    await run.press(key)
    await run.until(lambda: isinstance(run.app.screen, ConfirmScreen))


async def answered(run: Running, key: str) -> None:
    await run.press(key)
    await run.until(lambda: isinstance(run.app.screen, SyncScreen))


@pytest.fixture
async def elsewhere(tmp_path: Path) -> AsyncGenerator[User]:
    """The same user on another device, at a backend of its own."""
    async with (
        running_backend(BackendConfig(tmp_path / "backend" / "backend.db", port=0, open_to_all=True)) as url,
        signed_in(url, USER) as user,
    ):
        yield user


@pytest.fixture
def overtaken() -> list[Entry]:
    """What is written elsewhere after the next upload, before this device hears of that."""
    return []


@pytest.fixture
async def syncing(elsewhere: User, database: PowerSyncDatabase, overtaken: list[Entry]) -> AsyncGenerator[Store]:
    """A store that syncs with that backend when it is asked to."""

    class Overtaken(HttpConnector):
        async def upload_transactions(self, transactions: Sequence[CrudTransaction]) -> Sequence[Verdict]:
            verdicts = await super().upload_transactions(transactions)
            while overtaken:
                await elsewhere.write(overtaken.pop())
            return verdicts

    connector = Overtaken(str(elsewhere.http.base_url), USER)

    async def connect() -> None:
        await database.connect(connector, QUICK)

    yield Store(database, USER, connect, now=lambda: NOW)
    await database.disconnect()
    await connector.aclose()


async def in_step(store: Store, database: PowerSyncDatabase) -> None:
    await store.connect()
    await database.wait_for_sync(10)


@asynccontextmanager
async def refused(syncing: Store, database: PowerSyncDatabase, elsewhere: User) -> AsyncGenerator[tuple[Running, str]]:
    """The app after a to-do was refused, because its list was deleted elsewhere; and the list's id."""
    list_id = await syncing.edit.add_list("Home")
    await in_step(syncing, database)
    async with running(syncing) as run:
        await syncing.disconnect()
        await syncing.edit.add_todo(list_id, "Paint [b]the\x1b[2J door")
        await elsewhere.write(delete("lists", list_id))
        await syncing.connect()
        await run.until(lambda: "1 rejected" in run.status_text)
        yield run, list_id


async def test_a_rejected_change_is_told_with_the_key_that_shows_it(
    syncing: Store, database: PowerSyncDatabase, elsewhere: User
):
    async with refused(syncing, database, elsewhere) as (run, _):
        (toast,) = run.toasts
        assert toast.startswith("The backend rejected: Add the to-do “Paint [b]the␛[2J door” to ")
        assert toast.endswith(". Press S to see why.")
        await run.until(lambda: run.names == [])
        await opened(run)
        assert [row.id for row in rows(run).rows] == ["rejected-1"]
        assert (
            text(run, "detail").splitlines()[0]
            == "Add the to-do “Paint [b]the␛[2J door” to a list that no longer exists"
        )
        assert REASON in text(run, "detail")
        assert line_text(sync_screen(run).query_one(TitleLine)).endswith("1 rejected")
        assert "r Retry" in keys(run)
        assert "d Discard" in keys(run)
        assert "x Dismiss" not in keys(run)
        await run.press("escape")
        await run.until(lambda: run.app.screen is run.main)


async def test_a_retried_change_arrives_when_the_backend_takes_it(
    syncing: Store, database: PowerSyncDatabase, elsewhere: User
):
    async with refused(syncing, database, elsewhere) as (run, list_id):
        await opened(run)
        await run.press("r")
        await run.until(lambda: "2 times in all" in text(run, "detail"))
        assert len(run.toasts) == 1  # what is on the screen needs no toast
        await elsewhere.write(
            put("lists", list_id, name="Home again", owner_id=USER, created_at="2026-03-01T00:00:00Z")
        )
        await run.press("r")
        await run.until(lambda: not rows(run).rows)
        await database.wait_for_upload(10)
        await run.press("S")
        await run.until(lambda: run.app.screen is run.main)
        await run.until(lambda: run.names == ["Home again"] and run.texts == ["Paint [b]the\x1b[2J door"])
        assert "rejected" not in run.status_text


async def test_a_change_is_discarded_after_a_yes_only(syncing: Store, database: PowerSyncDatabase, elsewhere: User):
    async with refused(syncing, database, elsewhere) as (run, _):
        await opened(run)
        await asked(run, "d")
        await answered(run, "n")
        assert len(await database.rejected_writes()) == 1
        await asked(run, "d")
        await answered(run, "y")
        await run.until(lambda: not rows(run).rows)
        assert await database.rejected_writes() == []
        assert not sync_screen(run).has_class("-changes")
        assert "d Discard" not in keys(run)


async def test_what_was_decided_elsewhere_is_told(syncing: Store, database: PowerSyncDatabase, elsewhere: User):
    async with refused(syncing, database, elsewhere) as (run, _):
        await opened(run)
        await asked(run, "d")
        await (await database.rejected_writes())[0].discard()
        await answered(run, "y")
        told = "The change was not discarded: it has already been retried or discarded elsewhere."
        await run.until(lambda: run.toasts[-1] == told)


async def test_what_others_replaced_is_shown_and_dismissed(
    syncing: Store, database: PowerSyncDatabase, elsewhere: User, overtaken: list[Entry]
):
    list_id = await syncing.edit.add_list("Home")
    todo_ids = await syncing.edit.add_todos(list_id, ["Milk", "Eggs"])
    await in_step(syncing, database)
    async with running(syncing) as run:
        await run.until(lambda: run.texts == ["Milk", "Eggs"])
        for todo_id, mine, theirs in zip(todo_ids, ["Oat milk", "6 eggs"], ["Soy milk", "12 eggs"], strict=True):
            overtaken.append(patch("todos", todo_id, description=theirs))
            await syncing.edit.edit_todo(todo_id, mine)
            await run.until(lambda theirs=theirs: theirs in run.texts)
        await opened(run)
        assert text(run, "detail").splitlines()[:3] == [
            "Text of the to-do “Soy milk”",
            "Yours: “Oat milk”",
            "Theirs: “Soy milk”",
        ]
        assert "r Retry" not in keys(run)
        await run.press("down")
        await run.until(lambda: "Yours: “6 eggs”" in text(run, "detail"))
        await asked(run, "x")
        assert "this and 1 older" in str(run.app.screen.query_one("#question", Static).render())
        await answered(run, "y")
        await run.until(lambda: not rows(run).rows)
        assert await database.conflicts() == ()


async def test_pausing_and_resuming_are_told_at_once(syncing: Store, database: PowerSyncDatabase):
    await in_step(syncing, database)
    async with running(syncing) as run:
        await opened(run)
        await run.until(lambda: text(run, "explanation").startswith("Everything is synced"))
        await run.press("c")
        await run.until(lambda: text(run, "explanation").startswith("Syncing is paused"))
        assert "connect()" not in text(run, "explanation")
        assert "Paused" in line_text(sync_screen(run).query_one(StatusLine))
        assert "c Connect" in keys(run)
        await run.press("c")
        await run.until(lambda: text(run, "explanation").startswith("Everything is synced"))


async def test_a_problem_of_the_backend_is_told_here_too(store: Store):
    async with running(store) as run:
        run.app.show_problem("Port 4711 is taken.")
        await opened(run)
        assert "Port 4711 is taken" in line_text(sync_screen(run).query_one(StatusLine))
        run.app.show_problem("Port 4712 is taken.")
        assert "Port 4712 is taken" in line_text(sync_screen(run).query_one(StatusLine))
        await run.press("question_mark")
        await run.until(lambda: isinstance(run.app.screen, HelpScreen))


# What it looks like

CHANGES = (
    [
        RejectedChange(
            "rejected-1",
            ("Add the to-do “Oat milk” to a list that no longer exists", "Mark the to-do “Oat milk” as done"),
            "The list 'c0ffee' of a to-do does not exist; it may have been deleted.",
            NOW - timedelta(minutes=3),
            2,
        ),
        RejectedChange("rejected-2", ("Rename the list “Home” to “[b]Work[/b]\x1b[2J”",), "No.", NOW, 1),
    ],
    [ReplacedChange("replaced-1", "Text of the to-do “Rye bread”", "“Bread”", "“Rye bread”", NOW)],
)


@pytest.mark.parametrize("theme", ["todo-dark", "todo-light"])
@pytest.mark.parametrize("content", ["empty", "changes"])
@pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 20), (40, 12)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_pictures(store: Store, snapshot: SnapshotAssertion, size: tuple[int, int], content: str, theme: str):
    async with running(store, size) as run:
        run.app.theme = theme
        await opened(run)
        if content == "changes":
            sync_screen(run).show_changes(*CHANGES)
        await run.pilot.pause()
        await run.pilot.pause()
        picture = run.app.export_screenshot(title="todo-tui")
        assert picture == snapshot.use_extension(SVGImageExtension)


# What waits, what can be mended, and what can be told


async def test_what_waits_is_shown_by_transaction(store: Store):
    list_id = await store.edit.add_list("Home")
    await store.edit.add_todos(list_id, ["Milk", "Bread"])
    async with running(store) as run:
        await opened(run)
        await run.until(lambda: len(rows(run).rows) == 2)
        assert [rows(run).render_line(y).text[2:30].rstrip() for y in range(2)] == [
            "↑ Add the list “Home”",
            "↑ Add the to-do “Milk” to “H",
        ]
        await run.press("down")
        await run.until(lambda: "Add the to-do “Bread”" in text(run, "detail"))
        await store.edit.undo()
        await run.until(lambda: len(rows(run).rows) == 3)


async def test_a_rejected_change_is_mended_and_sent_again(syncing: Store, database: PowerSyncDatabase, elsewhere: User):
    async with refused(syncing, database, elsewhere) as (run, list_id):
        await opened(run)
        await run.press("y")
        await run.until(lambda: "Paint [b]the" in run.app.clipboard)
        await run.press("e", "escape")
        await run.until(lambda: isinstance(run.app.screen, SyncScreen))
        await elsewhere.write(put("lists", list_id, name="Home", owner_id=USER, created_at="2026-03-01T00:00:00Z"))
        await run.press("e", *" blue", "enter")
        await run.until(lambda: isinstance(run.app.screen, SyncScreen) and not rows(run).rows)
        await database.wait_for_upload(10)
        await run.press("S")
        await run.until(lambda: run.texts == ["Paint [b]the\x1b[2J door blue"])


async def test_rejected_changes_are_exported_into_a_new_file(
    syncing: Store, database: PowerSyncDatabase, elsewhere: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    async with refused(syncing, database, elsewhere) as (run, _):
        await opened(run)
        await run.press("E", "enter")
        await run.until(lambda: any("Exported 1 change to" in told for told in run.toasts))
        (file,) = tmp_path.glob("todo-tui-rejected-*.json")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        (kept,) = json.loads(file.read_text())
        assert kept == json.loads(syncing.report.as_json(rows(run).rows[0].id))
        await run.press("E", "enter")
        await run.until(lambda: any("already exists" in told for told in run.toasts))
        await run.press("E", *"/nowhere/x", "enter")
        await run.until(lambda: any("Nothing was exported" in told for told in run.toasts))
        assert len(rows(run).rows) == 1, "they stay here too"


async def test_diagnostics_hold_no_texts(store: Store):
    list_id = await store.edit.add_list("Secret plans")
    await store.edit.add_todo(list_id, "Hide the treasure")
    told = await store.report.diagnostics()
    assert "waiting: 2 changes in 2 transactions" in told
    assert "Secret" not in told
    assert "treasure" not in told
    async with running(store) as run:
        await opened(run)
        await run.press("Y")
        await run.until(lambda: "waiting: 2 changes" in run.app.clipboard)


async def test_the_last_lines_of_the_log_are_shown_harmless(store: Store):
    recent = RecentLog()
    logger = logging.getLogger("tests.recent")
    logger.addHandler(recent)
    logger.propagate = False
    for number in range(KEPT_LINES + 5):
        logger.warning("line %d \x1b[2J", number)
    try:
        async with running(store, log=recent.lines) as run:
            await opened(run)
            await run.press("l")
            await run.until(lambda: f"line {KEPT_LINES + 4} ␛[2J" in text(run, "detail").splitlines()[0])
            assert len(text(run, "detail").splitlines()) == KEPT_LINES
            await run.press("l")
            await run.until(lambda: not sync_screen(run).has_class("-changes"))
    finally:
        logger.removeHandler(recent)
