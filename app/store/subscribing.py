"""Which to-dos are kept on this device: those of a prioritized list first, then those of all others.

Owns the subscriptions to the stream `todos`. Must not know how lists are shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta
from typing import Final

from app.store.failures import as_store_error
from sync import PowerSyncDatabase, SyncStreamSubscription
from sync.errors import DatabaseClosedError

MAX_SUBSCRIBED_LISTS: Final = 500
"""How many lists keep their to-dos on this device; beyond that, only the prioritized one and the oldest others do."""

SUBSCRIPTION_TTL: Final = timedelta(days=30)
"""How long a list's to-dos outlive the last time that the app ran: a laptop may stay shut over the holidays."""

_LIST_IDS: Final = "SELECT id FROM lists ORDER BY created_at, id"


class ListSubscriptions:
    """The subscriptions to the to-dos of lists.

    Args:
        database: open; its tables are those of `app.store.schema`.
    """

    def __init__(self, database: PowerSyncDatabase) -> None:
        self._database = database
        self._first_list: str | None = None
        self._known_lists: list[str] = []
        self._wanted_changed = asyncio.Event()
        self._subscribed: dict[str, SyncStreamSubscription] = {}

    def prioritize_list(self, list_id: str | None) -> None:
        """See `Store.prioritize_list`."""
        self._first_list = list_id
        self._wanted_changed.set()

    async def subscribe_known(self) -> None:
        """Subscribe to all known lists, once."""
        self._known_lists = [row["id"] for row in await self._database.get_all(_LIST_IDS)]
        await self._subscribe_wanted()

    async def wait_for_first_sync(self) -> None:
        """Wait until the to-dos of all known lists have been downloaded."""
        waited: set[str] = set()
        while True:
            await self.subscribe_known()
            fresh = self._subscribed.keys() - waited
            if not fresh:
                return
            for list_id in fresh:
                subscription = self._subscribed.get(list_id)
                if subscription is not None:
                    await subscription.wait_for_first_sync()
            waited |= fresh

    async def keep(self) -> AsyncGenerator[None]:
        """Stay subscribed to the wanted lists; yields whenever all of them are subscribed."""
        follower = asyncio.create_task(self._follow_list_ids(), name="follow the lists to subscribe")
        try:
            with as_store_error("Some lists may not sync"), suppress(DatabaseClosedError):
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
            async for rows in self._database.watch(_LIST_IDS):
                self._known_lists = [row["id"] for row in rows]
                self._wanted_changed.set()
        finally:
            self._wanted_changed.set()

    async def _subscribe_wanted(self) -> None:
        known, subscribed = self._known_lists, self._subscribed
        first = [self._first_list] if self._first_list in set(known) else []
        wanted = list(dict.fromkeys([list_id for list_id in (*first, *known) if list_id]))[:MAX_SUBSCRIBED_LISTS]
        for list_id in wanted:
            if list_id not in subscribed:
                stream = self._database.sync_stream("todos", {"list": list_id})
                subscribed[list_id] = await stream.subscribe(ttl=SUBSCRIPTION_TTL)
        for list_id in subscribed.keys() - set(wanted):
            await subscribed.pop(list_id).unsubscribe()
