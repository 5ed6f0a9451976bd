"""SQLAlchemy on the same file, with the same leases and commit notifications (extra `sqlalchemy`).

Owns the engine that takes its connections from the database's leases, and ORM queries that stay up to date. Imported
only on demand: `import sync` does not load SQLAlchemy. Must not know tables or the sync protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import aiosqlite
from sqlalchemy import event
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteExecutionContext_aiosqlite
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.ext.asyncio import create_async_engine as create_engine_of_sqlalchemy
from sqlalchemy.orm import Mapper
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import Select

from sync.api.local_database import THROTTLE_SECONDS, LocalDatabase
from sync.errors import DatabaseClosedError
from sync.sqlite.cancellation import run_to_completion

_closing: set[asyncio.Task[None]] = set()


def create_async_engine(database: LocalDatabase, *, read_only: bool = False, **options: Any) -> AsyncEngine:
    """A SQLAlchemy engine on a database; its transactions are the database's own.

    Each connection that SQLAlchemy takes is a lease: of the writing connection, which begins with BEGIN IMMEDIATE and
    is exclusive until commit, rollback or close, or, with `read_only`, of a reading one, of which there may be many;
    each transaction on it sees one snapshot. What a transaction writes through the app's views is queued for upload as
    one transaction, and watchers are notified on commit. If cancelled, it is rolled back.

    Map the views as tables, with text ids generated in Python (`default=`). SQLite does not count the rows that a
    view's triggers change: `rowcount` is then -1 (unknown), and `version_id_col` cannot be used.

    Args:
        database: need not be open yet.
        read_only: SQLite rejects writes.
        options: options of SQLAlchemy's own function of this name, except for the pool and how to connect.

    Raises (when the engine is used):
        NestedUseError: a task that already uses the writing connection takes another one, which would deadlock. Using
            the database itself inside such a transaction raises it too.
        DatabaseClosedError: the database is closed.
    """

    async def connect() -> aiosqlite.Connection:
        return cast("aiosqlite.Connection", await _Lease.begin(database, read_only=read_only))

    engine = create_engine_of_sqlalchemy("sqlite+aiosqlite://", async_creator=connect, poolclass=NullPool, **options)
    dialect = engine.dialect
    dialect.supports_sane_rowcount = dialect.supports_sane_multi_rowcount = False
    dialect.execution_ctx_cls = _Execution
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"

    def on_begin(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "begin", on_begin)
    return engine


async def watch_select(
    database: LocalDatabase, statement: Select[Any], *, throttle: float = THROTTLE_SECONDS
) -> AsyncGenerator[list[Any]]:
    """The results of a SELECT of one entity or column, now and after every commit that changes them, local or synced.

    Each result has new entities, detached from any session, with what the statement loads eagerly. Tables read by eager
    loading are watched like those of the statement itself. Ends when the database is closed.

    Args:
        database: the database with the entities' tables.
        statement: may eagerly load relationships in any way.
        throttle: the shortest time between two runs, in seconds.
    """
    engine = create_async_engine(database, read_only=True)
    changes = database.watch_all_updates(throttle=throttle)
    before: Any = None
    first = True
    tables: frozenset[str] = frozenset()
    try:
        while True:
            if not first and tables.isdisjoint(await anext(changes)):
                continue
            run: dict[str, Any] = {}
            async with AsyncSession(engine, expire_on_commit=False) as session:
                connection = await session.connection()
                _note_statements(connection.sync_connection, run)
                found = await session.execute(statement)
                scalars = found.scalars()
                result = list(scalars.unique() if _is_entity(statement) else scalars)
            tables = frozenset[str]().union(*[await database.source_tables(*each) for each in run.items()])
            values = [_values(each, {}) for each in result]
            if first or values != before:
                first, before = False, values
                yield result
    except (DatabaseClosedError, StopAsyncIteration):
        return
    finally:
        await changes.aclose()


def _note_statements(connection: Connection | None, statements: dict[str, Any]) -> None:
    def note(_connection: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, _many: Any) -> None:
        statements[sql] = parameters

    assert connection is not None
    event.listen(connection, "before_cursor_execute", note)


def _is_entity(statement: Select[Any]) -> bool:
    described = statement.column_descriptions[0]
    return described["entity"] is not None and described["expr"] is described["entity"]


def _values(value: Any, seen: dict[int, int]) -> Any:
    """An entity's attributes, as plain values that can be compared, including its loaded relationships."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_values(each, seen) for each in cast("list[Any]", value)]
    if not isinstance(getattr(cast("Any", type(value)), "__mapper__", None), Mapper):
        return value
    if id(value) in seen:
        return ("seen", seen[id(value)])  # through a relationship back to its origin
    seen[id(value)] = len(seen)
    loaded = vars(cast("object", value))
    names = sorted(loaded.keys() - {"_sa_instance_state"})
    return type(cast("object", value)), {name: _values(loaded[name], seen) for name in names}


class _Execution(SQLiteExecutionContext_aiosqlite):
    @property
    def rowcount(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return super().rowcount or -1  # SQLite reports 0 for a view, regardless of what its triggers changed


class _Lease:
    """A raw connection as SQLAlchemy expects it: closing it ends the lease, from any task."""

    def __init__(self, connection: aiosqlite.Connection, stack: AsyncExitStack) -> None:
        self._lent = connection
        self._stack = stack
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def begin(cls, database: LocalDatabase, *, read_only: bool) -> _Lease:
        stack = AsyncExitStack()
        connection = await stack.enter_async_context(database.reader() if read_only else database.writer())
        connection.row_factory = None
        return cls(connection, stack)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lent, name)

    async def close(self) -> None:
        await run_to_completion(self._stack.aclose())

    def stop(self) -> None:
        """For a connection that was dropped without being closed; called by the garbage collector, on any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_in_background, self._stack.aclose)


def _in_background(close: Callable[[], Any]) -> None:
    task = asyncio.ensure_future(close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)
