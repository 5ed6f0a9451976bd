"""The upload loop against a scripted service: attempts, checkpoint requests, and the gate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sync import CrudEntry, NetworkError, PowerSyncDatabase, SyncOptions, UploadRetryError, UploadStalledError
from tests.kit.service import Exchange, ScriptedService, scripted_service
from tests.sync.rig import QUICK, ServiceConnector, rows, until_rows, within

LISTS = "1#lists|0[]"


def checkpoint(last_op: int, checksum: int, write_checkpoint: int | None = None) -> dict[str, Any]:
    line: dict[str, Any] = {
        "last_op_id": str(last_op),
        "buckets": [{"bucket": LISTS, "checksum": checksum, "count": last_op, "priority": 3}],
        "streams": [],
    }
    if write_checkpoint is not None:
        line["write_checkpoint"] = str(write_checkpoint)
    return {"checkpoint": line}


def put(op_id: int, row: str, name: str, checksum: int) -> dict[str, Any]:
    operation = {
        "op_id": str(op_id),
        "op": "PUT",
        "object_type": "lists",
        "object_id": row,
        "subkey": "s",
        "checksum": checksum,
        "data": json.dumps({"id": row, "name": name}),
    }
    return {"data": {"bucket": LISTS, "after": str(op_id - 1), "has_more": False, "data": [operation]}}


class Service:
    """Holds the stream open, hands it to the test, and counts checkpoint requests."""

    def __init__(self, *, legacy: bool = False, stored: int = 0) -> None:
        self.streams: asyncio.Queue[Exchange] = asyncio.Queue()
        self.asked: list[int] = []
        self.legacy = legacy
        self.stored = stored
        self.before_answer: Callable[[], Awaitable[None]] | None = None

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.path == "/sync/stream":
            await exchange.begin_stream()
            await self.streams.put(exchange)
            await exchange.closed_by_client()
            return
        if self.before_answer is not None:
            await self.before_answer()
        if exchange.path == "/write-checkpoint2.json":
            self.stored += 1
            await exchange.answer(200, {"data": {"write_checkpoint": str(self.stored)}})
        elif self.legacy:
            await exchange.answer(404, {})
        else:
            asked = int(exchange.json["checkpoint_request_id"])
            self.asked.append(asked)
            self.stored = max(asked, self.stored)
            await exchange.answer(200, {"data": {"checkpoint_request_id": str(self.stored)}})


class Backend:
    """Takes transactions, and fails as told."""

    def __init__(self) -> None:
        self.taken: list[CrudEntry] = []
        self.failures: list[Exception] = []
        self.attempts = 0

    async def __call__(self, database: PowerSyncDatabase) -> None:
        self.attempts += 1
        async for transaction in database.crud_transactions():
            if self.failures:
                raise self.failures.pop(0)
            self.taken.extend(transaction.crud)
            await transaction.complete()


async def kv(database: PowerSyncDatabase, key: str) -> int | None:
    found = await database.get_optional("SELECT value FROM ps_kv WHERE key = ?", [key])
    return None if found is None else found[0]


async def until_target(database: PowerSyncDatabase, value: int) -> None:
    sql = "SELECT value FROM ps_kv WHERE key = 'target_checkpoint_request_id'"
    await until_rows(database, sql, [[value]])


async def connected(
    database: PowerSyncDatabase, server: ScriptedService, service: Service, backend: Backend
) -> Exchange:
    await database.connect(ServiceConnector(server.url, backend), QUICK)
    return await within(10, service.streams.get())


async def test_offline_writes_upload_in_order_and_the_gate_opens(database: PowerSyncDatabase) -> None:
    """The user's own edit never flickers back to what the service still has."""
    service, backend = Service(), Backend()
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'mine')")
    await database.execute("UPDATE lists SET name = 'mine, edited'")
    names: list[Any] = []

    async def follow() -> None:
        async for result in database.watch("SELECT name FROM lists", throttle=0):
            names.append([row[0] for row in result])

    async with scripted_service(service) as server, asyncio.TaskGroup() as group:
        follower = group.create_task(follow())
        stream = await connected(database, server, service, backend)
        await until_target(database, 1)
        assert [(entry.op, entry.data) for entry in backend.taken] == [
            ("PUT", {"name": "mine"}),
            ("PATCH", {"name": "mine, edited"}),
        ]
        assert service.asked == [1]
        # An older checkpoint, without our write: it must wait.
        for line in (checkpoint(1, 5), put(1, "a", "theirs, older", 5), {"checkpoint_complete": {"last_op_id": "1"}}):
            await stream.send_line(line)
        await stream.send_line(checkpoint(2, 12, write_checkpoint=1))
        await stream.send_line(put(2, "b", "another", 7))
        await stream.send_line(put(3, "a", "mine, edited, as stored", 0))
        await stream.send_line({"checkpoint_complete": {"last_op_id": "3"}})
        await database.wait_for_first_sync(10)
        await until_rows(database, "SELECT name FROM lists ORDER BY id", [["mine, edited, as stored"], ["another"]])
        assert await kv(database, "last_applied_checkpoint_request_id") == 1
        follower.cancel()
    assert all("theirs, older" not in result for result in names)


async def test_a_checkpoint_held_back_is_published_when_the_upload_is_done(database: PowerSyncDatabase) -> None:
    service, backend = Service(), Backend()
    go_on = asyncio.Event()

    async def wait() -> None:
        await go_on.wait()

    service.before_answer = wait
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'mine')")
    async with scripted_service(service) as server:
        stream = await connected(database, server, service, backend)
        await stream.send_line(checkpoint(1, 5, write_checkpoint=1))
        await stream.send_line(put(1, "a", "stored", 5))
        await stream.send_line({"checkpoint_complete": {"last_op_id": "1"}})
        await until_rows(database, "SELECT count(*) FROM ps_oplog", [[1]])
        assert await rows(database, "SELECT name FROM lists") == [["mine"]]
        go_on.set()  # the service answers the request for checkpoint 1 only now; it was in the stream before
        await until_rows(database, "SELECT name FROM lists", [["stored"]])


async def test_a_gate_that_waits_for_a_checkpoint_unknown_to_the_service_opens(database: PowerSyncDatabase) -> None:
    """The service has lost its memory, say by a restore: what was asked for never comes, so it is asked for again."""
    service, backend = Service(), Backend()
    await database.execute("INSERT INTO ps_kv(key, value) VALUES ('target_checkpoint_request_id', 40)")
    async with scripted_service(service) as server:
        stream = await connected(database, server, service, backend)
        await stream.send_line(checkpoint(1, 5, write_checkpoint=3))
        await stream.send_line({"partial_checkpoint_complete": {"last_op_id": "1", "priority": 1}})
        await stream.send_line(put(1, "a", "theirs", 5))
        await stream.send_line({"checkpoint_complete": {"last_op_id": "1"}})
        await until_target(database, 1)
        await until_rows(database, "SELECT name FROM lists", [["theirs"]])
    assert backend.attempts == 0


async def test_a_checkpoint_is_not_taken_for_lost_before_all_priorities_are_complete(
    database: PowerSyncDatabase,
) -> None:
    service, backend = Service(), Backend()
    await database.execute("INSERT INTO ps_kv(key, value) VALUES ('target_checkpoint_request_id', 3)")
    async with scripted_service(service) as server:
        stream = await connected(database, server, service, backend)
        await stream.send_line(checkpoint(1, 5, write_checkpoint=3))
        await stream.send_line({"partial_checkpoint_complete": {"last_op_id": "1", "priority": 1}})
        await stream.send_line(put(1, "a", "theirs", 5))
        await stream.send_line({"checkpoint_complete": {"last_op_id": "1"}})
        await until_rows(database, "SELECT name FROM lists", [["theirs"]])
    assert service.asked == []
    assert await kv(database, "target_checkpoint_request_id") == 3


async def test_a_lost_checkpoint_is_asked_for_again_only_once(
    database: PowerSyncDatabase,
) -> None:
    """A restored legacy service gives the number once more that the gate waited for."""
    service, backend = Service(legacy=True, stored=6), Backend()
    await database.execute("INSERT INTO ps_kv(key, value) VALUES ('target_checkpoint_request_id', 7)")
    async with scripted_service(service) as server:
        stream = await connected(database, server, service, backend)
        await stream.send_line(checkpoint(1, 5, write_checkpoint=6))
        await stream.send_line(put(1, "a", "theirs", 5))
        await stream.send_line({"checkpoint_complete": {"last_op_id": "1"}})
        sql = "SELECT value FROM ps_kv WHERE key = 'last_requested_checkpoint_request_id'"
        await until_rows(database, sql, [[7]])
        await stream.send_line(checkpoint(2, 12, write_checkpoint=6))
        await stream.send_line(put(2, "b", "also theirs", 7))
        await stream.send_line({"checkpoint_complete": {"last_op_id": "2"}})
        await until_rows(database, "SELECT count(*) FROM ps_oplog", [[2]])
        assert await rows(database, "SELECT name FROM lists") == []
        await stream.send_line(checkpoint(2, 12, write_checkpoint=7))
        await stream.send_line({"checkpoint_complete": {"last_op_id": "2"}})
        await until_rows(database, "SELECT name FROM lists ORDER BY id", [["theirs"], ["also theirs"]])
    assert service.stored == 7


async def test_a_write_during_the_checkpoint_request_keeps_the_gate_closed(database: PowerSyncDatabase) -> None:
    service, backend = Service(), Backend()

    async def write() -> None:
        service.before_answer = None
        await database.execute("INSERT INTO lists(id, name) VALUES ('b', 'late')")

    service.before_answer = write
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'early')")
    async with scripted_service(service) as server:
        await connected(database, server, service, backend)
        await until_target(database, 2)
    assert service.asked == [1, 2]
    assert [entry.id for entry in backend.taken] == ["a", "b"]


async def test_an_id_that_the_service_has_used_is_not_used_again(database: PowerSyncDatabase) -> None:
    """After a cleared file the service's counter is ahead: its old ids may have been reached long ago."""
    service, backend = Service(stored=57), Backend()
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    async with scripted_service(service) as server:
        await connected(database, server, service, backend)
        await until_target(database, 58)
    assert service.asked == [1, 58]
    assert await kv(database, "last_requested_checkpoint_request_id") == 58


async def test_services_before_1_24_are_asked_the_legacy_way(database: PowerSyncDatabase) -> None:
    service, backend = Service(legacy=True, stored=6), Backend()
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    async with scripted_service(service) as server:
        await connected(database, server, service, backend)
        await until_target(database, 7)
        client_id = await database.get("SELECT value FROM ps_kv WHERE key = 'client_id'")
        legacy = [request for request in server.requests if request.path == "/write-checkpoint2.json"]
        assert [request.target for request in legacy] == [f"/write-checkpoint2.json?client_id={client_id[0]}"]
        assert all(request.headers["authorization"] == "Token token-1" for request in server.requests)


@pytest.mark.parametrize(("drawn", "asked"), [(0, 8), (40, 42)])
async def test_a_service_that_was_updated_is_asked_with_ids_behind_the_legacy_ones(
    database: PowerSyncDatabase, drawn: int, asked: int
) -> None:
    service, backend = Service(legacy=True, stored=6), Backend()
    await database.execute("INSERT INTO ps_kv(key, value) VALUES ('last_requested_checkpoint_request_id', ?)", [drawn])
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    async with scripted_service(service) as server:
        await connected(database, server, service, backend)
        await until_target(database, 7)
        await database.disconnect()
        service.legacy = False
        await database.execute("INSERT INTO lists(id, name) VALUES ('b', 'x')")
        await connected(database, server, service, backend)
        await until_target(database, asked)
    assert service.asked == [asked]


async def test_a_failed_upload_is_tried_again_and_shown_meanwhile(database: PowerSyncDatabase) -> None:
    service, backend = Service(), Backend()
    backend.failures = [OSError("backend away"), OSError("still away")]
    errors: list[str] = []

    async def follow() -> None:
        async for status in database.watch_status():
            if status.upload_error is not None:
                errors.append(str(status.upload_error))

    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    async with scripted_service(service) as server, asyncio.TaskGroup() as group:
        follower = group.create_task(follow())
        await connected(database, server, service, backend)
        await until_target(database, 1)
        async with asyncio.timeout(10):
            async for status in database.watch_status():
                if status.upload_error is None and status.upload_queue_count == 0 and not status.uploading:
                    break
        follower.cancel()
    assert [entry.id for entry in backend.taken] == ["a"]
    assert "backend away" in errors


async def test_a_backend_that_refuses_the_credentials_has_new_ones_fetched(database: PowerSyncDatabase) -> None:
    service, backend = Service(), Backend()
    backend.failures = [UploadRetryError("Signed out", renew_credentials=True)]
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    async with scripted_service(service) as server:
        await connected(database, server, service, backend)
        await until_target(database, 1)
        [asked] = [request for request in server.requests if request.path == "/sync/checkpoint-request"]
        assert asked.headers["authorization"] == "Token token-2"


async def test_a_new_write_cuts_the_wait_short(database: PowerSyncDatabase) -> None:
    service, backend = Service(), Backend()
    backend.failures = [OSError("backend away")]
    patient = SyncOptions(crud_throttle=0, retry_delay=1000, max_retry_delay=1000)
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    async with scripted_service(service) as server:
        await database.connect(ServiceConnector(server.url, backend), patient)
        async with asyncio.timeout(10):
            async for status in database.watch_status():
                if status.upload_error is not None:
                    break
        await database.execute("INSERT INTO lists(id, name) VALUES ('b', 'x')")
        await until_rows(database, "SELECT count(*) FROM ps_crud", [[0]])
    assert [entry.id for entry in backend.taken] == ["a", "b"]


async def test_a_connector_that_completes_nothing_is_told_so(database: PowerSyncDatabase) -> None:
    service = Service()

    async def forgetful(_: PowerSyncDatabase) -> None:
        return

    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    async with scripted_service(service) as server:
        await database.connect(ServiceConnector(server.url, forgetful), QUICK)
        async with asyncio.timeout(10):
            async for status in database.watch_status():
                if isinstance(status.upload_error, UploadStalledError):
                    break
    assert await rows(database, "SELECT count(*) FROM ps_crud") == [[1]]


async def test_an_upload_that_hangs_meets_its_deadline(database: PowerSyncDatabase) -> None:
    service = Service()

    async def hanging(_: PowerSyncDatabase) -> None:
        await asyncio.Event().wait()

    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    async with scripted_service(service) as server:
        options = SyncOptions(crud_throttle=0, upload_timeout=0.05, retry_delay=1000)
        await database.connect(ServiceConnector(server.url, hanging), options)
        async with asyncio.timeout(10):
            async for status in database.watch_status():
                if isinstance(status.upload_error, NetworkError):
                    break
    assert "longer than 0.05 seconds" in str(status.upload_error)


async def test_each_completed_transaction_starts_the_deadline_anew(
    database: PowerSyncDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three transactions of 40 seconds each, by a clock that the test puts forward, meet a deadline of 60."""
    loop = asyncio.get_running_loop()
    real, ahead = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + ahead)
    attempts = 0

    async def slow(database: PowerSyncDatabase) -> None:
        nonlocal attempts, ahead
        attempts += 1
        async for transaction in database.crud_transactions():
            ahead += 40
            await asyncio.sleep(0.001)
            await transaction.complete()

    for number in range(3):
        await database.execute("INSERT INTO lists(id, name) VALUES (?, 'x')", [str(number)])
    async with scripted_service(Service()) as server:
        options = SyncOptions(crud_throttle=0, upload_timeout=60)
        await database.connect(ServiceConnector(server.url, slow), options)
        # Without a deadline of the test's own: it would be met by the clock put forward.
        async for status in database.watch_status():
            # Before the queue was looked at for the first time, the count is 0 too.
            if attempts and status.upload_queue_count == 0:
                break
        await database.disconnect()
    assert attempts == 1


@pytest.mark.parametrize("custom", [None, 9])
async def test_completing_one_completes_all_before_it(database: PowerSyncDatabase, custom: int | None) -> None:
    for number in range(3):
        await database.execute("INSERT INTO lists(id, name) VALUES (?, 'x')", [str(number)])
    transactions = [transaction async for transaction in database.crud_transactions()]
    assert [transaction.crud[0].id for transaction in transactions] == ["0", "1", "2"]
    await transactions[1].complete()
    assert [t.crud[0].id async for t in database.crud_transactions()] == ["2"]
    await transactions[2].complete(custom)
    target = await kv(database, "target_checkpoint_request_id")
    assert target == (9223372036854775807 if custom is None else 9)
