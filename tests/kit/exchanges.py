"""Exchanges of the demo connector with the backends that it can talk to: the scenarios, and their recordings.

Owns what the app does in each scenario, and the form of `tests/fixtures/exchanges`. Recording
(`tests.kit.record_exchanges`) and replaying run the same scenarios; only who answers differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.connection.connector import BackendRefusedError, BackendUnreachableError, HttpConnector
from app.connection.upload_interfaces import UploadInterfaceName
from app.store.schema import APP_SCHEMA
from sync import Column, PowerSyncDatabase, Schema, Table, UploadHeldError, UploadRetryError
from tests.kit.service import Exchange

DIRECTORY = Path(__file__).parent.parent / "fixtures" / "exchanges"
LONGEST_BODY = 4096
"""Bytes of a request's body that a recording holds; of a longer one it holds the hash."""

SCHEMA = Schema(
    [
        *(table for table in APP_SCHEMA.tables if table.name != "lists"),
        Table(
            "lists",
            [*(next(table for table in APP_SCHEMA.tables if table.name == "lists").columns), Column.text("colour")],
            track_previous_values=True,
        ),
        Table("notes", [Column.text("text")]),
    ]
)
"""The app's tables, and what no backend has: a column and a table."""

CREATED = "2026-01-02T03:04:05.678Z"
DONE = "2026-01-03T04:05:06.789Z"


@dataclass
class World:
    """One scenario under way.

    Attributes:
        database: of this device, empty at first.
        user_id: who writes.
        stop_backend_database: makes the backend lose its database; when replaying, the answers say so anyway.
        start_backend_database: brings it back.
        troubles: what each upload that did not empty the queue said.
    """

    database: PowerSyncDatabase
    connector: HttpConnector
    user_id: str
    stop_backend_database: Callable[[], Awaitable[None]]
    start_backend_database: Callable[[], Awaitable[None]]
    troubles: list[str] = field(default_factory=list[str])

    async def insert_list(self, list_id: str, name: str | None, **more: Any) -> None:
        row = {"id": list_id, "name": name, "created_at": CREATED, "owner_id": self.user_id, **more}
        await self._insert("lists", row)

    async def insert_todo(self, todo_id: str, list_id: str, description: str, **more: Any) -> None:
        row = {"id": todo_id, "list_id": list_id, "description": description, "completed": 0, **more}
        await self._insert("todos", row)

    async def _insert(self, table: str, row: dict[str, Any]) -> None:
        marks = ", ".join("?" * len(row))
        await self.database.execute(f"INSERT INTO {table}({', '.join(row)}) VALUES ({marks})", list(row.values()))

    async def forget_queue(self) -> None:
        """The rows stay, as if they had come from the service and were deleted there a moment ago."""
        await self.database.execute("DELETE FROM ps_crud")

    async def upload(self, attempts: int = 4) -> None:
        """Upload until nothing waits, at most so often."""
        for _ in range(attempts):
            try:
                await self.connector.upload_data(self.database)
            except (UploadRetryError, UploadHeldError, BackendUnreachableError, BackendRefusedError) as error:
                self.troubles.append(f"{type(error).__name__}: {error}")
            else:
                return

    async def waiting(self) -> list[str]:
        return [entry.id async for transaction in self.database.crud_transactions() for entry in transaction.crud]

    async def rejected(self) -> list[list[str]]:
        return [[entry.id for entry in rejected.crud] for rejected in await self.database.rejected_writes()]


def uuid(scenario: int, number: int) -> str:
    return f"{scenario:08}-0000-4000-8000-{number:012}"


async def everyday(world: World) -> None:
    """All ops, all columns, null, several transactions."""
    one, two, milk, bread = (uuid(1, number) for number in range(4))
    await world.insert_list(one, "Groceries")
    async with world.database.write_transaction() as tx:
        columns = "id, list_id, created_at, completed_at, description, completed, created_by, completed_by"
        insert = f"INSERT INTO todos({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        user = world.user_id
        await tx.execute(insert, [milk, one, CREATED, DONE, 'Mílk "½" \U0001f95b\n\\', 1, user, user])
        await tx.execute(insert, [bread, one, CREATED, None, "", 0, user, None])
    await world.database.execute("UPDATE lists SET name = 'Food' WHERE id = ?", [one])
    await world.database.execute(
        "UPDATE todos SET completed = 1, completed_at = ?, completed_by = ? WHERE id = ?", [DONE, world.user_id, bread]
    )
    await world.database.execute("UPDATE todos SET completed = 0, completed_at = NULL WHERE id = ?", [milk])
    await world.insert_list(two, "Short-lived")
    await world.database.execute("DELETE FROM todos WHERE id = ?", [bread])
    await world.database.execute("DELETE FROM lists WHERE id = ?", [two])
    await world.upload()


async def refused_row(world: World) -> None:
    """A list without an owner, in the middle: the others arrive."""
    await world.insert_list(uuid(2, 0), "Before")
    async with world.database.write_transaction() as tx:
        insert = "INSERT INTO lists(id, name, owner_id) VALUES (?, ?, ?)"
        await tx.execute(insert, [uuid(2, 1), "Fine", world.user_id])
        await tx.execute(insert, [uuid(2, 2), "Nobody's", None])
    await world.insert_list(uuid(2, 3), "After")
    await world.upload()


async def bad_id(world: World) -> None:
    """An id that is no UUID, and longer than one."""
    await world.insert_list("an id that is not a UUID but longer than one", "Odd")
    await world.upload()


async def unknown_table(world: World) -> None:
    await world.database.execute("INSERT INTO notes(id, text) VALUES (?, 'x')", [uuid(4, 0)])
    await world.upload()


async def unknown_column(world: World) -> None:
    await world.insert_list(uuid(5, 0), "Red", colour="red")
    await world.upload()


async def long_name(world: World) -> None:
    await world.insert_list(uuid(6, 0), "n" * 101)
    await world.upload()


async def long_text(world: World) -> None:
    """One row of more than 100 kB."""
    await world.insert_list(uuid(7, 0), "Long")
    await world.insert_todo(uuid(7, 1), uuid(7, 0), "d" * 110_000)
    await world.upload()


async def update_of_nothing(world: World) -> None:
    await world.insert_list(uuid(8, 0), "Same")
    await world.forget_queue()
    await world.database.execute("UPDATE lists SET name = 'Same' WHERE id = ?", [uuid(8, 0)])
    await world.upload()


async def update_of_a_missing_row(world: World) -> None:
    await world.insert_list(uuid(9, 0), "Gone")
    await world.forget_queue()
    await world.database.execute("UPDATE lists SET name = 'Changed' WHERE id = ?", [uuid(9, 0)])
    await world.upload()


async def deletion_of_a_missing_row(world: World) -> None:
    await world.insert_list(uuid(10, 0), "Gone")
    await world.forget_queue()
    await world.database.execute("DELETE FROM lists WHERE id = ?", [uuid(10, 0)])
    await world.upload()


async def outage(world: World) -> None:
    """The backend's database is away for longer than a refusal is tried."""
    await world.insert_list(uuid(11, 0), "Before")
    await world.upload()
    await world.stop_backend_database()
    await world.database.execute("UPDATE lists SET name = 'Meanwhile' WHERE id = ?", [uuid(11, 0)])
    await world.insert_list(uuid(11, 1), "After")
    await world.upload(5)
    await world.start_backend_database()
    await world.upload()


async def lost_answers(world: World) -> None:
    """Every answer to a first request of its kind is lost: what was carried out is sent again."""
    await world.insert_list(uuid(12, 0), "First")
    await world.upload()
    await world.database.execute("UPDATE lists SET name = 'Second' WHERE id = ?", [uuid(12, 0)])
    await world.upload()
    await world.database.execute("UPDATE lists SET name = 'Third' WHERE id = ?", [uuid(12, 0)])
    await world.database.execute("DELETE FROM lists WHERE id = ?", [uuid(12, 0)])
    await world.upload()


async def two_lists(world: World) -> None:
    """For a backend with another interface than the configured one."""
    await world.insert_list(uuid(13, 0), "One")
    await world.database.execute("DELETE FROM lists WHERE id = ?", [uuid(13, 0)])
    await world.upload()


SCENARIOS: dict[str, Callable[[World], Awaitable[None]]] = {
    scenario.__name__: scenario
    for scenario in (
        everyday,
        refused_row,
        bad_id,
        unknown_table,
        unknown_column,
        long_name,
        long_text,
        update_of_nothing,
        update_of_a_missing_row,
        deletion_of_a_missing_row,
        outage,
        lost_answers,
    )
}


OTHER_INTERFACES: dict[str, UploadInterfaceName] = {
    "as_write_api": "transactions",
    "as_rows": "rows",
    "as_batch": "batch",
}
"""Names of recordings of `two_lists` against a backend that has another interface."""


def recorded_request(exchange: Exchange) -> dict[str, Any]:
    """A request as recordings hold it, without its token."""
    request: dict[str, Any] = {"method": exchange.method, "target": exchange.target}
    if exchange.body:
        request["content_type"] = exchange.headers.get("content-type")
        if len(exchange.body) > LONGEST_BODY:
            request["bytes"] = len(exchange.body)
            request["sha256"] = hashlib.sha256(exchange.body).hexdigest()
        else:
            request["json"] = exchange.json
    return request


def load(backend: str) -> dict[str, Any]:
    return json.loads((DIRECTORY / f"{backend}.json").read_text("utf-8"))
