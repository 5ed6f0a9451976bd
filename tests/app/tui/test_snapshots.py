"""What the app looks like: SVG snapshots at fixed sizes, clock and state."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from pytest_textual_snapshot import SVGImageExtension
from syrupy.assertion import SnapshotAssertion
from textual.widgets import Input

from app.store import Store
from app.tui.screens.confirm import ConfirmScreen
from app.tui.screens.help import HelpScreen
from sync import NetworkError, SyncStatus
from tests.app.conftest import NOW

from .harness import Running, filled, running

CONNECTED = SyncStatus(wanted=True, connected=True, last_synced_at=NOW - timedelta(seconds=20))
STATES = {
    "filled": CONNECTED,
    "offline": SyncStatus(
        wanted=True, last_synced_at=NOW - timedelta(minutes=42), download_error=NetworkError("no route")
    ),
    "waiting": replace(CONNECTED, upload_queue_count=3),
}
SIZES = [(80, 24), (120, 40)]


@pytest.fixture
def snapshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(SVGImageExtension)


def size_name(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


async def picture(run: Running, status: SyncStatus = CONNECTED) -> str:
    await run.pilot.pause()
    run.main.show_status(status)
    for field in run.app.screen.query(Input):
        field.cursor_blink = False
    await run.pilot.pause()
    return run.app.export_screenshot(title="todo-tui")


@pytest.mark.parametrize("size", SIZES, ids=size_name)
async def test_empty(store: Store, snapshot: SnapshotAssertion, size: tuple[int, int]):
    async with running(store, size) as run:
        assert await picture(run) == snapshot


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("size", SIZES, ids=size_name)
async def test_main(store: Store, snapshot: SnapshotAssertion, size: tuple[int, int], state: str):
    await filled(store)
    async with running(store, size) as run:
        await run.press("right", "down")
        assert await picture(run, STATES[state]) == snapshot


@pytest.mark.parametrize("pane", ["lists", "todos"])
@pytest.mark.parametrize("size", [(40, 12), (60, 20)], ids=size_name)
async def test_little_room(store: Store, snapshot: SnapshotAssertion, size: tuple[int, int], pane: str):
    await filled(store)
    async with running(store, size) as run:
        if pane == "todos":
            await run.press("right")
        assert await picture(run, STATES["offline"]) == snapshot


async def test_looking_for_lists(store: Store, snapshot: SnapshotAssertion):
    async with running(store) as run:
        assert await picture(run, SyncStatus(wanted=True, connected=True)) == snapshot


@pytest.mark.parametrize("size", [(80, 24), (40, 12)], ids=size_name)
async def test_adding(store: Store, snapshot: SnapshotAssertion, size: tuple[int, int]):
    await filled(store)
    async with running(store, size) as run:
        await run.press("a", *"Honey")
        assert await picture(run) == snapshot


@pytest.mark.parametrize("size", [(80, 24), (40, 12)], ids=size_name)
async def test_confirming(store: Store, snapshot: SnapshotAssertion, size: tuple[int, int]):
    await filled(store)
    async with running(store, size) as run:
        run.main.show_status(CONNECTED)
        await run.press("d")
        await run.until(lambda: isinstance(run.app.screen, ConfirmScreen))
        assert await picture(run) == snapshot


@pytest.mark.parametrize("size", [(80, 24), (40, 12)], ids=size_name)
async def test_help(store: Store, snapshot: SnapshotAssertion, size: tuple[int, int]):
    async with running(store, size) as run:
        await run.press("question_mark")
        await run.until(lambda: isinstance(run.app.screen, HelpScreen))
        assert await picture(run) == snapshot


async def test_light(store: Store, snapshot: SnapshotAssertion):
    await filled(store)
    async with running(store) as run:
        run.app.theme = "todo-light"
        assert await picture(run) == snapshot
