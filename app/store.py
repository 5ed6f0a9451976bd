"""What the app keeps: lists, to-dos, and the wish to have them synced.

Owns every SQL statement about to-dos, their order, their ids and timestamps, how much goes into one transaction, the
writes that are under way, and which sync streams are subscribed. Must not know how anything is shown, nor what is
inside the engine: it uses the public face only.
"""

from __future__ import annotations

import asyncio
import functools
import re
import sqlite3
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from app.failures import RefusedError, Tell, explained, going_on, note
from app.sync_report import SyncReport
from app.writes import MAX_ROWS, Writes, ends_of_chunks, refuse_long
from sync import PowerSyncDatabase, SyncStatus, SyncStreamSubscription, Transaction
from sync.errors import DatabaseClosedError

P = ParamSpec("P")
T = TypeVar("T")

MAX_SUBSCRIBED_LISTS: Final = 500
"""How many lists keep their to-dos on this device; beyond that, only the open one and the oldest others do."""

SUBSCRIPTION_TTL: Final = timedelta(days=30)
"""How long a list's to-dos outlive the last time that the app ran: a laptop may stay shut over the holidays."""

SAMPLE_NAME: Final = "First steps"
SAMPLE_TODOS: Final = (
    "Press space to mark this one as done",
    "Press a to add a to-do, e to edit, d to delete",
    "Press L for a new list, tab to switch sides",
    "Work offline: changes wait here and sync later",
    "Press ? for all keys, then delete this list",
)

_LISTS: Final = """
    SELECT lists.id AS id, lists.name AS name, lists.created_at AS created_at,
           coalesce(counts.total, 0) - coalesce(counts.done, 0) AS open_count, coalesce(counts.done, 0) AS done_count
      FROM lists
      LEFT JOIN (SELECT list_id, count(*) AS total, sum(coalesce(completed, 0) <> 0) AS done
                   FROM todos GROUP BY list_id) AS counts ON counts.list_id = lists.id
     ORDER BY lists.created_at, lists.id"""

_TODOS: Final = """
    SELECT id, list_id, description, coalesce(completed, 0) <> 0 AS completed, created_at, completed_at
      FROM todos
     WHERE list_id = ?
     ORDER BY coalesce(completed, 0) <> 0,
              CASE WHEN coalesce(completed, 0) = 0 THEN created_at END,
              CASE WHEN coalesce(completed, 0) <> 0 THEN completed_at END DESC,
              id"""


@dataclass(frozen=True, slots=True)
class TodoList:
    """One list.

    Attributes:
        id: UUID, as text.
        name: as synced, any text; None if the row has none.
        created_at: ISO 8601 as synced, or None.
        open_count: to-dos that are not completed.
        done_count: completed to-dos.
    """

    id: str
    name: str | None
    created_at: str | None
    open_count: int
    done_count: int


@dataclass(frozen=True, slots=True)
class Todo:
    """One to-do.

    Attributes:
        id: UUID, as text.
        list_id: id of its list.
        description: as synced, any text; None if the row has none.
        completed: whether it is done.
        created_at: ISO 8601 as synced, or None.
        completed_at: ISO 8601 as synced, or None.
    """

    id: str
    list_id: str
    description: str | None
    completed: bool
    created_at: str | None
    completed_at: str | None


def utc_now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


def first_line(text: str) -> tuple[str, str]:
    """Split text into its first line and the rest, which begins with the line break or is empty."""
    line_break = re.search(r"\r\n|\r|\n", text)
    end = line_break.start() if line_break else len(text)
    return text[:end], text[end:]


def _write(
    method: Callable[Concatenate[Store, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Store, P], asyncio.Future[T]]:
    """Make a method begin its write when it is called; what is awaited only tells the result."""

    @functools.wraps(method)
    def begin(store: Store, *arguments: P.args, **options: P.kwargs) -> asyncio.Future[T]:
        return store.writes.begin(method(store, *arguments, **options))

    return begin


class Store:
    """The lists and to-dos of one user in one database.

    Writes are local and return once they are committed here; they sync when there is a connection. They begin when
    they are called and end by themselves: cancelling one only stops the wait for its result. Before the database is
    closed, `flush` waits for them. What is watched goes on after a failure, with growing waits.

    Attributes:
        writes: those that are under way.
        report: what synchronization has to tell, and what was rejected.

    Args:
        database: open, with `app.schema.APP_SCHEMA`; the store does not close it.
        user_id: the owner of what is made here.
        connect: starts syncing `database` with its backend, and returns without waiting for the connection.
        now: the clock, giving aware datetimes.
    """

    def __init__(
        self,
        database: PowerSyncDatabase,
        user_id: str,
        connect: Callable[[], Awaitable[None]],
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._user_id = user_id
        self._connect = connect
        self._now = now
        self._last_stamp = datetime.min.replace(tzinfo=UTC)
        self._open_list: str | None = None
        self._known_lists: list[str] = []
        self._wanted_changed = asyncio.Event()
        self._subscriptions: dict[str, SyncStreamSubscription] = {}
        self.writes: Final = Writes()
        self.report: Final = SyncReport(database, self.writes)

    # Reading

    def watch_lists(self, tell: Tell = note) -> AsyncIterator[list[TodoList]]:
        """Yield all lists, now and after each change, oldest first; unchanged ones stay the same objects.

        Ends when the database is closed.

        Args:
            tell: called once per trouble, when the lists cannot be read.
        """
        failed = "The lists cannot be shown"
        return going_on(lambda: self._follow(failed, _LISTS, (), _list_of_row), tell)

    def watch_todos(self, list_id: str, tell: Tell = note) -> AsyncIterator[list[Todo]]:
        """Yield the to-dos of a list, now and after each change; unchanged ones stay the same objects.

        The open ones come first, oldest first; then the completed ones, the latest first. Ends when the database is
        closed.

        Args:
            list_id: the list.
            tell: called once per trouble, when the to-dos cannot be read.
        """
        failed = "The to-dos cannot be shown"
        return going_on(lambda: self._follow(failed, _TODOS, (list_id,), _todo_of_row), tell)

    # Writing

    async def flush(self, seconds: float) -> int:
        """Wait for the writes that are under way, at most so long, and return how many are not stored then.

        Those are still unfinished, or failed when nobody may have been left to be told.
        """
        return await self.writes.flush(seconds)

    @_write
    async def add_list(self, name: str) -> str:
        """Add a list and return its id.

        Raises:
            StoreError: it was not added.
        """
        failed = "The list was not added"
        refuse_long([name], failed)
        with explained(failed):
            async with self._database.write_transaction() as transaction:
                return await self._insert_list(transaction, name)

    @_write
    async def rename_list(self, list_id: str, name: str) -> None:
        """Give a list another name.

        Raises:
            StoreError: it was not renamed, for instance because it has been deleted on another device.
        """
        failed = "The list was not renamed"
        refuse_long([name], failed)
        with explained(failed):
            async with self._database.write_transaction() as transaction:
                await _require(transaction, "lists", list_id, "it has been deleted")
                await transaction.execute("UPDATE lists SET name = ? WHERE id = ?", [name, list_id])

    @_write
    async def delete_list(self, list_id: str) -> None:
        """Delete a list and its to-dos; a long list in several transactions. It is no error if it is gone already.

        Raises:
            StoreError: the list was not deleted, but some of its to-dos may have been.
        """
        failed = "The list was not deleted"
        last = False
        while not last:
            with explained(failed):
                async with self._database.write_transaction() as transaction:
                    rows = await transaction.get_all(
                        "SELECT id FROM todos WHERE list_id = ? LIMIT ?", [list_id, MAX_ROWS]
                    )
                    await transaction.execute_many("DELETE FROM todos WHERE id = ?", [(row["id"],) for row in rows])
                    last = len(rows) < MAX_ROWS
                    if last:
                        await transaction.execute("DELETE FROM lists WHERE id = ?", [list_id])
            failed = "The list was deleted only in part"

    @_write
    async def add_sample_list(self) -> str:
        """Add a short list that explains the app, and return its id.

        Raises:
            StoreError: it was not added.
        """
        with explained("The sample list was not added"):
            async with self._database.write_transaction() as transaction:
                list_id = await self._insert_list(transaction, SAMPLE_NAME)
                for description in SAMPLE_TODOS:
                    await self._insert_todo(transaction, list_id, description, self._stamp())
                return list_id

    # Writing to-dos

    @_write
    async def add_todo(self, list_id: str, description: str) -> str:
        """Add an open to-do to a list and return its id. Raises as `add_todos`."""
        (todo_id,) = await self._add_todos(list_id, [description])
        return todo_id

    @_write
    async def add_todos(self, list_id: str, descriptions: Sequence[str]) -> list[str]:
        """Add several open to-dos in their order, and return their ids; very many in several transactions.

        Raises:
            StoreError: only the first `stored` of them were added, for instance because the list has been deleted on
                another device.
        """
        return await self._add_todos(list_id, descriptions)

    @_write
    async def edit_todo(self, todo_id: str, description: str) -> None:
        """Replace the text of a to-do.

        Raises:
            StoreError: it was not changed, for instance because it has been deleted on another device.
        """
        await self._change_text(todo_id, lambda _: description)

    @_write
    async def edit_first_line(self, todo_id: str, text: str) -> None:
        """Replace the first line of a to-do; the lines after it stay as they are when this is written.

        Raises:
            StoreError: it was not changed, for instance because it has been deleted on another device.
        """
        await self._change_text(todo_id, lambda now: text + first_line(now)[1])

    @_write
    async def set_completed(self, todo_id: str, *, completed: bool) -> None:
        """Complete a to-do, noting when and by whom, or open it again. It is no error if it is gone.

        Raises:
            StoreError: it was not changed.
        """
        at, by = (self._stamp(), self._user_id) if completed else (None, None)
        with explained("The to-do was not changed"):
            await self._database.execute(
                "UPDATE todos SET completed = ?, completed_at = ?, completed_by = ? WHERE id = ?",
                [int(completed), at, by, todo_id],
            )

    @_write
    async def delete_todo(self, todo_id: str) -> None:
        """Delete a to-do. It is no error if it is gone already.

        Raises:
            StoreError: it was not deleted.
        """
        with explained("The to-do was not deleted"):
            await self._database.execute("DELETE FROM todos WHERE id = ?", [todo_id])

    # Syncing

    @property
    def status(self) -> SyncStatus:
        """The state of synchronization, now."""
        return self._database.status

    def watch_status(self) -> AsyncIterator[SyncStatus]:
        """Yield the state of synchronization, now and after each change. Ends when the database is closed."""
        return self._database.watch_status()

    async def connect(self) -> None:
        """Start syncing, or do nothing if that is on already.

        Raises:
            StoreError: syncing cannot be started with the settings as they are.
        """
        with explained("Syncing was not started"):
            await self._connect()

    async def disconnect(self) -> None:
        """Stop syncing until `connect`; what is here stays, and stays editable.

        Raises:
            StoreError: the database is closed.
        """
        with explained("Syncing was not stopped"):
            await self._database.disconnect()

    def open_list(self, list_id: str | None) -> None:
        """Tell which list the user looks at: its to-dos are subscribed before those of all others."""
        self._open_list = list_id
        self._wanted_changed.set()

    async def keep_subscribed(self, tell: Tell = note) -> None:
        """Keep the to-dos of every known list subscribed, the open list's first, for as long as this runs.

        Runs until it is cancelled or the database is closed. Subscriptions outlive it by `SUBSCRIPTION_TTL`.

        Args:
            tell: called once per trouble, when the subscriptions cannot be stored.
        """
        async for _ in going_on(self._subscribe, tell):
            pass

    async def _subscribe(self) -> AsyncGenerator[None]:
        """Yield each time that what is wanted is subscribed."""
        follower = asyncio.create_task(self._follow_list_ids(), name="follow the lists to subscribe")
        try:
            with explained("Some lists may not sync"), suppress(DatabaseClosedError):
                while not follower.done():
                    self._wanted_changed.clear()
                    await self._subscribe_wanted()
                    yield
                    await self._wanted_changed.wait()
                await follower
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    async def _follow_list_ids(self) -> None:
        try:
            async for rows in self._database.watch("SELECT id FROM lists ORDER BY created_at, id"):
                self._known_lists = [row["id"] for row in rows]
                self._wanted_changed.set()
        finally:
            self._wanted_changed.set()

    async def _subscribe_wanted(self) -> None:
        known, held = self._known_lists, self._subscriptions
        first = [self._open_list] if self._open_list in set(known) else []
        wanted = list(dict.fromkeys([list_id for list_id in (*first, *known) if list_id]))[:MAX_SUBSCRIBED_LISTS]
        for list_id in wanted:
            if list_id not in held:
                stream = self._database.sync_stream("todos", {"list": list_id})
                held[list_id] = await stream.subscribe(ttl=SUBSCRIPTION_TTL)
        for list_id in held.keys() - set(wanted):
            await held.pop(list_id).unsubscribe()

    async def _follow(
        self, failed: str, sql: str, parameters: Sequence[Any], make: Callable[[sqlite3.Row], T]
    ) -> AsyncGenerator[list[T]]:
        known: dict[str, tuple[sqlite3.Row, T]] = {}
        with explained(failed):
            watch = self._database.watch(sql, parameters)
            try:
                async for rows in watch:
                    current: dict[str, tuple[sqlite3.Row, T]] = {}
                    for row in rows:
                        row_id: str = row[0]
                        before = known.get(row_id)
                        current[row_id] = before if before is not None and before[0] == row else (row, make(row))
                    known = current
                    yield [made for _, made in current.values()]
            except DatabaseClosedError:
                return
            finally:
                await watch.aclose()

    async def _insert_list(self, transaction: Transaction, name: str) -> str:
        list_id = str(uuid.uuid4())
        await transaction.execute(
            "INSERT INTO lists (id, created_at, name, owner_id) VALUES (?, ?, ?, ?)",
            [list_id, self._stamp(), name, self._user_id],
        )
        return list_id

    async def _add_todos(self, list_id: str, descriptions: Sequence[str]) -> list[str]:
        failed = "The to-do was not added" if len(descriptions) == 1 else "The to-dos were not added"
        refuse_long(descriptions, failed)
        stamps = [self._stamp() for _ in descriptions]
        todo_ids: list[str] = []
        for end in ends_of_chunks(descriptions):
            chunk = range(len(todo_ids), end)
            with explained(failed, stored=len(todo_ids)):
                async with self._database.write_transaction() as transaction:
                    await _require(transaction, "lists", list_id, "the list has been deleted")
                    added = [
                        await self._insert_todo(transaction, list_id, descriptions[index], stamps[index])
                        for index in chunk
                    ]
            todo_ids += added
            failed = f"Only the first {end:,} to-dos were added"
        return todo_ids

    async def _insert_todo(self, transaction: Transaction, list_id: str, description: str, stamp: str) -> str:
        todo_id = str(uuid.uuid4())
        await transaction.execute(
            "INSERT INTO todos (id, list_id, created_at, description, completed, created_by) VALUES (?, ?, ?, ?, 0, ?)",
            [todo_id, list_id, stamp, description, self._user_id],
        )
        return todo_id

    async def _change_text(self, todo_id: str, change: Callable[[str], str]) -> None:
        failed = "The to-do was not changed"
        with explained(failed):
            async with self._database.write_transaction() as transaction:
                row = await transaction.get_optional("SELECT description FROM todos WHERE id = ?", [todo_id])
                if row is None:
                    raise RefusedError("it has been deleted")
                before = row["description"] or ""
                after = change(before)
                if len(after) > len(before):
                    refuse_long([after], failed)
                await transaction.execute("UPDATE todos SET description = ? WHERE id = ?", [after, todo_id])

    def _stamp(self) -> str:
        # No two stamps of one store are equal, so that what is added in one millisecond keeps its order.
        self._last_stamp = max(self._now().astimezone(UTC), self._last_stamp + timedelta(milliseconds=1))
        return self._last_stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _require(transaction: Transaction, table: str, row_id: str, otherwise: str) -> None:
    if await transaction.get_optional(f"SELECT 1 FROM {table} WHERE id = ?", [row_id]) is None:
        raise RefusedError(otherwise)


def _list_of_row(row: sqlite3.Row) -> TodoList:
    return TodoList(row["id"], row["name"], row["created_at"], row["open_count"], row["done_count"])


def _todo_of_row(row: sqlite3.Row) -> Todo:
    return Todo(
        row["id"],
        row["list_id"],
        row["description"],
        bool(row["completed"]),
        row["created_at"],
        row["completed_at"],
    )
