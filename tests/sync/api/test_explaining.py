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
from sync.api.explain import in_plain_words
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
    "synced": (explanation(), "All is synced; the last checkpoint came 5 seconds ago."),
    "not wished for": (
        explanation(SyncStatus()),
        (
            "No connection is wished for: connect() was not called, or disconnect() was called since. "
            "This device has never had a complete checkpoint."
        ),
    ),
    "another process": (
        explanation(SyncStatus(wanted=True, syncing_elsewhere=True), lock_holder=42),
        (
            "Process 42 holds the sync lock of this file and syncs it; this one takes over when it ends. "
            "This device has never had a complete checkpoint."
        ),
    ),
    "an unknown process": (
        explanation(SyncStatus(wanted=True, syncing_elsewhere=True)),
        (
            "Another process holds the sync lock of this file and syncs it; this one takes over when it ends. "
            "This device has never had a complete checkpoint."
        ),
    ),
    "connecting": (
        explanation(SyncStatus(wanted=True, connecting=True)),
        "The connection is being opened. This device has never had a complete checkpoint.",
    ),
    "before connecting": (
        explanation(SyncStatus(wanted=True)),
        "The connection is opened soon. This device has never had a complete checkpoint.",
    ),
    "no network": (
        explanation(offline(NetworkError("The sync service cannot be reached."), after(seconds=12.5))),
        (
            "There is no connection. The sync service cannot be reached. "
            "The next connection is tried in 12 seconds, or at once when something is written. "
            "The last complete checkpoint came 2 days ago."
        ),
    ),
    "an error without words": (
        explanation(offline(RuntimeError())),
        (
            "There is no connection. RuntimeError. The next connection is tried now. "
            "The last complete checkpoint came 2 days ago."
        ),
    ),
    "expired token": (
        explanation(offline(TokenExpiredError("…")), token_expires_at=before(minutes=3)),
        (
            "There is no connection. The token had expired; a new one is fetched. The next connection is tried now. "
            "The last complete checkpoint came 2 days ago. "
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
            "A download is under way: 1,200 of 5,000 operations are here (24%). "
            "This device has never had a complete checkpoint."
        ),
    ),
    "silence": (
        explanation(SyncStatus(wanted=True, connected=True), seconds_since_last_line=41.9),
        (
            "The stream is open, and its first complete checkpoint is awaited. "
            "The service has been silent for 41 seconds, which is longer than a healthy stream is. "
            "If it stays so, the connection is given up and opened anew. "
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
            "The last complete checkpoint came 1 hour ago. "
            "3 local changes wait for the backend, the oldest for 1 hour. The last upload failed. no backend. "
            "The next attempt is tried in 1 minute, or at once when something is written. "
            "Downloaded data is held back meanwhile, so that the local changes do not flicker."
        ),
    ),
    "an upload under way": (
        explanation(
            SyncStatus(wanted=True, connected=True, last_synced_at=before(hours=1), uploading=True),
            SyncGate(1, None, True, 4, None, False),
        ),
        (
            "The last complete checkpoint came 1 hour ago. 1 local change waits for the backend. "
            "An upload is under way. Downloaded data is held back meanwhile, so that the local changes do not flicker."
        ),
    ),
    "gate without a request": (
        explanation(gate=SyncGate(0, None, True, 4, None, False)),
        (
            "The last complete checkpoint came 5 seconds ago. All local changes are uploaded, and downloaded data "
            "is held back until the service confirms it; the checkpoint that does so was not requested yet."
        ),
    ),
    "gate with a request": (
        explanation(gate=SyncGate(0, 9, False, 8, None, False)),
        (
            "The last complete checkpoint came 5 seconds ago. All local changes are uploaded, and downloaded data "
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
            "The stream is open, and its first complete checkpoint is awaited. "
            "This device has never had a complete checkpoint. The last checkpoint request failed. It broke. "
            "The next attempt is tried now. All local changes are uploaded, and downloaded data is held back until the "
            "service confirms it; the checkpoint that does so was not requested yet."
        ),
    ),
    "token": (
        explanation(SyncStatus(wanted=True, connecting=True), token_expires_at=after(minutes=4)),
        (
            "The connection is being opened. This device has never had a complete checkpoint. "
            "The token is valid for 4 minutes more."
        ),
    ),
    "streams": (
        explanation(streams_not_offered=("todo", "x"), stream_errors=(("lists", "no\nuser."),)),
        (
            "All is synced; the last checkpoint came 5 seconds ago. The service does not offer these streams: todo, x. "
            "Their names may be wrong, or its rules may be for whole databases, which send all data anyway. "
            "The service could not resolve the stream lists: no user."
        ),
    ),
    "buckets": (
        explanation(bucket_count=1001),
        (
            "All is synced; the last checkpoint came 5 seconds ago. "
            "This device holds 1,001 buckets; the service allows 1,000."
        ),
    ),
    "few buckets": (explanation(bucket_count=899), "All is synced; the last checkpoint came 5 seconds ago."),
    "checksum": (
        explanation(checksum_failure=ChecksumError(("b[]",)), checksum_failed_at=before(minutes=1)),
        (
            "All is synced; the last checkpoint came 5 seconds ago. "
            "1 minute ago, downloaded data did not match its checksum and was downloaded again (b[])."
        ),
    ),
    "an earlier error": (
        explanation(service_error=ServiceError(429, None, "Slow down."), service_failed_at=before(seconds=0.5)),
        (
            "All is synced; the last checkpoint came 5 seconds ago. The last error of the service was just now. "
            "The service has too many connections or requests now and asked for time (the service said: Slow down. "
            "(HTTP 429))."
        ),
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_has_its_sentences(cause: str) -> None:
    value, paragraph = CAUSES[cause]
    assert str(value) == paragraph
    assert value.is_synced == paragraph.startswith("All is synced")
    assert " ".join(value.sentences) == paragraph


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AuthError(401, "PSYNC_S2103", "JWT has expired"), "The service refused the token: JWT has expired"),
        (ServiceError(500, "PSYNC_S2302", "No sync config"), "has not copied its source database yet"),
        (ServiceError(500, "PSYNC_S2305", "Too many"), "more than 1,000 buckets"),
        (ServiceError(404, None, "Not found"), "There is no sync service at the endpoint"),
        (ServiceError(413, None, "Too large"), "too large for the service"),
        (ServiceError(429, None, "Slow down"), "asked for time"),
        (ServiceError(503, None, "Away"), "what stands before it, is in trouble"),
        (ServiceError(418, "X", "A teapot"), "A teapot (HTTP 418, X)"),
    ],
)
def test_errors_of_the_service_in_plain_words(error: ServiceError, words: str) -> None:
    assert words in in_plain_words(error)
    assert str(error).removesuffix(".") in in_plain_words(error)


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
        (401, "PSYNC_S2101", "The service refused the token: nope"),
        (500, "PSYNC_S2302", "has not copied its source database yet"),
        (500, "PSYNC_S2305", "more than 1,000 buckets"),
    ],
)
async def test_a_service_that_refuses(status: int, code: str, words: str, database: PowerSyncDatabase) -> None:
    async with scripted_service(refusing(status, code, "nope")) as server:
        await database.connect(ServiceConnector(server.url), PATIENT)
        await database.wait_for_status(lambda status: status.download_retry_at is not None, 10)
        as_store_error = await database.explain_sync()
        assert not as_store_error.is_synced
        assert as_store_error.sentences[0].startswith("There is no connection.")
        assert words in str(as_store_error)
        assert "The next connection is tried" in str(as_store_error)
        assert isinstance(as_store_error.service_error, ServiceError)
        await database.disconnect()
    # The reason stays known when nothing is wished for any more.
    assert words in str(await database.explain_sync())


async def test_no_wish_and_no_service(database: PowerSyncDatabase) -> None:
    assert str(await database.explain_sync()).startswith("No connection is wished for")
    async with scripted_service(refusing(500, None, "")) as server:
        port = server.port
    await database.connect(ServiceConnector(f"http://127.0.0.1:{port}"), PATIENT)
    await database.wait_for_status(lambda status: status.download_retry_at is not None, 10)
    assert "There is no connection. The sync service cannot be reached." in str(await database.explain_sync())


async def test_a_synced_database_and_its_token(database: PowerSyncDatabase) -> None:
    async def tokens(_: int) -> str:
        payload = base64.urlsafe_b64encode(json.dumps({"exp": int(time.time()) + 300}).encode()).rstrip(b"=").decode()
        return f"e30.{payload}.secret"

    async with stepwise(checkpoint(), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url, tokens=tokens), QUICK)
        await database.wait_for_first_sync(10)
        as_store_error = await database.explain_sync()
        assert as_store_error.is_synced
        assert str(as_store_error).startswith("All is synced; the last checkpoint came ")
        assert as_store_error.token_expires_at is not None
        assert 200 < (as_store_error.token_expires_at - datetime.now(UTC)).total_seconds() <= 300
        assert as_store_error.seconds_since_last_line is not None
        assert "secret" not in repr(as_store_error)


@pytest.mark.parametrize(("upload", "words"), [(refuse, "no backend"), (stall, "without completing")])
async def test_changes_that_are_not_taken(upload: Any, words: str, database: PowerSyncDatabase) -> None:
    async with stepwise(checkpoint(), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url, upload), PATIENT)
        await database.wait_for_first_sync(10)
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        await database.execute("INSERT INTO lists(id, name) VALUES ('b', 'x')")
        await database.wait_for_status(lambda status: status.upload_retry_at is not None, 10)
        as_store_error = await database.explain_sync()
        assert not as_store_error.is_synced
        assert as_store_error.gate.queue_length == 2
        assert as_store_error.queue_oldest_at is not None
        for part in ("2 local changes wait for the backend, the oldest for", words, "The next attempt"):
            assert part in str(as_store_error)
        assert isinstance(as_store_error.status.upload_error, OSError | UploadStalledError)


async def test_a_gate_that_waits_for_the_service(database: PowerSyncDatabase) -> None:
    async with stepwise(checkpoint(), COMPLETE) as service:
        service.confirm = False
        await database.connect(ServiceConnector(service.url, complete_all), QUICK)
        await database.wait_for_first_sync(10)
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        await within(10, service.asked.wait())
        async with asyncio.timeout(10):
            while (as_store_error := await database.explain_sync()).gate.target is None:
                await asyncio.sleep(0.01)
        assert "held back until checkpoint request number 1 comes back" in str(as_store_error)
        assert not as_store_error.is_synced
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
        as_store_error = await database.explain_sync()
        assert as_store_error.streams_not_offered == ("todo",)
        assert as_store_error.stream_errors == (("lists", "no such list"),)
        for part in ("1 of 2 operations", "does not offer these streams: todo", "resolve the stream lists: no such"):
            assert part in str(as_store_error)


async def test_a_checksum_failure_stays_known(database: PowerSyncDatabase) -> None:
    wrong = bucket("b", [1]) | {"checksum": 77}
    async with stepwise(checkpoint(wrong), data("b", [1]), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url), PATIENT)
        await database.wait_for_status(lambda status: status.download_error is not None, 10)
        as_store_error = await database.explain_sync()
        assert as_store_error.checksum_failure is not None
        assert "did not match its checksum and was downloaded again (b)" in str(as_store_error)


async def test_the_number_of_buckets(database: PowerSyncDatabase) -> None:
    names = [f"b{number}" for number in range(950)]
    lines = [data(name, [number + 1]) for number, name in enumerate(names)]
    buckets = [bucket(name, [number + 1]) for number, name in enumerate(names)]
    async with stepwise(checkpoint(*buckets), *lines, COMPLETE) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_first_sync(20)
        as_store_error = await database.explain_sync()
        assert as_store_error.bucket_count == 950
        assert "950 buckets; the service allows 1,000" in str(as_store_error)


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
