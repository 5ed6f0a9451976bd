"""The connector and the real demo backend, with faults between them that no write may be lost by."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from app.backend import BackendConfig
from app.connection.connector import BackendUnreachableError, HttpConnector
from app.connection.upload_interfaces import UploadInterfaceName
from sync import PowerSyncDatabase, UploadRetryError
from tests.app.backend.harness import running, signed_in
from tests.kit.service import Exchange, scripted_service

USER = "7c1f8c5e-61f7-4b0a-8f0e-2d4d8f0b6a11"
INSERT = "INSERT INTO lists(id, name, owner_id) VALUES (?, ?, ?)"

Fault = Callable[[Exchange, httpx.Response], Awaitable[bool]]
"""May answer an upload otherwise than the backend did; tells whether it has."""


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncGenerator[str]:
    async with running(BackendConfig(tmp_path / "backend.db", port=0, open_to_all=True)) as url:
        yield url


@asynccontextmanager
async def between(
    backend: str, interface: UploadInterfaceName, refuses: Callable[[Exchange], int], fault: Fault
) -> AsyncGenerator[HttpConnector]:
    """A connector to the backend through what refuses requests with a status (0: not), and spoils answers."""
    async with httpx.AsyncClient(base_url=backend) as client:

        async def handle(exchange: Exchange) -> None:
            if exchange.body and (status := refuses(exchange)):
                await exchange.answer(status, {"message": "We do not want this."})
                return
            names = ("authorization", "content-type")
            headers = {name: exchange.headers[name] for name in names if name in exchange.headers}
            answer = await client.request(exchange.method, exchange.target, content=exchange.body, headers=headers)
            if not exchange.body or not await fault(exchange, answer):
                await exchange.answer(answer.status_code, answer.json())

        async with scripted_service(handle) as service:
            connector = HttpConnector(service.url, USER, interface=interface)
            try:
                yield connector
            finally:
                await connector.aclose()


async def no_fault(_exchange: Exchange, _answer: httpx.Response) -> bool:
    return False


async def drained(database: PowerSyncDatabase, connector: HttpConnector, attempts: int) -> int:
    """Upload until nothing waits, at most so often; gives how many attempts failed."""
    for failed in range(attempts):
        try:
            await connector.upload_data(database)
        except (UploadRetryError, BackendUnreachableError):
            continue
        return failed
    raise AssertionError(f"something still waits after {attempts} attempts")


async def names(backend: str) -> dict[str, str]:
    async with signed_in(backend, USER) as user:
        return {row_id: row["name"] for row_id, row in (await user.synced()).rows("lists").items()}


@pytest.mark.parametrize("status", [400, 403, 409, 413, 422])
@pytest.mark.parametrize("interface", ["batch", "transactions"])
async def test_one_refused_in_a_thousand(
    backend: str, database: PowerSyncDatabase, interface: UploadInterfaceName, status: int
) -> None:
    for number in range(1000):
        await database.execute(INSERT, [f"{number:03}", f"Name {number}", USER])
    mended = False

    def refuses(exchange: Exchange) -> int:
        return status if not mended and b'"Name 500"' in exchange.body else 0

    async with between(backend, interface, refuses, no_fault) as connector:
        assert await drained(database, connector, 4) == 2
        arrived = await names(backend)
        assert list(arrived) == [f"{number:03}" for number in range(1000) if number != 500]
        [rejected] = await database.rejected_writes()
        assert [entry.id for entry in rejected.crud] == ["500"]
        assert "We do not want this" in rejected.reason
        assert rejected.code == str(status)
        mended = True
        assert await rejected.retry()
        await connector.upload_data(database)
    assert await database.rejected_writes() == []
    assert (await names(backend))["500"] == "Name 500"


@pytest.mark.parametrize("dropped", [False, True], ids=["500", "dropped"])
@pytest.mark.parametrize("interface", ["batch", "transactions"])
async def test_what_was_committed_and_not_answered_is_repeated_without_harm(
    backend: str, database: PowerSyncDatabase, interface: UploadInterfaceName, dropped: bool
) -> None:
    spoilt: set[bytes] = set()

    async def fault(exchange: Exchange, answer: httpx.Response) -> bool:
        assert answer.status_code == 200
        if exchange.body in spoilt:
            return False
        spoilt.add(exchange.body)
        if dropped:
            exchange.drop()
        else:
            await exchange.answer(500, {"message": "Later."})
        return True

    todo = "INSERT INTO todos(id, list_id, description) VALUES (?, 'l', ?)"
    async with between(backend, interface, lambda _: 0, fault) as connector:
        for statements in (
            [(INSERT, ["l", "First", USER]), (todo, ["t", "Milk"]), (todo, ["u", "Bread"])],
            [("UPDATE lists SET name = 'Second' WHERE id = 'l'", []), ("DELETE FROM todos WHERE id = 't'", [])],
            [(todo, ["v", "Late"]), ("DELETE FROM todos", []), ("DELETE FROM lists", []), (INSERT, ["m", "M", USER])],
        ):
            for sql, parameters in statements:
                await database.execute(sql, parameters)
            assert await drained(database, connector, 3) == 1
            if statements[0][0] != todo:
                assert await names(backend) == {"l": "First" if statements[0][0] == INSERT else "Second"}
    assert await names(backend) == {"m": "M"}
    assert await database.rejected_writes() == []
