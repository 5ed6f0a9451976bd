"""The schema of the transcripts, a connector for scripted services, and looks into the file."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, TypeVar

from sync import BackendConnector, Column, Index, PowerSyncCredentials, PowerSyncDatabase, Schema, SyncOptions, Table
from tests.kit import inside

SCHEMA = Schema(
    [
        Table("lists", [Column.text("created_at"), Column.text("name"), Column.text("owner_id")]),
        Table(
            "todos",
            [
                Column.text("list_id"),
                Column.text("created_at"),
                Column.text("completed_at"),
                Column.text("description"),
                Column.integer("completed"),
                Column.text("created_by"),
                Column.text("completed_by"),
            ],
            indexes=[Index("list", ["list_id"])],
        ),
    ]
)

T = TypeVar("T")

QUICK = SyncOptions(crud_throttle=0, retry_delay=0.01, max_retry_delay=0.05)
"""Short waits, so that a test of a retry is quick. Deadlines are the real ones."""


class ServiceConnector(BackendConnector):
    """Credentials for a scripted service; uploads by a function of the test, or not at all."""

    def __init__(
        self,
        endpoint: str,
        upload: Callable[[PowerSyncDatabase], Awaitable[None]] | None = None,
        tokens: Callable[[int], Awaitable[str]] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.fetched = 0
        self._upload = upload
        self._tokens = tokens

    async def fetch_credentials(self) -> PowerSyncCredentials:
        self.fetched += 1
        token = f"token-{self.fetched}" if self._tokens is None else await self._tokens(self.fetched)
        return PowerSyncCredentials(self.endpoint, token)

    async def upload_data(self, database: PowerSyncDatabase) -> None:
        if self._upload is None:
            raise AssertionError("nothing was to be uploaded")
        await self._upload(database)


@contextlib.contextmanager
def held_by_another_process(database: PowerSyncDatabase) -> Generator[None]:
    """Let all writes of this database wait inside."""
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextlib.asynccontextmanager
async def held_reads(database: PowerSyncDatabase, text: str) -> AsyncGenerator[Callable[[], Awaitable[object]]]:
    """Hold reads in statements with this text, on the snapshot that they have; gives what waits until one is held."""
    reached, let_go = threading.Event(), threading.Event()

    def hold(sql: str) -> None:
        if text in sql:
            reached.set()
            let_go.wait(10)

    await inside.trace_readers(database, hold)
    try:
        yield lambda: asyncio.to_thread(reached.wait, 10)
    finally:
        let_go.set()


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """Await with a deadline that fails the test."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def rows(database: PowerSyncDatabase, sql: str, *parameters: Any) -> list[list[Any]]:
    """Rows as lists."""
    return [list(row) for row in await database.get_all(sql, parameters)]


async def until_rows(database: PowerSyncDatabase, sql: str, expected: list[list[Any]], seconds: float = 10) -> None:
    """Wait until a watched query gives these rows."""
    async with asyncio.timeout(seconds):
        async for result in database.watch(sql, throttle=0):
            if [list(row) for row in result] == expected:
                return
