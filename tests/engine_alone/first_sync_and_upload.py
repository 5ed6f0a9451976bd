"""A first sync and an upload by the engine alone: `python first_sync_and_upload.py URL`.

Imports only `sync` and the standard library, so that it runs where only `todo-tui-sync` is installed. URL is that of a
demo backend that lets anybody in (`todo-tui backend --open`). One device writes a list offline and uploads it; a second
one, with a new file, receives it in its first sync.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import sync
from sync import BackendConnector, Column, PowerSyncCredentials, PowerSyncDatabase, Schema, Table

SCHEMA = Schema([Table("lists", [Column.text("name"), Column.text("owner_id")])])
TIMEOUT = 120.0
"""Seconds after which this program fails instead of waiting on."""


class Connector(BackendConnector):
    """Speaks the interface of PowerSync's Node demo backend, as one user."""

    def __init__(self, url: str, user_id: str) -> None:
        self._url = url
        self._user_id = user_id
        self._opener = build_opener(ProxyHandler({}))

    async def fetch_credentials(self) -> PowerSyncCredentials:
        query = urlencode({"user_id": self._user_id})
        answer = await asyncio.to_thread(self._send, Request(f"{self._url}/api/auth/token?{query}"))
        return PowerSyncCredentials(answer["powersync_url"], answer["token"])

    async def upload_data(self, database: PowerSyncDatabase) -> None:
        async for transaction in database.crud_transactions():
            batch = [
                {"op": entry.op, "table": entry.table, "id": entry.id, "data": entry.data} for entry in transaction.crud
            ]
            token = (await self.fetch_credentials()).token
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            body = json.dumps({"batch": batch}).encode()
            await asyncio.to_thread(self._send, Request(f"{self._url}/api/data", body, headers))
            await transaction.complete()

    def _send(self, request: Request) -> Any:
        """The answer to one request, read as JSON. Raises `HTTPError` unless it succeeded."""
        with self._opener.open(request, timeout=TIMEOUT) as response:
            return json.load(response)


async def lists_of(database: PowerSyncDatabase) -> list[tuple[str, str]]:
    return [(row["name"], row["owner_id"]) for row in await database.get_all("SELECT name, owner_id FROM lists")]


async def main(url: str, directory: Path) -> None:
    user_id = str(uuid.uuid4())
    written = [("Groceries", user_id)]
    async with PowerSyncDatabase(directory / "one.db", SCHEMA) as database:
        await database.execute("INSERT INTO lists (id, name, owner_id) VALUES (uuid(), ?, ?)", written[0])
        await database.connect(Connector(url, user_id))
        await database.wait_for_upload(TIMEOUT)
        assert (await database.upload_queue_stats()).transactions == 0

    async with PowerSyncDatabase(directory / "two.db", SCHEMA) as database:
        assert await lists_of(database) == []
        await database.connect(Connector(url, user_id))
        await database.wait_for_first_sync(TIMEOUT)
        received = await lists_of(database)
        assert received == written, received


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(main(sys.argv[1], Path(scratch)))
    print(f"sync {sync.__version__} has uploaded a list and received it in a first sync.")
