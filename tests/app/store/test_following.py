"""A view that is followed holds at every moment what reading it anew would give."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import date
from pathlib import Path

import pytest

from app.store import Arrangement, SmartView, Sort, Todo, ViewRead, views
from app.store.following import ViewFollower
from app.store.rows import todo_of_row
from app.store.schema import APP_SCHEMA
from sync import PowerSyncDatabase
from tests.kit import inside

TODAY = date(2026, 11, 27)
STEPS = 60
TIMES = [None, "", "2026-11-01T08:00:00Z", "2026-11-02T08:00:00Z", "2026-11-02T08:00:00.5Z"]
WORDS = ["", "a", "B", "é", "\U0001f600", "p1", "p2 x", "due:2026-11-27", "due:2026-12-01T09:00 z", "due:2026-11-01 p1"]
MARKER = "marker"


class Writer:
    """Commits of all kinds, each of some statements, at random."""

    def __init__(self, database: PowerSyncDatabase, seed: str, *, marker_is_done: bool) -> None:
        self._database = database
        self._chance = random.Random(seed)
        self._made = 0
        self._marker_is_done = marker_is_done

    async def begin(self) -> None:
        await self._database.execute("INSERT INTO lists(id, name) VALUES ('home', 'Home'), ('work', NULL)")
        sql = "INSERT INTO todos(id, list_id, completed, completed_at) VALUES (?, 'home', ?, '2026')"
        await self._database.execute(sql, [MARKER, int(self._marker_is_done)])
        await self._mark()

    async def step(self) -> str:
        """Some commits; gives what the marker says after them."""
        for _ in range(self._chance.randrange(1, 4)):
            async with self._database.write_transaction() as transaction:
                for _ in range(self._chance.choice([1, 1, 2, 5, 30])):
                    await transaction.execute(*self._statement())
        return await self._mark()

    async def _mark(self) -> str:
        text = f"{self._chance.random()} due:{TODAY.isoformat()}"
        await self._database.execute("UPDATE todos SET description = ? WHERE id = ?", [text, MARKER])
        return text

    def _statement(self) -> tuple[str, list[object]]:
        chance = self._chance
        some = f"t{chance.randrange(self._made + 1)}"
        match chance.randrange(9):
            case 0 | 1 | 2:
                self._made += 1
                columns = "id, list_id, description, created_at, completed, completed_at"
                values = [f"t{self._made}", chance.choice(["home", "work", "nowhere"]), *self._values()]
                return f"INSERT INTO todos({columns}) VALUES (?, ?, ?, ?, ?, ?)", values
            case 3 | 4:
                return (
                    "UPDATE todos SET description = ?, created_at = ?, completed = ?, completed_at = ? WHERE id = ?",
                    [*self._values(), some],
                )
            case 5:
                return "UPDATE todos SET list_id = ? WHERE id = ?", [chance.choice(["home", "work"]), some]
            case 6:
                return "DELETE FROM todos WHERE id = ?", [some]
            case 7:
                free = "NOT EXISTS (SELECT 1 FROM todo_positions WHERE id = ?)"
                sql = f"INSERT INTO todo_positions(id, position) SELECT ?, ? WHERE {free}"
                return sql, [some, chance.choice(TIMES), some]
            case _:
                return "UPDATE todos SET completed = 1 - coalesce(completed, 0) WHERE id = ?", [some]

    def _values(self) -> list[object]:
        """Description, created_at, completed and completed_at."""
        chance = self._chance
        return [
            " ".join(chance.choices(WORDS, k=2)),
            chance.choice(TIMES),
            chance.choice([0, 0, 1, None]),
            chance.choice(TIMES),
        ]


async def until_marked(reads: AsyncIterator[ViewRead], text: str, before: list[Todo]) -> list[Todo]:
    """The first read with this marker; each read tells exactly what is another since the read before."""
    async with asyncio.timeout(10):
        async for read in reads:
            known = {todo.id: todo for todo in before}
            others = [todo for todo in read.todos if known.get(todo.id) is not todo]
            assert all(known.get(todo.id) != todo for todo in others)
            if read.changed is not None:
                assert sorted(todo.id for todo in read.changed) == sorted(todo.id for todo in others)
            before = read.todos
            if any(todo.id == MARKER and todo.description == text for todo in before):
                return before
    raise AssertionError("the database was closed")


VIEWS = [("home", Arrangement(sort)) for sort in Sort] + [
    ("home", Arrangement(Sort.PRIORITY, shows_done=False)),
    *((view, views.DEFAULT_ARRANGEMENTS[view]) for view in (SmartView.ALL, SmartView.TODAY, SmartView.DONE)),
]


@pytest.mark.parametrize(("view", "arrangement"), VIEWS, ids=str)
async def test_it_holds_what_reading_anew_gives(
    view: SmartView | str, arrangement: Arrangement, tmp_path: Path
) -> None:
    sql, parameters = views.todos_query(view, arrangement, TODAY)
    async with PowerSyncDatabase(tmp_path / "todo.db", APP_SCHEMA) as database:
        writer = Writer(database, str(view), marker_is_done=view is SmartView.DONE)
        await writer.begin()
        async with aclosing(ViewFollower(database, view, arrangement, TODAY).reads()) as reads:
            held: list[Todo] = []
            for _ in range(STEPS):
                held = await until_marked(reads, await writer.step(), held)
                anew = [todo_of_row(row) for row in await database.get_all(sql, parameters)]
                assert {todo.id: todo for todo in held} == {todo.id: todo for todo in anew}
                assert [todo.id for todo in held] == [todo.id for todo in anew]


async def test_the_name_of_a_list_is_that_of_its_to_dos(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "todo.db", APP_SCHEMA) as database:
        await database.execute("INSERT INTO lists(id, name) VALUES ('home', 'Home')")
        await database.execute("INSERT INTO todos(id, list_id) VALUES ('t', 'home')")
        follower = ViewFollower(database, SmartView.ALL, views.DEFAULT_ARRANGEMENTS[SmartView.ALL], TODAY)
        async with asyncio.timeout(10), aclosing(follower.reads()) as reads:
            assert [todo.list_name for todo in (await anext(reads)).todos] == ["Home"]
            await database.execute("UPDATE lists SET name = 'House'")
            assert [todo.list_name for todo in (await anext(reads)).todos] == ["House"]


async def test_only_what_changed_is_read(tmp_path: Path) -> None:
    """Also for very many to-dos: the reading of all of them is what one change must not cost."""
    async with PowerSyncDatabase(tmp_path / "todo.db", APP_SCHEMA) as database:
        await database.execute_many(
            "INSERT INTO todos(id, list_id, created_at) VALUES (?, 'home', '2026')", [[f"t{n}"] for n in range(500)]
        )
        async with asyncio.timeout(10), aclosing(ViewFollower(database, "home", Arrangement(), TODAY).reads()) as reads:
            assert len((await anext(reads)).todos) == 500
            statements: list[str] = []
            await inside.trace_readers(database, statements.append)
            await database.execute("UPDATE todos SET description = 'x' WHERE id = 't7'")
            read = await anext(reads)
            assert [todo.id for todo in read.changed or ()] == ["t7"]
            assert [todo.description for todo in read.todos if todo.id == "t7"] == ["x"]
            reading = [statement for statement in statements if "todos" in statement]
            assert reading
            assert all("json_each" in statement for statement in reading)


async def test_of_very_many_the_beginning_is_told_first(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "todo.db", APP_SCHEMA) as database:
        await database.execute_many(
            "INSERT INTO todos(id, list_id, created_at) VALUES (?, 'home', ?)",
            [[f"t{n}", f"{n:05}"] for n in range(1500)],
        )
        async with asyncio.timeout(10), aclosing(ViewFollower(database, "home", Arrangement(), TODAY).reads()) as reads:
            beginning, whole = await anext(reads), await anext(reads)
            assert not beginning.is_whole
            assert whole.is_whole
            assert [todo.id for todo in whole.todos] == [f"t{n}" for n in range(1500)]
            assert 0 < len(beginning.todos) < 1500
            assert all(one is other for one, other in zip(beginning.todos, whole.todos, strict=False))
            assert (beginning.changed, whole.changed) == (None, None)
            # Read anew later, it is told as a whole only.
            await database.execute("UPDATE todos SET description = 'x'")
            again = await anext(reads)
            assert again.is_whole
            assert len(again.changed or ()) == 1500


async def test_another_process_may_have_written_anything(tmp_path: Path) -> None:
    path = tmp_path / "todo.db"
    async with PowerSyncDatabase(path, APP_SCHEMA) as database:
        await database.execute("INSERT INTO todos(id, list_id) VALUES ('a', 'home'), ('b', 'home')")
        async with asyncio.timeout(20), aclosing(ViewFollower(database, "home", Arrangement(), TODAY).reads()) as reads:
            [a, _] = (await anext(reads)).todos
            program = f"""if True:
                import sqlite3
                connection = sqlite3.connect({str(path)!r})
                connection.execute("UPDATE todos SET description = 'x' WHERE id = 'b'")
                connection.commit()
            """
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
            assert await process.wait() == 0
            read = await anext(reads)
            assert read.todos[0] is a
            assert [todo.description for todo in read.changed or ()] == ["x"]
