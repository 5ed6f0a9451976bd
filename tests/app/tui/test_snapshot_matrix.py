"""The main screen and what opens over it, at each size, in dark, light and without colour."""

from __future__ import annotations

import pytest
from pytest_textual_snapshot import SVGImageExtension
from syrupy.assertion import SnapshotAssertion

from app.store import Store
from sync import NetworkError, SyncStatus

from .harness import Running, filled, running
from .test_snapshots import CONNECTED, STATES, picture, size_name

SIZES = [(120, 40), (80, 24), (60, 20), (40, 12)]
COLOURS = ["dark", "light", "none"]
ERROR = SyncStatus(
    wanted=True, connected=True, upload_queue_count=4, upload_error=NetworkError("The backend refused the token: [b]x")
)


@pytest.fixture
def snapshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(SVGImageExtension)


async def many(store: Store) -> None:
    """More lists and to-dos than fit, with all that a to-do can say, and what terminals obey."""
    for number in range(30):
        await store.edit.add_list(f"List {number}")
    first = await store.edit.add_list("Everything")
    texts = [
        "Pay rent due:2026-04-01T09:00 p1 #home #flat rec:1m\nIBAN",
        "Late due:2026-03-01 p4",
        "Today due:2026-03-14T18:00",
        "[red]no markup[/] \x1b[31mno escapes\x07",
        "日本語のテキストと絵文字 👩‍👩‍👧‍👦 e\u0301 due:2026-03-15",
        "עברית ואנגלית mixed",
        "x" * 10_000,
        "NUL is kept elsewhere",
        *(f"Number {number} #t{number}" for number in range(40)),
    ]
    ids = await store.edit.add_todos(first, texts)
    await store.edit.set_completed(ids[10:14], completed=True)


async def shown(run: Running, scene: str) -> str:
    match scene:
        case "few":
            await run.press("right", "down")
        case "many":
            await run.press("end")
            await run.until(lambda: run.title == "Everything")
            await run.press("right", "space", "down")
        case "error":
            return await picture(run, ERROR)
        case "offline":
            return await picture(run, STATES["offline"])
        case "pick":
            await run.press("o", *"g")
        case "typing":
            await run.press("a", *"Call mom tomorrow 9am p1 #family")
        case _:
            await run.press("question_mark", *"undo")
            await run.until(lambda: run.app.screen is not run.main)
    return await picture(run, CONNECTED)


@pytest.mark.parametrize("colours", COLOURS)
@pytest.mark.parametrize("scene", ["few", "many", "error"])
@pytest.mark.parametrize("size", SIZES, ids=size_name)
async def test_the_main_screen(
    store: Store,
    snapshot: SnapshotAssertion,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    scene: str,
    colours: str,
):
    if colours == "none":
        monkeypatch.setenv("NO_COLOR", "1")
    await filled(store)
    if scene == "many":
        await many(store)
    async with running(store, size, theme="todo-light" if colours == "light" else "todo-dark") as run:
        assert await shown(run, scene) == snapshot


@pytest.mark.parametrize("scene", ["offline", "pick", "typing", "help"])
@pytest.mark.parametrize("size", SIZES, ids=size_name)
async def test_what_opens_over_it(store: Store, snapshot: SnapshotAssertion, size: tuple[int, int], scene: str):
    await filled(store)
    async with running(store, size) as run:
        assert await shown(run, scene) == snapshot
