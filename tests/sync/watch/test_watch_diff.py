"""What a watched query tells of its changes: rows that came, went, changed and moved, and which objects stay."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest

from sync import PowerSyncDatabase, RowDiff, RowKeyError, Watch
from tests.sync.rig import within

SQL = "SELECT id, name FROM lists ORDER BY name, id"


@dataclass(frozen=True)
class List:
    id: str
    name: str


async def step(watch: Watch[Any]) -> RowDiff[List]:
    return await within(10, anext(watch))


async def test_each_kind_of_change_is_told_and_unchanged_rows_stay_the_same_objects(
    database: PowerSyncDatabase,
) -> None:
    watch = database.watch_diff(SQL, row_type=List, throttle=0)
    assert await step(watch) == RowDiff([], [], [], [], [])
    insert = "INSERT INTO lists(id, name) VALUES (?, ?)"
    await database.execute_many(insert, [["a", "1"], ["b", "2"], ["c", "3"]])
    first = await step(watch)
    assert first.rows == first.added == [List("a", "1"), List("b", "2"), List("c", "3")]

    await database.execute(insert, ["d", "15"])
    second = await step(watch)
    assert second.added == [List("d", "15")]
    assert (second.removed, second.updated, second.moved) == ([], [], [])
    assert [second.rows[0], *second.rows[2:]] == first.rows
    assert all(any(row is old for old in first.rows) for row in second.rows if row.id != "d")

    await database.execute("UPDATE lists SET name = '9' WHERE id = 'a'")
    third = await step(watch)
    assert third.updated == [(List("a", "1"), List("a", "9"))]
    assert third.updated[0][0] is first.rows[0]
    assert third.moved == [third.rows[-1]] == [List("a", "9")]
    assert (third.added, third.removed) == ([], [])

    await database.execute("DELETE FROM lists WHERE id = 'b'")
    fourth = await step(watch)
    assert fourth.removed == [List("b", "2")]
    assert fourth.removed[0] is first.rows[1]
    assert (fourth.added, fourth.updated, fourth.moved) == ([], [], [])


async def test_a_diff_applied_to_the_last_result_gives_the_next(database: PowerSyncDatabase) -> None:
    chance = random.Random(23)
    watch = database.watch_diff(SQL, throttle=0)
    before = (await step(watch)).rows
    for number in range(100):
        async with database.write_transaction() as transaction:
            await transaction.execute("INSERT INTO lists(id, name) VALUES (?, ?)", [f"{number:03}", str(number)])
            for _ in range(chance.randrange(4)):
                chosen = f"{chance.randrange(number + 1):03}"
                name = str(chance.randrange(100))
                await transaction.execute("UPDATE lists SET name = ? WHERE id = ?", [name, chosen])
            if number and chance.random() < 0.5:
                gone = f"{chance.randrange(number):03}"
                await transaction.execute("DELETE FROM lists WHERE id = ?", [gone])
        diff = await step(watch)
        after = {row["id"]: row for row in before}
        for row in diff.removed:
            del after[row["id"]]
        for old, new in diff.updated:
            assert old is after[old["id"]]
            after[new["id"]] = new
        for row in diff.added:
            after[row["id"]] = row
        assert {row["id"]: row for row in diff.rows} == after
        assert all(row is after[row["id"]] for row in diff.rows)
        strangers = {row["id"] for row in (*diff.moved, *diff.added)}
        stayed = [row["id"] for row in diff.rows if row["id"] not in strangers]
        assert stayed == [row["id"] for row in before if row["id"] in set(stayed)]
        before = diff.rows


async def test_a_key_that_does_not_tell_rows_apart_is_refused(database: PowerSyncDatabase) -> None:
    await database.execute_many("INSERT INTO lists(id, name) VALUES (uuid(), ?)", [["x"], ["x"]])
    with pytest.raises(RowKeyError, match="'x' occurs twice"):
        await step(database.watch_diff(SQL, key="name"))
    with pytest.raises(RowKeyError, match="no column 'missing'"):
        await step(database.watch_diff(SQL, key="missing"))
