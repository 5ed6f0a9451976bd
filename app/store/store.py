"""The store: what the interface and the commands work with.

Owns how what is read is followed: unchanged rows stay the same objects, and reading goes on after a failure. What is
written is `app.store.editing`'s, what is read `app.store.views`'.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from datetime import date, datetime
from typing import Any, Final, TypeVar

from app.store import views
from app.store.editing import Editing
from app.store.failures import OnFailure, as_store_error, follow_with_retry, log_failure
from app.store.following import ViewFollower, ViewRead
from app.store.rows import Todo, TodoList, list_of_row, todo_of_row
from app.store.subscribing import SUBSCRIPTION_TTL, ListSubscriptions
from app.store.sync_report import SyncReport
from app.store.views import DEFAULT_ARRANGEMENTS, Arrangement, SmartView, Sort, ViewCounts
from app.store.writes import Writes
from app.system.clock import local_now
from sync import PowerSyncDatabase, SyncStatus
from sync.errors import DatabaseClosedError

__all__ = ["SUBSCRIPTION_TTL", "Store"]

T = TypeVar("T")

_COUNT_SECONDS = 0.25
"""The views across lists are counted at most this often: counting reads all to-dos."""

View = SmartView | str
"""A view across lists, or the id of a list."""


class Store:
    """The lists and to-dos of one user in one database.

    Reading is done here, writing by `edit`. Writes sync when there is a connection; before the database is closed,
    `flush` waits for those that are under way. What is watched goes on after a failure, with growing waits.

    Attributes:
        edit: every change of lists and to-dos, undo and redo.
        report: the state of synchronization explained, and what was rejected.

    Args:
        database: open, with `app.store.schema.APP_SCHEMA`; the store does not close it.
        user_id: the owner of what is made here.
        connect: starts syncing `database` with its backend, and returns without waiting for the connection.
        now: the clock, giving aware datetimes in the user's zone.
    """

    def __init__(
        self,
        database: PowerSyncDatabase,
        user_id: str,
        connect: Callable[[], Awaitable[None]],
        *,
        now: Callable[[], datetime] = local_now,
    ) -> None:
        self._database = database
        self._connect = connect
        self._now = now
        self._writes = Writes()
        self._subscriptions = ListSubscriptions(database)
        self.edit: Final = Editing(database, user_id, now, self._writes)
        self.report: Final = SyncReport(database, self._writes)

    async def flush(self, seconds: float) -> int:
        """Wait at most this long for the writes that are under way; return how many are not stored by then.

        Those are still unfinished, or have failed.
        """
        return await self._writes.flush(seconds)

    # Reading

    def today(self) -> date:
        """The local day, to which views and words such as `tomorrow` refer."""
        return self._now().date()

    def watch_lists(self, on_failure: OnFailure = log_failure) -> AsyncIterator[list[TodoList]]:
        """Yield all lists, now and after each change, oldest first; unchanged ones stay the same objects.

        Ends when the database is closed.

        Args:
            on_failure: called once when the lists cannot be read.
        """
        failed = "The lists cannot be shown"
        return follow_with_retry(lambda: self._follow(failed, views.LISTS, (), list_of_row), on_failure)

    async def todos(self, view: View, *, arrangement: Arrangement | None = None) -> list[Todo]:
        """The to-dos of a view; completed ones come last, the most recent first.

        Args:
            view: a view across lists, or the id of a list.
            arrangement: their order; by default that of a view that nobody has rearranged.

        Raises:
            StoreError: they cannot be read.
        """
        sql, parameters = views.todos_query(view, arrangement or default_arrangement(view), self.today())
        with as_store_error("The to-dos cannot be read"):
            return [todo_of_row(row) for row in await self._database.get_all(sql, parameters)]

    def watch_view(self, view: View, on_failure: OnFailure = log_failure) -> AsyncIterator[ViewRead]:
        """Yield the to-dos of a view, now and after each change, as it is arranged on this device when this begins.

        Unchanged to-dos stay the same objects. Ends when the database is closed. A view that depends on the day shows
        the day on which this was called.

        Args:
            view: a view across lists, or the id of a list.
            on_failure: called once when the to-dos cannot be read.
        """
        return follow_with_retry(lambda: self._follow_view(view), on_failure)

    def watch_counts(self, on_failure: OnFailure = log_failure) -> AsyncIterator[ViewCounts]:
        """Yield how many to-dos are in the views across lists; otherwise as `watch_view`."""
        parameters = {"today": self.today().isoformat()}
        return follow_with_retry(lambda: self._follow_counts(parameters), on_failure)

    def watch_waiting(self, on_failure: OnFailure = log_failure) -> AsyncIterator[frozenset[str]]:
        """Yield the ids of the to-dos whose changes wait to be uploaded; otherwise as `watch_view`."""
        return follow_with_retry(self._follow_waiting, on_failure)

    async def arrangement(self, view: View) -> Arrangement:
        """How a view is arranged on this device.

        Raises:
            StoreError: it cannot be read.
        """
        with as_store_error("The to-dos cannot be shown"):
            row = await self._database.get_optional(
                "SELECT sort, shows_done FROM arrangements WHERE id = ?", [_view_id(view)]
            )
        if row is None or row["sort"] not in {sort.value for sort in Sort}:
            return default_arrangement(view)
        return Arrangement(Sort(row["sort"]), shows_done=bool(row["shows_done"]))

    async def arrange(self, view: View, arrangement: Arrangement) -> None:
        """Save how a view is arranged on this device.

        Raises:
            StoreError: it was not saved.
        """
        with as_store_error("The arrangement of the view was not saved"):
            await self._database.upsert(
                "arrangements",
                {"id": _view_id(view), "sort": arrangement.sort.value, "shows_done": int(arrangement.shows_done)},
            )

    async def find_todos(self, *, id_prefix: str = "", words: Sequence[str] = ()) -> list[Todo]:
        """To-dos by the beginning of their id and by words in their text, oldest first; at most a hundred.

        Raises:
            StoreError: they cannot be read.
        """
        with as_store_error("The to-dos cannot be read"):
            rows = await self._database.get_all(views.FOUND, [id_prefix, id_prefix, json.dumps(list(words))])
        return [todo_of_row(row) for row in rows]

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
        with as_store_error("Syncing was not started"):
            await self._connect()

    async def disconnect(self) -> None:
        """Stop syncing until `connect`; local data stays, and stays editable.

        Raises:
            StoreError: the database is closed.
        """
        with as_store_error("Syncing was not stopped"):
            await self._database.disconnect()

    def prioritize_list(self, list_id: str | None) -> None:
        """Subscribe to the to-dos of this list before those of all others, from now on."""
        self._subscriptions.prioritize_list(list_id)

    async def keep_subscribed(self, on_failure: OnFailure = log_failure) -> None:
        """Stay subscribed to the to-dos of every known list, the prioritized one first, for as long as this runs.

        Runs until it is cancelled or the database is closed. Subscriptions outlive it by `SUBSCRIPTION_TTL`.

        Args:
            on_failure: called once when the subscriptions cannot be stored.
        """
        async for _ in follow_with_retry(self._subscriptions.keep, on_failure):
            pass

    async def subscribe_known(self) -> None:
        """Subscribe to the to-dos of all known lists, once.

        Raises:
            StoreError: the subscriptions cannot be stored.
        """
        with as_store_error("Some lists may not sync"):
            await self._subscriptions.subscribe_known()

    async def wait_for_todos(self) -> None:
        """Wait until the to-dos of all known lists have been downloaded; for use while syncing.

        Raises:
            StoreError: the subscriptions cannot be stored, or the database is closed.
        """
        with as_store_error("The to-dos were not downloaded"):
            await self._subscriptions.wait_for_first_sync()

    async def _follow(
        self, failed: str, sql: str, parameters: Any, make: Callable[[sqlite3.Row], T]
    ) -> AsyncGenerator[list[T]]:
        known: dict[str, tuple[sqlite3.Row, T]] = {}
        with as_store_error(failed):
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

    async def _follow_view(self, view: View) -> AsyncGenerator[ViewRead]:
        follower = ViewFollower(self._database, view, await self.arrangement(view), self.today())
        with as_store_error("The to-dos cannot be shown"), suppress(DatabaseClosedError):
            async with aclosing(follower.reads()) as reads:
                async for read in reads:
                    yield read

    async def _follow_waiting(self) -> AsyncGenerator[frozenset[str]]:
        with as_store_error("The waiting changes cannot be shown"), suppress(DatabaseClosedError):
            async for waiting in self._database.watch_queued_rows("todos", throttle=0.1):
                yield waiting

    async def _follow_counts(self, parameters: dict[str, Any]) -> AsyncGenerator[ViewCounts]:
        with as_store_error("The counts cannot be shown"):
            watch = self._database.watch(views.COUNTS, parameters, row_type=ViewCounts, throttle=_COUNT_SECONDS)
            try:
                async for rows in watch:
                    yield rows[0]
            except DatabaseClosedError:
                return
            finally:
                await watch.aclose()


def default_arrangement(view: View) -> Arrangement:
    """How a view is arranged until somebody rearranges it."""
    return DEFAULT_ARRANGEMENTS[view] if isinstance(view, SmartView) else Arrangement()


def _view_id(view: View) -> str:
    return f"view:{view.value}" if isinstance(view, SmartView) else view
