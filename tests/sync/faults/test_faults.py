"""Everything that can go wrong between a device and its service, each followed by a device that is synced.

Nothing is lost, and nothing is uploaded twice but the one attempt whose answer was lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from sync import (
    AuthError,
    ChecksumError,
    NetworkError,
    PowerSyncDatabase,
    ProtocolError,
    ServiceError,
    SyncOptions,
    SyncStatus,
)
from tests.kit.small_service import (
    CHECKPOINT,
    LEGACY_CHECKPOINT,
    LISTS,
    STREAM,
    TOKEN,
    UPLOAD,
    Fault,
    SmallConnector,
    SmallService,
    at_line,
    change_line,
    drop,
    flip_checksum,
    late,
    lose_answer,
    refuse,
    small_service,
    swallow,
)
from tests.sync.rig import QUICK, rows, until_rows

IMPATIENT = SyncOptions(
    crud_throttle=0,
    retry_delay=0.01,
    max_retry_delay=0.05,
    credentials_timeout=0.2,
    upload_timeout=0.2,
    connect_timeout=0.2,
    silence_timeout=0.2,
)
"""Deadlines that a test can wait for."""


@pytest.fixture
async def service() -> AsyncGenerator[SmallService]:
    async with small_service() as service:
        yield service


@pytest.fixture
async def connector(service: SmallService) -> AsyncGenerator[SmallConnector]:
    connector = SmallConnector(service.url)
    yield connector
    await connector.aclose()


async def until(database: PowerSyncDatabase, wanted: Callable[[SyncStatus], object]) -> SyncStatus:
    async with asyncio.timeout(20):
        async for status in database.watch_status():
            if wanted(status):
                return status
    raise AssertionError("the database was closed")


async def synced(database: PowerSyncDatabase, service: SmallService) -> None:
    """Wait until the device is connected, its queue empty, its gate open, and it shows just what the service has."""
    gate = (
        "SELECT coalesce((SELECT value FROM ps_kv WHERE key = 'target_checkpoint_request_id'), 0)"
        " <= coalesce((SELECT value FROM ps_kv WHERE key = 'last_seen_checkpoint_request_id'), 0)"
    )
    sql = "SELECT id, name FROM lists ORDER BY id"
    async with asyncio.timeout(20):
        while True:
            there = sorted([key[1], row["name"]] for key, row in service.rows.items() if key[0] == "lists")
            waiting = await rows(database, "SELECT count(*) FROM ps_crud") + await rows(database, gate)
            if waiting == [[0], [1]] and await rows(database, sql) == there and database.status.connected:
                return
            await asyncio.sleep(0.01)


def uploaded_once(service: SmallService) -> None:
    """Each transaction arrived once, and once more for each answer that was lost; first arrivals are in order."""
    lost = Counter(upload.numbers for upload in service.uploads if not upload.answered)
    for numbers, count in Counter(upload.numbers for upload in service.uploads).items():
        assert count <= 1 + lost[numbers], numbers
    first = list(dict.fromkeys(upload.numbers for upload in service.uploads))
    assert first == sorted(first)


def as_text(text: str) -> Callable[[Any], str]:
    return lambda _: text


def disordered(line: Any) -> Any:
    line["data"]["data"].reverse()
    return line


FAULTS: dict[str, tuple[str, list[Fault], type[Exception] | None]] = {
    "stream dropped": (STREAM, [drop()], NetworkError),
    "stream ends before its first line": (STREAM, [at_line(0, "end")], None),
    "stream ends amid a checkpoint": (STREAM, [at_line(1, "end")], None),
    "stream drops amid a checkpoint": (STREAM, [at_line(1, "drop")], NetworkError),
    "line cut": (STREAM, [at_line(1, "cut")], NetworkError),
    "silence before an answer": (STREAM, [swallow()], NetworkError),
    "silence amid a checkpoint": (STREAM, [at_line(2, "swallow")], NetworkError),
    "not replicated yet": (STREAM, [refuse(500, "PSYNC_S2302", "Not replicated yet")], ServiceError),
    "too many buckets": (STREAM, [refuse(500, "PSYNC_S2305", "Too many buckets")], ServiceError),
    "too many connections": (STREAM, [refuse(429, "PSYNC_S2304", "Too many connections", "0")], ServiceError),
    "a date to return at": (STREAM, [refuse(503, retry_after="Fri, 01 Jan 2021 00:00:00 GMT")], ServiceError),
    "refused once": (STREAM, [refuse(401, "PSYNC_S2103", "JWT has expired")], None),
    "refused repeatedly": (STREAM, [refuse(401, "PSYNC_S2103", "JWT has expired")] * 3, AuthError),
    "wrong checksum": (STREAM, [flip_checksum()], ChecksumError),
    "no JSON": (STREAM, [change_line("data", as_text("{]\n"))], ProtocolError),
    "unknown line": (STREAM, [change_line("checkpoint_complete", as_text('{"news":{}}\n')), drop()], NetworkError),
    "data before a checkpoint": (STREAM, [change_line("checkpoint", as_text("\n"))], ProtocolError),
    "operations out of order": (STREAM, [change_line("data", disordered)], ProtocolError),
    "token refused": (TOKEN, [refuse(500)], Exception),
    "token swallowed": (TOKEN, [swallow()], Exception),
    "token late": (TOKEN, [late(0.05)], None),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_download_that_fails_is_tried_until_all_is_there(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector, name: str
) -> None:
    path, faults, kind = FAULTS[name]
    shown: list[Exception] = []

    async def follow() -> None:
        async for status in database.watch_status():
            if status.download_error is not None:
                shown.append(status.download_error)

    service.write("lists", "a", {"name": "theirs"})
    service.write("lists", "b", {"name": "theirs too"})
    service.next(path, *faults)
    await database.execute("INSERT INTO lists(id, name) VALUES ('c', 'mine')")
    async with asyncio.TaskGroup() as group:
        follower = group.create_task(follow())
        await database.connect(connector, IMPATIENT)
        if name == "unknown line":
            # It hides the end of the checkpoint: only the next one completes it.
            await until_rows(database, "SELECT count(*) FROM ps_crud", [[0]])
            service.write("lists", "d", {"name": "more"})
        await synced(database, service)
        follower.cancel()
    assert service.faults_left == 0 or name == "unknown line"
    if kind is not None and name != "unknown line":
        assert isinstance(shown[0], kind)
        if isinstance(shown[0], ServiceError):
            assert all(part in str(shown[0]) for part in (shown[0].code or "HTTP", str(shown[0].status)))
    elif name != "unknown line":
        assert shown == []
    assert database.status.download_error is None
    uploaded_once(service)


UPLOAD_FAULTS: dict[str, tuple[str, list[Fault]]] = {
    "refused": (UPLOAD, [refuse(500), refuse(503)]),
    "dropped": (UPLOAD, [drop()]),
    "swallowed": (UPLOAD, [swallow()]),
    "late": (UPLOAD, [late(0.05)]),
    "answer lost": (UPLOAD, [Fault(), lose_answer()]),
    "checkpoint request refused": (CHECKPOINT, [refuse(500)]),
    "checkpoint request unauthorized": (CHECKPOINT, [refuse(401)]),
    "checkpoint request dropped": (CHECKPOINT, [drop()]),
    "checkpoint request swallowed": (CHECKPOINT, [swallow()]),
    "checkpoint answer lost": (CHECKPOINT, [lose_answer()]),
}


@pytest.mark.parametrize("name", UPLOAD_FAULTS)
async def test_an_upload_that_fails_is_tried_until_all_is_there(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector, name: str
) -> None:
    path, faults = UPLOAD_FAULTS[name]
    service.next(path, *faults)
    for number in range(3):
        await database.execute("INSERT INTO lists(id, name) VALUES (?, 'mine')", [f"a{number}"])
    await database.connect(connector, IMPATIENT)
    await synced(database, service)
    await until(database, lambda status: status.upload_error is None and not status.uploading)
    assert service.faults_left == 0
    assert [upload.crud[0]["id"] for upload in service.uploads if upload.answered] == ["a0", "a1", "a2"]
    uploaded_once(service)


async def test_an_expired_token_is_no_failure_of_an_upload(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    shown: list[Exception] = []

    async def follow() -> None:
        async for status in database.watch_status():
            if status.upload_error is not None:
                shown.append(status.upload_error)

    service.next(CHECKPOINT, refuse(401, "PSYNC_S2103", "JWT has expired"))
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'mine')")
    async with asyncio.TaskGroup() as group:
        follower = group.create_task(follow())
        await database.connect(connector, QUICK)
        await synced(database, service)
        follower.cancel()
    assert shown == []
    assert connector.fetched == 2


async def test_an_upload_that_failed_is_tried_again_once_the_stream_opens(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    """Whatever was away is probably back; the wait after the failure would be far longer."""
    service.next(UPLOAD, refuse(500))
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'mine')")
    await database.connect(connector, SyncOptions(crud_throttle=0, retry_delay=1e6, max_retry_delay=1e6))
    await until(database, lambda status: status.upload_error is not None and status.connected)
    if service.uploads == []:
        await database.sync_stream("todos").subscribe()  # exchanges the connection
    await synced(database, service)
    assert service.requests[UPLOAD] == 2


async def test_a_service_that_freezes_is_noticed_within_the_deadlines(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    """All connections are half-open, the stream's and an upload's: packets are swallowed, nobody resets anything."""
    await database.connect(connector, IMPATIENT)
    service.keepalive_seconds = 0.05
    await synced(database, service)
    service.freeze()
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'written into the void')")
    status = await until(database, lambda status: status.download_error and status.upload_error)
    assert "silent for 0.2 seconds" in str(status.download_error)
    assert "longer than 0.2 seconds" in str(status.upload_error)
    service.thaw()
    service.write("lists", "b", {"name": "theirs"})
    await synced(database, service)
    uploaded_once(service)


async def test_a_service_that_restarts_is_found_again(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    await database.connect(connector, QUICK)
    await synced(database, service)
    for number in range(3):
        await service.stop()
        status = await until(database, lambda status: status.download_error is not None)
        assert isinstance(status.download_error, NetworkError)
        await database.execute("INSERT INTO lists(id, name) VALUES (?, 'offline')", [f"a{number}"])
        service.write("lists", f"b{number}", {"name": "meanwhile"})
        await service.start()
        await synced(database, service)
    assert len(service.rows) == 6
    uploaded_once(service)


async def test_expired_tokens_are_exchanged_without_an_error(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    await database.connect(connector, SyncOptions(crud_throttle=0, retry_delay=0.001))
    await synced(database, service)
    for number in range(3):
        service.expire_tokens()
        await database.execute("INSERT INTO lists(id, name) VALUES (?, 'mine')", [f"a{number}"])
        await synced(database, service)
    assert connector.fetched > 1
    uploaded_once(service)


async def test_only_the_bucket_with_the_wrong_checksum_comes_again(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    for name in "ab":
        service.write("lists", name, {"name": name})
        service.write("todos", name, {"list_id": "a", "description": name})
    await database.sync_stream("todos", {"list": "a"}).subscribe()
    service.next(STREAM, at_line(3, "drop"), flip_checksum())  # the first brings all the data, but not its end
    await database.connect(connector, QUICK)
    await synced(database, service)
    requested = [
        {bucket["name"]: int(bucket["after"]) for bucket in body["buckets"]} for body in service.bodies[STREAM]
    ]
    todos = '1#todos|0["a"]'
    assert requested == [{}, {LISTS: 3, todos: 4}, {todos: 4}]


async def test_wrong_checksums_again_and_again_back_off(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    service.write("lists", "a", {"name": "theirs"})
    service.next(STREAM, *(flip_checksum() for _ in range(50)))
    await database.connect(connector, SyncOptions(retry_delay=1000, max_retry_delay=1000))
    status = await until(database, lambda status: status.download_error is not None)
    assert isinstance(status.download_error, ChecksumError)
    assert status.download_error.buckets == (LISTS,)
    assert not status.connected
    assert service.requests[STREAM] == 1


async def test_a_checkpoint_that_the_next_overtakes_is_not_missed(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    service.write("lists", "a", {"name": "first"})

    def overtaken(_: Any) -> str:
        service.write("lists", "b", {"name": "second"})
        return "\n"

    service.next(STREAM, change_line("checkpoint_complete", overtaken))
    await database.connect(connector, QUICK)
    await synced(database, service)
    assert len(await rows(database, "SELECT * FROM lists")) == 2
    assert service.requests[STREAM] == 1


async def test_a_line_of_20_megabytes_is_taken(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    service.write("lists", "a", {"name": "x" * 20_000_000})
    await database.connect(connector, QUICK)
    await until_rows(database, "SELECT length(name) FROM lists", [[20_000_000]], 30)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_each_line_of_a_compressed_stream_comes_at_once(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector, encoding: Any
) -> None:
    """The stream stays open and silent after each line: what the client held back would never come."""
    service.encoding = encoding
    await database.connect(connector, QUICK)
    for number in range(3):
        service.write("lists", f"a{number}", {"name": "theirs"})
        await synced(database, service)
    assert service.requests[STREAM] == 1
    assert service.headers[STREAM][0]["accept-encoding"] == "zstd, gzip"


async def test_a_service_without_checkpoint_requests_is_asked_the_legacy_way_once_known(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    service.knows_checkpoint_requests = False
    await database.connect(connector, QUICK)
    for number in range(2):
        await database.execute("INSERT INTO lists(id, name) VALUES (?, 'mine')", [f"a{number}"])
        await synced(database, service)
    assert service.requests[CHECKPOINT] == 1
    assert service.requests[LEGACY_CHECKPOINT] >= 2


async def test_a_custom_checkpoint_opens_the_gate_without_a_request(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector
) -> None:
    service.custom_checkpoints = True
    await database.connect(connector, QUICK)
    await synced(database, service)
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'mine')")
    await synced(database, service)
    service.write("lists", "b", {"name": "theirs"})
    await synced(database, service)
    assert service.requests[CHECKPOINT] == 0


async def test_being_offline_is_logged_once_and_as_no_more_than_information(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sync")
    await database.connect(connector, QUICK)
    await synced(database, service)
    service.next(STREAM, *[drop()] * 8)
    service.next(UPLOAD, *[drop()] * 8)
    await service.stop()
    await service.start()
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'mine')")
    await synced(database, service)
    await until(database, lambda status: status.upload_error is None and not status.uploading)
    said = [record.getMessage() for record in caplog.records]
    assert all(record.levelno == logging.INFO for record in caplog.records)
    assert service.faults_left == 0
    assert [line for line in said if line.startswith("not connected")] == [
        "not connected, retrying: The connection to the sync service broke."
    ]
    assert sum(line.startswith("upload failed") for line in said) == 1
    assert (said.count("connected"), said.count("uploads work again")) == (2, 1)
