"""`explain_sync`: each cause has its sentence, and the real cause is found."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sync import (
    AuthError,
    ChecksumError,
    DatabaseClosedError,
    NetworkError,
    PowerSyncDatabase,
    ProgressWithOperations,
    ServiceError,
    SyncExplanation,
    SyncGate,
    SyncOptions,
    SyncProgress,
    SyncStatus,
    TokenExpiredError,
    UploadStalledError,
)
from sync.api.explain import describe_service_error
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, ServiceConnector, rows, within
from tests.sync.stepwise import COMPLETE, bucket, checkpoint, data, stepwise, stream

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
OPEN = SyncGate(0, None, False, None, None, True)
PATIENT = SyncOptions(crud_throttle=0, retry_delay=1000, max_retry_delay=1000)
SYNCED = SyncStatus(wanted=True, connected=True, last_synced_at=NOW - timedelta(seconds=5))


def before(**span: float) -> datetime:
    return NOW - timedelta(**span)


def after(**span: float) -> datetime:
    return NOW + timedelta(**span)


def offline(error: Exception, retry_at: datetime | None = None) -> SyncStatus:
    return SyncStatus(
        wanted=True, download_error=error, download_retry_at=retry_at, last_synced_at=NOW - timedelta(days=2)
    )


def explanation(status: SyncStatus = SYNCED, gate: SyncGate = OPEN, **facts: Any) -> SyncExplanation:
    return SyncExplanation(at=NOW, status=status, gate=gate, **facts)


WAITING = SyncGate(3, None, True, 4, None, False)

CAUSES: dict[str, tuple[SyncExplanation, str]] = {
    "synced": (explanation(), "Everything is synced; the last checkpoint arrived 5 seconds ago."),
    "not connected": (
        explanation(SyncStatus()),
        (
            "Not connected: connect() was not called, or disconnect() was called since. "
            "This device has never had a complete checkpoint."
        ),
    ),
    "another process": (
        explanation(SyncStatus(wanted=True, syncing_elsewhere=True), lock_holder=42),
        (
            "Process 42 holds the sync lock of this file and syncs it; this process takes over when it ends. "
            "This device has never had a complete checkpoint."
        ),
    ),
    "an unknown process": (
        explanation(SyncStatus(wanted=True, syncing_elsewhere=True)),
        (
            "Another process holds the sync lock of this file and syncs it; this process takes over when it ends. "
            "This device has never had a complete checkpoint."
        ),
    ),
    "connecting": (
        explanation(SyncStatus(wanted=True, connecting=True)),
        "Connecting. This device has never had a complete checkpoint.",
    ),
    "before connecting": (
        explanation(SyncStatus(wanted=True)),
        "About to connect. This device has never had a complete checkpoint.",
    ),
    "no network": (
        explanation(offline(NetworkError("The sync service cannot be reached."), after(seconds=12.5))),
        (
            "Not connected. The sync service cannot be reached. "
            "Retrying the connection in 12 seconds, or as soon as something is written. "
            "The last complete checkpoint arrived 2 days ago."
        ),
    ),
    "an error without words": (
        explanation(offline(RuntimeError())),
        ("Not connected. RuntimeError. Retrying the connection now. The last complete checkpoint arrived 2 days ago."),
    ),
    "expired token": (
        explanation(offline(TokenExpiredError("…")), token_expires_at=before(minutes=3)),
        (
            "Not connected. The token has expired; fetching a new one. Retrying the connection now. "
            "The last complete checkpoint arrived 2 days ago. "
            "The token expired 3 minutes ago; a new one is fetched before the next attempt."
        ),
    ),
    "downloading": (
        explanation(
            SyncStatus(
                wanted=True,
                connected=True,
                downloading=True,
                download_progress=SyncProgress(1200, 5000, ((3, ProgressWithOperations(1200, 5000)),)),
            )
        ),
        (
            "A download is in progress: 1,200 of 5,000 operations received (24%). "
            "This device has never had a complete checkpoint."
        ),
    ),
    "silence": (
        explanation(SyncStatus(wanted=True, connected=True), seconds_since_last_line=41.9),
        (
            "The stream is open, waiting for its first complete checkpoint. "
            "The service has been silent for 41 seconds, longer than a healthy stream is. "
            "If it stays silent, the engine will reconnect. "
            "This device has never had a complete checkpoint."
        ),
    ),
    "failing uploads": (
        explanation(
            SyncStatus(
                wanted=True,
                connected=True,
                last_synced_at=before(hours=1),
                upload_error=OSError("no backend"),
                upload_retry_at=after(seconds=90),
            ),
            WAITING,
            queue_oldest_at=before(minutes=61),
        ),
        (
            "The last complete checkpoint arrived 1 hour ago. "
            "3 local changes are waiting for the backend, the oldest for 1 hour. The last upload failed. no backend. "
            "Retrying the upload in 1 minute, or as soon as something is written. "
            "Downloaded data is held back until then, so that the local changes do not flicker."
        ),
    ),
    "an upload under way": (
        explanation(
            SyncStatus(wanted=True, connected=True, last_synced_at=before(hours=1), uploading=True),
            SyncGate(1, None, True, 4, None, False),
        ),
        (
            "The last complete checkpoint arrived 1 hour ago. 1 local change is waiting for the backend. "
            "An upload is in progress. "
            "Downloaded data is held back until then, so that the local changes do not flicker."
        ),
    ),
    "gate without a request": (
        explanation(gate=SyncGate(0, None, True, 4, None, False)),
        (
            "The last complete checkpoint arrived 5 seconds ago. All local changes are uploaded, and downloaded data "
            "is held back until the service confirms them; the confirming checkpoint has not been requested yet."
        ),
    ),
    "gate with a request": (
        explanation(gate=SyncGate(0, 9, False, 8, None, False)),
        (
            "The last complete checkpoint arrived 5 seconds ago. All local changes are uploaded, and downloaded data "
            "is held back until checkpoint request number 9 comes back; "
            "the newest seen is number 8, the newest applied none."
        ),
    ),
    "failing checkpoint requests": (
        explanation(
            SyncStatus(wanted=True, connected=True, upload_error=NetworkError("It broke.")),
            SyncGate(0, None, True, None, None, False),
        ),
        (
            "The stream is open, waiting for its first complete checkpoint. "
            "This device has never had a complete checkpoint. The last checkpoint request failed. It broke. "
            "Retrying the checkpoint request now. All local changes are uploaded, and downloaded data is held back "
            "until the service confirms them; the confirming checkpoint has not been requested yet."
        ),
    ),
    "token": (
        explanation(SyncStatus(wanted=True, connecting=True), token_expires_at=after(minutes=4)),
        ("Connecting. This device has never had a complete checkpoint. The token is valid for another 4 minutes."),
    ),
    "streams": (
        explanation(streams_not_offered=("todo", "x"), stream_errors=(("lists", "no\nuser."),)),
        (
            "Everything is synced; the last checkpoint arrived 5 seconds ago. "
            "The service does not offer these streams: todo, x. "
            "Their names may be wrong, or the service may use sync rules without streams, which send all data anyway. "
            "The service could not resolve the stream lists: no user."
        ),
    ),
    "buckets": (
        explanation(bucket_count=1001),
        (
            "Everything is synced; the last checkpoint arrived 5 seconds ago. "
            "This device has 1,001 buckets; the service allows 1,000."
        ),
    ),
    "few buckets": (explanation(bucket_count=899), "Everything is synced; the last checkpoint arrived 5 seconds ago."),
    "checksum": (
        explanation(checksum_failure=ChecksumError(("b[]",)), checksum_failed_at=before(minutes=1)),
        (
            "Everything is synced; the last checkpoint arrived 5 seconds ago. "
            "1 minute ago, downloaded data did not match its checksum and was downloaded again (b[])."
        ),
    ),
    "an earlier error": (
        explanation(service_error=ServiceError(429, None, "Slow down."), service_failed_at=before(seconds=0.5)),
        (
            "Everything is synced; the last checkpoint arrived 5 seconds ago. The service's last error was just now. "
            "The service has too many connections or requests and asked to wait (the service said: Slow down. "
            "(HTTP 429))."
        ),
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_has_its_sentences(cause: str) -> None:
    value, paragraph = CAUSES[cause]
    assert str(value) == paragraph
    assert value.is_synced == paragraph.startswith("Everything is synced")
    assert " ".join(value.sentences) == paragraph


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AuthError(401, "PSYNC_S2103", "JWT has expired"), "The service rejected the token: JWT has expired"),
        (ServiceError(500, "PSYNC_S2302", "No sync config"), "has not replicated its source database yet"),
        (ServiceError(500, "PSYNC_S2305", "Too many"), "more than 1,000 buckets"),
        (ServiceError(404, None, "Not found"), "There is no sync service at the endpoint"),
        (ServiceError(413, None, "Too large"), "too large for the service"),
        (ServiceError(429, None, "Slow down"), "asked to wait"),
        (ServiceError(503, None, "Away"), "a proxy in front of it, has a problem"),
        (ServiceError(418, "X", "A teapot"), "A teapot (HTTP 418, X)"),
    ],
)
def test_errors_of_the_service_in_plain_words(error: ServiceError, words: str) -> None:
    assert words in describe_service_error(error)
    assert str(error).removesuffix(".") in describe_service_error(error)


async def refuse(_: PowerSyncDatabase) -> None:
    raise OSError("no backend")


async def stall(_: PowerSyncDatabase) -> None:
    return


async def complete_all(database: PowerSyncDatabase) -> None:
    async for transaction in database.crud_transactions():
        await transaction.complete()


def refusing(status: int, code: str | None, text: str) -> Callable[[Exchange], Any]:
    async def service(exchange: Exchange) -> None:
        await exchange.answer(status, {"error": {"code": code, "description": text}})

    return service


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "PSYNC_S2101", "The service rejected the token: nope"),
        (500, "PSYNC_S2302", "has not replicated its source database yet"),
        (500, "PSYNC_S2305", "more than 1,000 buckets"),
    ],
)
async def test_a_service_that_refuses(status: int, code: str, words: str, database: PowerSyncDatabase) -> None:
    async with scripted_service(refusing(status, code, "nope")) as server:
        await database.connect(ServiceConnector(server.url), PATIENT)
        await database.wait_for_status(lambda status: status.download_retry_at is not None, 10)
        explanation_now = await database.explain_sync()
        assert not explanation_now.is_synced
        assert explanation_now.sentences[0].startswith("Not connected.")
        assert words in str(explanation_now)
        assert "Retrying the connection" in str(explanation_now)
        assert isinstance(explanation_now.service_error, ServiceError)
        await database.disconnect()
    # The reason stays known after disconnect.
    assert words in str(await database.explain_sync())


async def test_not_connected_and_no_service(database: PowerSyncDatabase) -> None:
    assert str(await database.explain_sync()).startswith("Not connected: connect() was not called")
    async with scripted_service(refusing(500, None, "")) as server:
        port = server.port
    await database.connect(ServiceConnector(f"http://127.0.0.1:{port}"), PATIENT)
    await database.wait_for_status(lambda status: status.download_retry_at is not None, 10)
    assert "Not connected. The sync service cannot be reached." in str(await database.explain_sync())


async def test_a_synced_database_and_its_token(database: PowerSyncDatabase) -> None:
    async def tokens(_: int) -> str:
        payload = base64.urlsafe_b64encode(json.dumps({"exp": int(time.time()) + 300}).encode()).rstrip(b"=").decode()
        return f"e30.{payload}.secret"

    async with stepwise(checkpoint(), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url, tokens=tokens), QUICK)
        await database.wait_for_first_sync(10)
        explanation_now = await database.explain_sync()
        assert explanation_now.is_synced
        assert str(explanation_now).startswith("Everything is synced; the last checkpoint arrived ")
        assert explanation_now.token_expires_at is not None
        assert 200 < (explanation_now.token_expires_at - datetime.now(UTC)).total_seconds() <= 300
        assert explanation_now.seconds_since_last_line is not None
        assert "secret" not in repr(explanation_now)


@pytest.mark.parametrize(("upload", "words"), [(refuse, "no backend"), (stall, "without completing")])
async def test_changes_that_are_not_taken(upload: Any, words: str, database: PowerSyncDatabase) -> None:
    async with stepwise(checkpoint(), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url, upload), PATIENT)
        await database.wait_for_first_sync(10)
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        await database.execute("INSERT INTO lists(id, name) VALUES ('b', 'x')")
        await database.wait_for_status(lambda status: status.upload_retry_at is not None, 10)
        explanation_now = await database.explain_sync()
        assert not explanation_now.is_synced
        assert explanation_now.gate.queue_length == 2
        assert explanation_now.queue_oldest_at is not None
        for part in ("2 local changes are waiting for the backend, the oldest for", words, "Retrying the upload"):
            assert part in str(explanation_now)
        assert isinstance(explanation_now.status.upload_error, OSError | UploadStalledError)


async def test_a_gate_that_waits_for_the_service(database: PowerSyncDatabase) -> None:
    async with stepwise(checkpoint(), COMPLETE) as service:
        service.confirm = False
        await database.connect(ServiceConnector(service.url, complete_all), QUICK)
        await database.wait_for_first_sync(10)
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        await within(10, service.asked.wait())
        async with asyncio.timeout(10):
            while (explanation_now := await database.explain_sync()).gate.target is None:
                await asyncio.sleep(0.01)
        assert "held back until checkpoint request number 1 comes back" in str(explanation_now)
        assert not explanation_now.is_synced
        await service.send_confirmation(1)
        async with asyncio.timeout(10):
            while not (await database.explain_sync()).is_synced:
                await asyncio.sleep(0.01)


async def test_a_download_under_way_and_what_is_wrong_with_streams(database: PowerSyncDatabase) -> None:
    await database.sync_stream("todo").subscribe()
    await database.sync_stream("lists", {"a": 1}).subscribe()
    lists = stream("lists", errors=[{"subscription": 1, "message": "no such list"}])
    async with stepwise(checkpoint(bucket("b", [1, 2]), streams=[lists]), data("b", [1])) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_status(
            lambda s: s.download_progress is not None and s.download_progress.downloaded_operations == 1, 10
        )
        explanation_now = await database.explain_sync()
        assert explanation_now.streams_not_offered == ("todo",)
        assert explanation_now.stream_errors == (("lists", "no such list"),)
        for part in ("1 of 2 operations", "does not offer these streams: todo", "resolve the stream lists: no such"):
            assert part in str(explanation_now)


async def test_a_checksum_failure_stays_known(database: PowerSyncDatabase) -> None:
    wrong = bucket("b", [1]) | {"checksum": 77}
    async with stepwise(checkpoint(wrong), data("b", [1]), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url), PATIENT)
        await database.wait_for_status(lambda status: status.download_error is not None, 10)
        explanation_now = await database.explain_sync()
        assert explanation_now.checksum_failure is not None
        assert "did not match its checksum and was downloaded again (b)" in str(explanation_now)


async def test_the_number_of_buckets(database: PowerSyncDatabase) -> None:
    names = [f"b{number}" for number in range(950)]
    lines = [data(name, [number + 1]) for number, name in enumerate(names)]
    buckets = [bucket(name, [number + 1]) for number, name in enumerate(names)]
    async with stepwise(checkpoint(*buckets), *lines, COMPLETE) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_first_sync(20)
        explanation_now = await database.explain_sync()
        assert explanation_now.bucket_count == 950
        assert "950 buckets; the service allows 1,000" in str(explanation_now)


async def test_a_closed_database_cannot_be_asked(database: PowerSyncDatabase) -> None:
    await database.close()
    with pytest.raises(DatabaseClosedError):
        await database.explain_sync()


async def test_explaining_changes_nothing(database: PowerSyncDatabase) -> None:
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    before_it = await rows(database, "SELECT * FROM ps_kv ORDER BY key")
    await database.explain_sync()
    assert await rows(database, "SELECT * FROM ps_kv ORDER BY key") == before_it
    assert len(await rows(database, "SELECT * FROM ps_crud")) == 1
