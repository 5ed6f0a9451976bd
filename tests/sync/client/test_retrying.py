"""The waits between attempts: what cuts them short, what does not, and that none is for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from sync import PowerSyncDatabase, ServiceError, SyncOptions, UploadRetryError
from tests.kit import inside
from tests.kit.small_service import STREAM, UPLOAD, SmallConnector, SmallService, drop, refuse, small_service
from tests.sync.rig import SCHEMA, ServiceConnector, until_rows, within

PATIENT = SyncOptions(crud_throttle=0, retry_delay=1e6, max_retry_delay=1e6)
ASKS_FOR_TIME = refuse(503, "CODE", retry_after="100000")


@pytest.fixture
async def service() -> AsyncGenerator[SmallService]:
    async with small_service() as service:
        yield service


@pytest.fixture
async def connector(service: SmallService) -> AsyncGenerator[SmallConnector]:
    connector = SmallConnector(service.url)
    yield connector
    await connector.aclose()


async def insert(database: PowerSyncDatabase, name: str) -> None:
    await database.execute("INSERT INTO lists(id, name) VALUES (?, ?)", [name, name])


async def test_time_that_the_service_asked_for_is_its_own(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    """Local writes upload, but do not make the stream's attempts more; only who asks to connect does."""
    service.next(STREAM, ASKS_FOR_TIME)
    await database.connect(connector, PATIENT)
    status = await database.wait_for_status(lambda status: status.download_retry_at is not None, 10)
    assert isinstance(status.download_error, ServiceError)
    for number in range(3):
        await insert(database, f"a{number}")
        await until_rows(database, "SELECT count(*) FROM ps_crud", [[0]])
    await database.flush(10)
    assert service.requests[STREAM] == 1
    assert database.status.download_retry_at == status.download_retry_at
    assert "as requested by the service or the backend" in str(await database.explain_sync())
    await database.connect(connector, PATIENT)
    await database.wait_for_first_sync(10)
    assert service.requests[STREAM] == 2


async def test_time_that_the_backend_asked_for_is_its_own(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    attempts = 0

    async def upload(database: PowerSyncDatabase) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise UploadRetryError("Too many requests", after=100_000)
        await connector.upload_data(database)

    await insert(database, "a")
    uploading = ServiceConnector(service.url, upload, lambda _: token())

    async def token() -> str:
        return (await connector.fetch_credentials()).token

    await database.connect(uploading, PATIENT)
    status = await database.wait_for_status(lambda status: status.upload_retry_at is not None, 10)
    await database.wait_for_status(lambda status: status.connected, 10)
    await insert(database, "b")
    await database.sync_stream("todos").subscribe()  # the stream opens anew, which also is a reason to try
    async with asyncio.timeout(10):
        while service.requests[STREAM] < 2 or not database.status.connected:
            await asyncio.sleep(0.001)
    assert attempts == 1
    assert database.status.upload_retry_at == status.upload_retry_at
    await database.connect(uploading, PATIENT)
    await database.wait_for_upload(10)
    assert attempts == 2


async def test_commits_of_others_do_not_cut_waits_short(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    attempts = 0

    async def upload(database: PowerSyncDatabase) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise OSError("backend away")
        await connector.upload_data(database)

    async def token() -> str:
        return (await connector.fetch_credentials()).token

    service.next(STREAM, drop())
    await insert(database, "a")
    uploading = ServiceConnector(service.url, upload, lambda _: token())
    await database.connect(uploading, PATIENT)
    await database.wait_for_status(
        lambda status: status.upload_retry_at is not None and status.download_retry_at is not None, 10
    )
    # One watch for all: a new one would read the row before this process has noticed the commit.
    watch = database.watch("SELECT id FROM lists ORDER BY id", throttle=0)
    assert [row[0] for row in await within(10, anext(watch))] == ["a"]
    async with PowerSyncDatabase(database.path, SCHEMA) as other:
        for number in range(3):
            await insert(other, f"b{number}")
            assert [row[0] for row in await within(10, anext(watch))][-1] == f"b{number}"
    assert (attempts, service.requests[STREAM]) == (1, 1)
    await database.connect(uploading, PATIENT)
    await database.wait_for_upload(10)
    await database.wait_for_first_sync(10)
    assert (attempts, service.requests[STREAM]) == (2, 2)


async def test_what_keeps_synchronization_from_running_has_a_next_attempt(
    tmp_path: Path, service: SmallService, connector: SmallConnector
) -> None:
    obstacle = tmp_path / "c.db-sync-lock"
    obstacle.mkdir()
    async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
        await database.connect(connector, PATIENT)
        # Several attempts fail, so that the next one is minutes away.
        for _ in range(20):
            status = await database.wait_for_status(lambda status: status.download_retry_at is not None, 10)
            before = status.download_retry_at
            assert "Not connected." in str(await database.explain_sync())
            await database.connect(connector, PATIENT)
            await database.wait_for_status(lambda status, before=before: status.download_retry_at != before, 10)
        await database.wait_for_status(lambda status: status.download_retry_at is not None, 10)
        obstacle.rmdir()
        await database.connect(connector, PATIENT)
        await database.wait_for_first_sync(10)
        assert (database.status.download_error, database.status.download_retry_at) == (None, None)


async def test_the_queue_is_looked_at_once_a_minute_though_nothing_asked_for_it(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a commit that nobody told of; the clock is put forward, and the stream is silent all the while."""
    loop = asyncio.get_running_loop()
    real, ahead = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + ahead)
    service.keepalive_seconds = 1e6
    await database.connect(connector, SyncOptions(silence_timeout=1e6))
    await database.wait_for_first_sync()
    # Nothing that asks for a look reaches the loop any more: only its minute is left.
    await inside.leave_uploads_to_their_timer(database)
    await insert(database, "a")
    await database.wait_for_status(lambda status: status.upload_queue_count == 1)
    assert service.uploads == []
    ahead += 61
    await database.wait_for_status(lambda status: status.upload_queue_count == 0)
    assert [upload.crud[0]["id"] for upload in service.uploads] == ["a"]
    assert service.requests[UPLOAD] == service.requests[STREAM] == 1
