"""Windows on long results: they show what a full query would, wherever they are moved, and read only what they need."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from sync import PowerSyncDatabase, Row, RowWindow, WindowWatch
from tests.kit import inside
from tests.sync.rig import held_reads, within

SQL = "SELECT id, name FROM lists WHERE owner_id = ?"


async def step(watch: WindowWatch[Row]) -> RowWindow[Row]:
    return await within(10, anext(watch))


def names(window: RowWindow[Row]) -> list[Any]:
    return [row["name"] for row in window.rows]


async def fill(database: PowerSyncDatabase, count: int) -> None:
    rows = [[f"{number:05}", f"n{number:05}"] for number in range(count)]
    await database.execute_many("INSERT INTO lists(id, name, owner_id) VALUES (?, ?, 'me')", rows)


async def test_scrolling_reads_the_neighbourhood_once(database: PowerSyncDatabase) -> None:
    await fill(database, 1000)
    runs: list[str] = []
    await inside.trace_readers(database, runs.append)
    watch = database.watch_window(SQL, ["me"], order_by="name", offset=500, size=20, throttle=0)
    first = await step(watch)
    assert (first.offset, first.total) == (500, 1000)
    assert names(first) == [f"n{number:05}" for number in range(500, 520)]
    runs.clear()
    for offset in (501, 505, 520, 480):
        watch.move(offset)
        assert names(await step(watch)) == [f"n{number:05}" for number in range(offset, offset + 20)]
    assert runs == []
    watch.move(900)
    assert (await step(watch)).offset == 900
    assert len([sql for sql in runs if "ORDER BY" in sql]) >= 1
    assert not any("count(*)" in sql and "lists" in sql for sql in runs)  # the total was known
    watch.move(5000)
    assert (await step(watch)).offset == 980


async def test_a_result_shorter_than_the_window_is_read_once(database: PowerSyncDatabase) -> None:
    await fill(database, 5)
    watch = database.watch_window(SQL, ["me"], order_by="name", size=20, throttle=0)
    first = await step(watch)
    runs: list[str] = []
    await inside.trace_readers(database, runs.append)
    watch.move(3)
    assert (await step(watch)).rows == first.rows
    assert runs == []


async def test_a_window_stays_with_its_row(database: PowerSyncDatabase) -> None:
    await fill(database, 100)
    watch = database.watch_window(SQL, ["me"], order_by=["name", "id"], around="00050", size=5, throttle=0)
    window = await step(watch)
    assert names(window) == [f"n{number:05}" for number in (48, 49, 50, 51, 52)]
    await database.execute("DELETE FROM lists WHERE id < '00010'")
    later = await step(watch)
    assert (names(later), later.offset, later.total) == (names(window), 38, 90)
    assert all(row is twin for row, twin in zip(window.rows, later.rows, strict=True))
    await database.execute("DELETE FROM lists WHERE id = '00050'")
    assert names(await step(watch)) == [f"n{number:05}" for number in (48, 49, 51, 52, 53)]
    watch.show_around("00099")
    assert names(await step(watch)) == [f"n{number:05}" for number in (95, 96, 97, 98, 99)]


async def test_a_change_beside_the_window_is_not_delivered_but_not_forgotten(database: PowerSyncDatabase) -> None:
    await fill(database, 100)
    watch = database.watch_window(SQL, ["me"], order_by="id", size=5, throttle=0)
    await step(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await database.execute("UPDATE lists SET name = 'new' WHERE id = '00006'")
    seen = database.watch("SELECT 1 FROM lists LIMIT 1", throttle=0)
    await anext(seen)
    async with asyncio.timeout(10):
        while not inside.is_at_rest(watch):
            await asyncio.sleep(0)
    assert not waiting.done()
    watch.move(5)
    assert names(await within(10, waiting))[:2] == ["n00005", "new"]


async def test_a_commit_between_a_move_and_its_step_is_seen(database: PowerSyncDatabase) -> None:
    await fill(database, 100)
    watch = database.watch_window(SQL, ["me"], order_by="id", size=5, throttle=0)
    await step(watch)
    watch.move(2)
    await database.execute("UPDATE lists SET name = 'new' WHERE id = '00003'")
    await asyncio.sleep(0)  # the commit was told
    assert names(await step(watch))[:2] == ["n00002", "new"]


async def test_a_row_behind_the_window_changes_the_total(database: PowerSyncDatabase) -> None:
    await fill(database, 100)
    watch = database.watch_window(SQL, ["me"], order_by="id", size=5, throttle=0)
    await step(watch)
    await database.execute("INSERT INTO lists(id, owner_id) VALUES ('x', 'me')")
    assert (await step(watch)).total == 101


async def test_moving_does_not_wait_for_the_throttle(database: PowerSyncDatabase) -> None:
    await fill(database, 100)
    watch = database.watch_window(SQL, ["me"], order_by="id", size=5, throttle=1000)
    await step(watch)
    for offset in (3, 90):
        watch.move(offset)
        assert (await step(watch)).offset == offset


async def test_moving_while_rows_are_read_shows_the_new_ones(database: PowerSyncDatabase) -> None:
    await fill(database, 100)
    watch = database.watch_window(SQL, ["me"], order_by="id", size=5, throttle=0)
    await step(watch)
    await database.execute("UPDATE lists SET name = 'new' WHERE id = '00003'")
    async with held_reads(database, "ORDER BY") as reached:
        waiting = asyncio.ensure_future(anext(watch))
        await reached()
        watch.move(2)
    assert names(await within(10, waiting))[3] == "new"
    assert names(await step(watch))[:2] == ["n00002", "new"]


async def test_a_cancelled_step_does_not_forget_that_the_total_changed(database: PowerSyncDatabase) -> None:
    await fill(database, 100)
    watch = database.watch_window(SQL, ["me"], order_by="id", size=5, throttle=0)
    await step(watch)
    await database.execute("INSERT INTO lists(id, owner_id) VALUES ('x', 'me')")
    async with held_reads(database, "ORDER BY") as reached:
        waiting = asyncio.ensure_future(anext(watch))
        await reached()
        waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (await step(watch)).total == 101


@pytest.mark.parametrize("order_by", ["name, id", "name DESC, id DESC", "name, id DESC"])
async def test_windows_equal_slices_of_the_full_query(database: PowerSyncDatabase, order_by: str) -> None:
    """Rows with equal and with missing values; moved, shown around a row, and changed at random."""
    chance = random.Random(31)
    await fill(database, 60)
    watch = database.watch_window(SQL, ["me"], order_by=order_by, size=7, throttle=0)
    await step(watch)
    for number in range(150):
        around = None
        match chance.randrange(4):
            case 0:
                name = chance.choice([None, "a", "b", "c", "d"])
                await database.execute("UPDATE lists SET name = ? WHERE id = ?", [name, f"{chance.randrange(60):05}"])
                watch.move(chance.randrange(60))
            case 1:
                around = f"{chance.randrange(60):05}"
                watch.show_around(around)
            case 2:
                row_id = f"x{number}"
                await database.execute("INSERT INTO lists(id, name, owner_id) VALUES (?, 'c', 'me')", [row_id])
                watch.move(chance.randrange(60))
            case _:
                watch.move(chance.randrange(60))
        full = [tuple(row) for row in await database.get_all(f"{SQL} ORDER BY {order_by}", ["me"])]
        wanted = inside.wanted_offset(watch)
        if around is None:
            offset = min(wanted, len(full) - 7)
        else:
            place = [row[0] for row in full].index(around)
            offset = max(0, min(place - 3, len(full) - 7))
        expected = (offset, len(full), full[offset : offset + 7])

        def shown() -> tuple[int, int, list[tuple[Any, ...]]]:
            window = inside.delivered_window(watch)
            return window.offset, window.total, [tuple(row) for row in window.rows]

        async with asyncio.timeout(10):
            while shown() != expected:
                await anext(watch)


async def test_what_is_no_order_is_refused(database: PowerSyncDatabase) -> None:
    for order_by in ("", "name sideways", "name; DROP TABLE x"):
        with pytest.raises(ValueError, match="order"):
            database.watch_window(SQL, order_by=order_by, size=5)
    with pytest.raises(ValueError, match="size must be at least 1"):
        database.watch_window(SQL, order_by="name", size=0)
    with pytest.raises(TypeError, match="positional parameters"):
        database.watch_window(SQL, {"a": 1}, order_by="name", size=1)  # pyright: ignore[reportArgumentType]
