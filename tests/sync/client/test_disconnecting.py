"""Disconnecting and closing: whatever a connector makes of it, they end, and leave the status of the last wish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from filelock import FileLock

from sync import BackendConnector, NestedUseError, PowerSyncCredentials, PowerSyncDatabase
from tests.kit.small_service import TOKEN, SmallService, small_service
from tests.sync.rig import QUICK, SCHEMA, ServiceConnector, within


@pytest.fixture
async def service() -> AsyncGenerator[SmallService]:
    async with small_service() as service:
        yield service


class Stubborn(BackendConnector):
    """Makes something else of its cancellation, as code with a bare `except` does."""

    def __init__(self, url: str, call: str, end: str) -> None:
        self.began = asyncio.Event()
        self._url = url
        self._call = call
        self._end = end

    async def fetch_credentials(self) -> PowerSyncCredentials:
        if self._call == "fetch_credentials":
            await self._wait()
        return PowerSyncCredentials(self._url, "token")

    async def upload_data(self, _: PowerSyncDatabase) -> None:
        await self._wait()

    async def _wait(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            if self._end == "error":
                raise OSError("the request was interrupted") from error


@pytest.mark.parametrize("call", ["fetch_credentials", "upload_data"])
@pytest.mark.parametrize("end", ["error", "result"])
async def test_a_connector_that_takes_cancellation_for_a_failure_does_not_keep_the_app_from_disconnecting(
    database: PowerSyncDatabase, service: SmallService, call: str, end: str
) -> None:
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    connector = Stubborn(service.url, call, end)
    await database.connect(connector, QUICK)
    await within(10, connector.began.wait())
    await within(10, database.disconnect())
    assert database.status.download_error is None
    assert database.status.upload_error is None
    await within(10, database.close())


@pytest.mark.parametrize("steps", range(8))
async def test_a_failure_at_the_moment_of_disconnecting_is_not_shown_afterwards(
    database: PowerSyncDatabase, service: SmallService, steps: int
) -> None:
    go_on = asyncio.Event()

    async def tokens(_: int) -> str:
        await go_on.wait()
        raise OSError("the sign-in server is away")

    connector = ServiceConnector(service.url, tokens=tokens)
    await database.connect(connector, QUICK)
    async with asyncio.timeout(10):
        while not connector.fetched:
            await asyncio.sleep(0)
    go_on.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    await within(10, database.disconnect())
    assert database.status.download_error is None


async def test_a_closed_database_wishes_for_nothing(tmp_path: Path, service: SmallService) -> None:
    async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_status(lambda status: status.download_error is not None, 10)
    assert not database.status.wanted
    assert database.status.next_retry_at is None


async def test_an_error_of_this_process_is_not_shown_while_another_syncs(tmp_path: Path, service: SmallService) -> None:
    """It cannot take the lock at first, and when it could, another one has it."""
    path = tmp_path / "c.db-sync-lock"
    path.mkdir()
    async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
        connector = ServiceConnector(service.url)
        await database.connect(connector, QUICK)
        await database.wait_for_status(lambda status: isinstance(status.download_error, OSError), 10)
        path.rmdir()
        with FileLock(path):
            await database.connect(connector, QUICK)
            status = await database.wait_for_status(lambda status: status.syncing_elsewhere, 10)
            assert status.download_error is None
            await database.disconnect()


async def test_subscriptions_that_cannot_be_read_end_no_upload(
    database: PowerSyncDatabase, service: SmallService, caplog: pytest.LogCaptureFixture
) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    attempts = 0

    async def upload(database: PowerSyncDatabase) -> None:
        nonlocal attempts
        attempts += 1
        began.set()
        await go_on.wait()
        async for transaction in database.crud_transactions():
            await transaction.complete()

    async def tokens(_: int) -> str:
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            return (await client.get(service.url + TOKEN)).json()["token"]

    await database.sync_stream("todos").subscribe()
    await database.connect(ServiceConnector(service.url, upload, tokens), QUICK)
    await database.wait_for_first_sync(10)
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    await within(10, began.wait())
    await database.execute(
        "CREATE TRIGGER broken BEFORE UPDATE ON ps_stream_subscriptions BEGIN SELECT RAISE(ABORT, 'broken'); END"
    )
    await database.sync_stream("todos", {"list": 1}).subscribe()
    async with asyncio.timeout(10):
        while "broken" not in caplog.text:
            await asyncio.sleep(0.001)
    await database.execute("DROP TRIGGER broken")
    go_on.set()
    await database.wait_for_upload(10)
    assert attempts == 1


@pytest.mark.parametrize("call", ["fetch_credentials", "upload_data"])
async def test_a_connector_that_closes_or_clears_the_database_is_refused_but_a_task_of_its_own_is_not(
    tmp_path: Path, service: SmallService, call: str
) -> None:
    refused: list[str] = []
    tasks: list[asyncio.Task[None]] = []
    cleared = asyncio.Event()

    class Closing(BackendConnector):
        async def fetch_credentials(self) -> PowerSyncCredentials:
            if call == "fetch_credentials":
                await self.end()
            return PowerSyncCredentials(service.url, "token")

        async def upload_data(self, _: PowerSyncDatabase) -> None:
            await self.end()

        async def end(self) -> None:
            for ending in (database.close, database.disconnect_and_clear):
                try:
                    await ending()
                except NestedUseError as error:
                    refused.append(str(error))
            if not tasks:
                tasks.append(asyncio.create_task(database.disconnect_and_clear()))
                tasks[0].add_done_callback(lambda _: cleared.set())

    async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        await database.connect(Closing(), QUICK)
        await within(10, cleared.wait())
        assert not tasks[0].cancelled()
        assert await database.get_all("SELECT id FROM lists") == []
        assert len(refused) >= 2
        assert "called from the connector" in refused[0]
        assert not database.status.wanted
