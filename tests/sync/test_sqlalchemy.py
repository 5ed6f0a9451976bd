"""SQLAlchemy over the engine's own connections: real models, what they queue, whom they wake, and what is left open."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import uuid
import warnings
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from sync import Column, DatabaseClosedError, NestedUseError, PowerSyncDatabase, Schema, Table
from tests.sync.rig import rows, within

pytest.importorskip("sqlalchemy", reason="the extra `sqlalchemy` is not installed")

from sqlalchemy import ForeignKey, func, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from sync.sqlalchemy import create_async_engine, watch_select
from tests.kit import inside

SCHEMA = Schema(
    [
        Table("lists", [Column.text("name")]),
        Table("todos", [Column.text("list_id"), Column.text("description"), Column.integer("done")]),
    ]
)


class Base(DeclarativeBase):
    pass


class TodoList(Base):
    __tablename__ = "lists"
    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: str(uuid.uuid4()))
    name: Mapped[str]
    todos: Mapped[list[Todo]] = relationship(back_populates="list", cascade="all, delete-orphan")


class Todo(Base):
    __tablename__ = "todos"
    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: str(uuid.uuid4()))
    list_id: Mapped[str] = mapped_column(ForeignKey("lists.id"))
    description: Mapped[str]
    done: Mapped[bool] = mapped_column(default=False)
    list: Mapped[TodoList] = relationship(back_populates="todos")


@pytest.fixture(params=["file", "memory"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[PowerSyncDatabase]:
    path = tmp_path / "test.db" if request.param == "file" else ":memory:"
    async with PowerSyncDatabase(path, SCHEMA) as database:
        yield database


@pytest.fixture
def engine(database: PowerSyncDatabase) -> AsyncEngine:
    return create_async_engine(database)


@pytest.fixture
def reading(database: PowerSyncDatabase) -> AsyncEngine:
    return create_async_engine(database, read_only=True)


async def queued(database: PowerSyncDatabase) -> list[list[tuple[str, str, dict[str, Any] | None]]]:
    return [
        [(entry.op, entry.table, entry.data) for entry in transaction.crud]
        for transaction in await database.crud_transaction_batch()
    ]


async def test_a_transaction_of_the_orm_is_one_of_the_queue(database: PowerSyncDatabase, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        home = TodoList(id="h", name="Home", todos=[Todo(description="Milk"), Todo(description="Bread")])
        session.add(home)
        await session.flush()
        home.name = "House"
    async with AsyncSession(engine) as session:
        milk = (await session.scalars(select(Todo).where(Todo.description == "Milk"))).one()
        milk.done = True
        await session.commit()
        await session.delete(milk)
        await session.commit()
    first, second, third = await queued(database)
    todos = [("PUT", "todos", {"list_id": "h", "description": name, "done": 0}) for name in ("Milk", "Bread")]
    assert first[0] == ("PUT", "lists", {"name": "Home"})
    assert sorted(first[1:3], key=str) == sorted(todos, key=str)
    assert first[3:] == [("PATCH", "lists", {"name": "House"})]
    assert second == [("PATCH", "todos", {"done": 1})]
    assert third == [("DELETE", "todos", None)]
    assert await rows(database, "SELECT name, description, done FROM lists l JOIN todos ON list_id = l.id") == [
        ["House", "Bread", 0]
    ]


async def test_many_rows_and_bulk_statements(database: PowerSyncDatabase, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        session.add_all([TodoList(id=str(number), name="x") for number in range(50)])
    async with AsyncSession(engine) as session, session.begin():
        await session.execute(update(TodoList).where(TodoList.id.in_(["1", "2"])).values(name="y"))
    async with AsyncSession(engine) as session:
        counted = await session.execute(select(TodoList.name, func.count()).group_by(TodoList.name))
        assert sorted(map(tuple, counted)) == [("x", 48), ("y", 2)]
    assert [len(entries) for entries in await queued(database)] == [50, 2]


@pytest.mark.parametrize("how", ["error", "rollback", "refused", "cancelled", "closed"])
async def test_what_is_not_committed_leaves_nothing(database: PowerSyncDatabase, engine: AsyncEngine, how: str) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with AsyncSession(engine) as session:
            session.add(TodoList(id="a", name="Home"))
            await session.flush()
            inside.set()
            match how:
                case "error":
                    raise ZeroDivisionError
                case "rollback":
                    await session.rollback()
                case "refused":
                    await session.execute(text("INSERT INTO lists(id, name) VALUES ('a', 'again')"))
                case "cancelled":
                    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000)"
                    while True:
                        await session.execute(text(f"{numbers} SELECT count(*) FROM n"))
                case _:
                    await session.close()

    task = asyncio.create_task(work())
    await within(5, inside.wait())
    if how == "cancelled":
        task.cancel()
    expected = {"error": ZeroDivisionError, "refused": IntegrityError, "cancelled": asyncio.CancelledError}.get(how)
    (outcome,) = await within(5, asyncio.gather(task, return_exceptions=True))
    assert type(outcome) is (expected or type(None))
    assert await within(5, rows(database, "SELECT * FROM lists")) == []
    await within(5, database.execute("INSERT INTO lists(id, name) VALUES ('b', 'Work')"))
    assert await queued(database) == [[("PUT", "lists", {"name": "Work"})]]


async def test_savepoints_roll_back_alone(database: PowerSyncDatabase, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        session.add(TodoList(id="a", name="kept"))
        savepoint = await session.begin_nested()
        session.add(TodoList(id="b", name="not kept"))
        await session.flush()
        await savepoint.rollback()
    assert await queued(database) == [[("PUT", "lists", {"name": "kept"})]]


async def test_nested_use_is_an_error_and_no_deadlock(database: PowerSyncDatabase, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(TodoList(id="a", name="Home"))
        await session.flush()
        with pytest.raises(NestedUseError):
            await within(5, database.execute("INSERT INTO lists(id) VALUES ('b')"))
        async with AsyncSession(engine) as other:
            with pytest.raises(NestedUseError):
                await within(5, other.execute(select(TodoList)))
        await session.commit()
    async with database.write_transaction(), AsyncSession(engine) as session:
        with pytest.raises(NestedUseError):
            await within(5, session.execute(select(TodoList)))
    await within(5, database.execute("INSERT INTO lists(id) VALUES ('b')"))
    assert await rows(database, "SELECT id FROM lists ORDER BY id") == [["a"], ["b"]]


async def test_a_reading_session_sees_one_snapshot_and_cannot_write(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "test.db", SCHEMA) as database:
        reading = create_async_engine(database, read_only=True)
        count = select(func.count()).select_from(TodoList)
        async with AsyncSession(reading) as session:
            assert await session.scalar(count) == 0
            async with AsyncSession(create_async_engine(database)) as writing, writing.begin():
                writing.add(TodoList(name="Home"))
            assert await session.scalar(count) == 0
            await session.rollback()
            assert await session.scalar(count) == 1
            session.add(TodoList(name="Work"))
            with pytest.raises(OperationalError, match="readonly"):
                await session.flush()
        connection = sqlite3.connect(database.path, timeout=0)
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0  # nobody reads any more
        connection.close()
        assert not inside.leased_connections(database)


async def test_a_commit_of_the_orm_wakes_watchers_once(database: PowerSyncDatabase, engine: AsyncEngine) -> None:
    watch = database.watch("SELECT name FROM lists ORDER BY name", throttle=0)
    changes = database.watch_all_updates(throttle=0)
    assert await anext(watch) == []
    async with AsyncSession(engine) as session, session.begin():
        session.add(TodoList(name="Home"))
        await session.flush()
        session.add(TodoList(name="Work"))
    assert [row["name"] for row in await within(5, anext(watch))] == ["Home", "Work"]
    assert await within(5, anext(changes)) == {"lists"}


async def test_a_select_keeps_itself_current(database: PowerSyncDatabase, engine: AsyncEngine) -> None:
    watch = watch_select(
        database, select(TodoList).options(selectinload(TodoList.todos).joinedload(Todo.list)), throttle=0
    )
    assert await within(5, anext(watch)) == []
    async with AsyncSession(engine) as session, session.begin():
        session.add(TodoList(id="h", name="Home"))
    (home,) = await within(5, anext(watch))
    assert (home.name, home.todos) == ("Home", [])
    following = asyncio.create_task(anext(watch))
    await database.execute("UPDATE lists SET name = 'Home'")  # changes nothing, and is not delivered
    await database.execute("INSERT INTO todos(id, list_id, description, done) VALUES ('m', 'h', 'Milk', 0)")
    (home,) = await within(5, following)
    assert [(todo.description, todo.done, todo.list is home) for todo in home.todos] == [("Milk", False, True)]
    await watch.aclose()
    names = watch_select(database, select(TodoList.name).order_by(TodoList.name), throttle=0)
    assert await within(5, anext(names)) == ["Home"]
    waiting = asyncio.create_task(anext(names, None))
    await asyncio.sleep(0)
    await within(5, database.close())
    assert await within(5, waiting) is None


async def test_the_database_closes_under_a_reading_session(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "test.db", SCHEMA) as database:
        reading = create_async_engine(database, read_only=True)
        async with AsyncSession(reading) as session:
            await session.execute(select(TodoList))
            await within(5, database.close())
            with pytest.raises(OperationalError, match="no active connection"):
                await within(5, session.execute(select(TodoList)))
        async with AsyncSession(reading) as session:
            with pytest.raises(DatabaseClosedError):
                await session.execute(select(TodoList))


async def test_a_dropped_session_gives_its_lease_back(database: PowerSyncDatabase, engine: AsyncEngine) -> None:
    async def drop() -> None:
        session = AsyncSession(engine)
        session.add(TodoList(id="a", name="Home"))
        await session.flush()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy tells of it
        await asyncio.create_task(drop())
        gc.collect()
    await within(5, database.execute("INSERT INTO lists(id, name) VALUES ('b', 'Work')"))
    assert await rows(database, "SELECT id FROM lists") == [["b"]]
