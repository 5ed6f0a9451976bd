"""Waiting: what each wait promises, and how it ends otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sync import (
    DatabaseClosedError,
    NotConnectedError,
    PowerSyncDatabase,
    PowerSyncError,
    SyncOptions,
    SyncTimeoutError,
    WriteRejectedError,
)
from tests.kit import inside
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, SCHEMA, ServiceConnector, rows, within
from tests.sync.stepwise import COMPLETE, LAST_OP, bucket, checkpoint, data, diff, partly_complete, stepwise

Wait = Callable[[PowerSyncDatabase, float | None], Awaitable[Any]]


async def stream_wait(database: PowerSyncDatabase, timeout: float | None) -> None:
    await (await database.sync_stream("todos").subscribe()).wait_for_first_sync(timeout)


async def request_wait(database: PowerSyncDatabase, timeout: float | None) -> None:
    await (await database.request_checkpoint()).wait_for_sync(timeout)


ANY_TIME: dict[str, Wait] = {
    "first sync": lambda database, timeout: database.wait_for_first_sync(timeout),
    "priority": lambda database, timeout: database.wait_for_first_sync(timeout, priority=1),
    "stream": stream_wait,
}
STATUS: dict[str, Wait] = {
    "status": lambda database, timeout: database.wait_for_status(lambda status: status.has_synced, timeout),
}
WHILE_WANTED: dict[str, Wait] = {
    "upload": lambda database, timeout: database.wait_for_upload(timeout),
    "flush": lambda database, timeout: database.flush(timeout),
    "sync": lambda database, timeout: database.wait_for_sync(timeout),
    "request": request_wait,
}
ALL = {**ANY_TIME, **STATUS, **WHILE_WANTED}


async def complete_all(database: PowerSyncDatabase) -> None:
    async for transaction in database.crud_transactions():
        await transaction.complete()


async def never(_: PowerSyncDatabase) -> None:
    await asyncio.Event().wait()


async def insert(database: PowerSyncDatabase, name: str) -> None:
    await database.execute("INSERT INTO lists(id, name) VALUES (?, ?)", [name, name])


async def begin(wait: Wait, database: PowerSyncDatabase) -> asyncio.Task[Any]:
    """A task that waits; whoever waits for a status has seen the present one."""
    subscription = await database.sync_stream("todos").subscribe() if wait is stream_wait else None

    async def run() -> None:
        if subscription is None:
            await wait(database, None)
        else:
            await subscription.wait_for_first_sync()

    task = asyncio.create_task(run(), name="a test's wait")
    for _ in range(10):
        await asyncio.sleep(0)
    return task


async def until_blocked(database: PowerSyncDatabase) -> None:
    """Until the one who waits has noted what for, looked at the file, and waits for a change."""
    async with asyncio.timeout(10):
        while not inside.is_anyone_waiting_for_a_change(database):
            await asyncio.sleep(0)


@pytest.mark.parametrize("name", ALL)
async def test_a_wait_has_a_deadline(name: str, database: PowerSyncDatabase) -> None:
    async with stepwise() as service:
        await database.connect(ServiceConnector(service.url, never), QUICK)
        await insert(database, "a")
        with pytest.raises(SyncTimeoutError, match=r"longer than 0\.05 seconds") as raised:
            await ALL[name](database, 0.05)
        assert isinstance(raised.value, TimeoutError)
        assert isinstance(raised.value, PowerSyncError)
        assert raised.value.seconds == 0.05
        await within(10, database.disconnect())


async def test_a_deadline_of_the_caller_stays_the_callers(database: PowerSyncDatabase) -> None:
    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(0.05):
            await database.wait_for_first_sync(1000)
    assert not isinstance(raised.value, SyncTimeoutError)


@pytest.mark.parametrize("name", ALL)
async def test_closing_the_database_ends_a_wait(name: str, tmp_path: Path) -> None:
    async with stepwise() as service, PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
        await database.connect(ServiceConnector(service.url, never), QUICK)
        await insert(database, "a")
        task = await begin(ALL[name], database)
        await within(10, database.close())
        with pytest.raises(DatabaseClosedError):
            await within(10, task)
        with pytest.raises(DatabaseClosedError):
            await within(10, ALL[name](database, None))


@pytest.mark.parametrize("name", [*ANY_TIME, *WHILE_WANTED])
async def test_disconnecting_ends_a_wait(name: str, database: PowerSyncDatabase) -> None:
    async with stepwise() as service:
        await database.connect(ServiceConnector(service.url, never), QUICK)
        await insert(database, "a")
        task = await begin(ALL[name], database)
        await within(10, database.disconnect())
        with pytest.raises(NotConnectedError):
            await within(10, task)
    assert await rows(database, "SELECT count(*) FROM ps_crud") == [[1]]


@pytest.mark.parametrize("name", WHILE_WANTED)
async def test_without_a_wish_to_connect_nothing_can_be_waited_for(name: str, database: PowerSyncDatabase) -> None:
    await insert(database, "a")
    before = await rows(database, "SELECT * FROM ps_kv ORDER BY key")
    with pytest.raises(NotConnectedError, match=r"call connect\(\) first"):
        await within(10, WHILE_WANTED[name](database, None))
    assert await rows(database, "SELECT * FROM ps_kv ORDER BY key") == before


@pytest.mark.parametrize("name", ALL)
async def test_a_cancelled_wait_leaves_nothing_behind(name: str, database: PowerSyncDatabase) -> None:
    async with stepwise() as service:
        await database.connect(ServiceConnector(service.url, never), QUICK)
        await insert(database, "a")
        task = await begin(ALL[name], database)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(10, task)
        assert "a test's wait" not in {task.get_name() for task in asyncio.all_tasks()}
        assert await rows(database, "SELECT name FROM lists") == [["a"]]
        await within(10, database.disconnect())


async def test_the_first_sync_may_be_waited_for_before_connecting(database: PowerSyncDatabase) -> None:
    task = await begin(ANY_TIME["first sync"], database)
    async with stepwise(checkpoint(), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await within(10, task)
    assert database.status.has_synced


async def test_the_first_sync_of_a_priority_comes_before_the_whole(database: PowerSyncDatabase) -> None:
    target = checkpoint(bucket("b", [1], priority=1), bucket("c", [2]))
    async with stepwise(target, data("b", [1]), partly_complete(1)) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_first_sync(10, priority=1)
        assert await rows(database, "SELECT id FROM lists") == [["list-1"]]
        assert not database.status.has_synced
        with pytest.raises(SyncTimeoutError):
            await database.wait_for_first_sync(0, priority=3)
        await service.send(data("c", [2]), COMPLETE)
        await database.wait_for_first_sync(10, priority=3)


async def test_what_the_predicate_raises_ends_the_wait(database: PowerSyncDatabase) -> None:
    with pytest.raises(ZeroDivisionError):
        await database.wait_for_status(lambda status: bool(status.upload_queue_count // 0), 10)


async def test_an_empty_queue_is_not_waited_for(database: PowerSyncDatabase) -> None:
    await database.wait_for_upload(0.5)
    await database.flush(0.5)


async def test_an_upload_is_waited_for_up_to_the_call(database: PowerSyncDatabase) -> None:
    """Changes that are made later would make it endless."""
    go_on = asyncio.Event()
    first = True

    async def upload(database: PowerSyncDatabase) -> None:
        nonlocal first
        async for transaction in database.crud_transactions():
            await (go_on.wait() if first else asyncio.Event().wait())
            first = False
            await transaction.complete()

    async with stepwise(checkpoint(), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url, upload), QUICK)
        await insert(database, "a")
        task = await begin(WHILE_WANTED["upload"], database)
        await until_blocked(database)
        await insert(database, "b")
        assert not task.done()
        go_on.set()
        await within(10, task)
        assert database.status.upload_queue_count == 1
        assert [row[0] for row in await rows(database, "SELECT data ->> 'id' FROM ps_crud")] == ["b"]


async def test_flush_does_not_wait_for_the_next_attempt(database: PowerSyncDatabase) -> None:
    attempts = 0
    is_away = True

    async def upload(database: PowerSyncDatabase) -> None:
        nonlocal attempts
        attempts += 1
        if is_away:
            raise OSError("no backend")
        await complete_all(database)

    async with stepwise(checkpoint(), COMPLETE) as service:
        patient = SyncOptions(crud_throttle=0, retry_delay=1000, max_retry_delay=1000)
        await database.connect(ServiceConnector(service.url, upload), patient)
        await database.wait_for_first_sync(10)
        await insert(database, "a")
        await database.wait_for_status(lambda status: status.upload_retry_at is not None, 10)
        with pytest.raises(SyncTimeoutError):
            await database.wait_for_upload(0.05)
        before, is_away = attempts, False
        await database.flush(10)
        assert attempts == before + 1
        assert (database.status.upload_queue_count, database.status.upload_retry_at) == (0, None)


async def test_syncing_brings_local_changes_there_and_those_of_others_here(database: PowerSyncDatabase) -> None:
    async with stepwise(checkpoint(), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url, complete_all), QUICK)
        await database.wait_for_first_sync(10)
        service.confirm = False
        await insert(database, "a")
        task = await begin(WHILE_WANTED["sync"], database)
        await until_blocked(database)
        async with asyncio.timeout(10):
            while (target := (await database.explain_sync()).gate.target) is None:
                await asyncio.sleep(0.01)
        # Checkpoints that the service had made before are not what is waited for.
        await service.send(diff(bucket("b", [7])), data("b", [7]), COMPLETE)
        async with asyncio.timeout(10):
            while await rows(database, "SELECT last_op FROM ps_buckets") != [[LAST_OP]]:
                await asyncio.sleep(0.01)
        assert not task.done()
        assert database.status.upload_queue_count == 0
        await service.send_confirmation(target)
        await within(10, task)
        assert database.status.has_synced
        assert await rows(database, "SELECT id FROM lists ORDER BY id") == [["list-7"]]


async def test_a_request_that_was_under_way_is_too_early(database: PowerSyncDatabase) -> None:
    """A checkpoint that was requested before the call does not include what others wrote until the call."""
    async with stepwise(checkpoint(), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url, complete_all), QUICK)
        await database.wait_for_first_sync(10)
        service.answering.clear()
        await insert(database, "a")
        await within(10, service.asked.wait())
        request = await database.request_checkpoint()
        service.answering.set()
        await request.wait_for_sync(10)
        assert service.checkpoint_requests == [1, 2]
        # Without one under way, one is enough.
        await database.wait_for_sync(10)
        assert service.checkpoint_requests == [1, 2, 3]


async def test_a_request_before_any_write_makes_the_one_under_way_too_early(database: PowerSyncDatabase) -> None:
    async with stepwise(checkpoint(), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_first_sync(10)
        service.answering.clear()
        requests = [await database.request_checkpoint()]
        await within(10, service.asked.wait())
        requests.append(await database.request_checkpoint())
        service.answering.set()
        await asyncio.gather(*(request.wait_for_sync(10) for request in requests))
        assert service.checkpoint_requests == [1, 2]


async def test_a_request_outlives_a_disconnection(database: PowerSyncDatabase) -> None:
    async with stepwise(checkpoint(), COMPLETE) as service:
        service.confirm = False
        connector = ServiceConnector(service.url)
        await database.connect(connector, QUICK)
        await database.wait_for_first_sync(10)
        request = await database.request_checkpoint()
        await database.disconnect()
        with pytest.raises(NotConnectedError):
            await request.wait_for_sync(10)
        service.confirm = True
        await database.connect(connector, QUICK)
        await asyncio.gather(request.wait_for_sync(10), request.wait_for_sync(10))
        await database.disconnect()
        await request.wait_for_sync(0.5)


async def test_many_may_wait_at_once(database: PowerSyncDatabase) -> None:
    async with stepwise(checkpoint(), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url, complete_all), QUICK)

        async def write_and_sync(number: int) -> None:
            await insert(database, str(number))
            await database.wait_for_sync(20)

        await asyncio.gather(*(write_and_sync(number) for number in range(10)))
        assert database.status.upload_queue_count == 0


async def test_syncing_with_a_service_that_knows_only_the_older_call(database: PowerSyncDatabase) -> None:
    """Services before 1.24."""
    counter = 40
    stream: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()

    async def service(exchange: Exchange) -> None:
        nonlocal counter
        if exchange.path == "/sync/checkpoint-request":
            await exchange.answer(404, {})
        elif exchange.path == "/write-checkpoint2.json":
            counter += 1
            await exchange.answer(200, {"data": {"write_checkpoint": str(counter)}})
            await (await stream).send_line(diff(write_checkpoint=str(counter)))
            await (await stream).send_line(COMPLETE)
        else:
            await exchange.begin_stream()
            await exchange.send_line(checkpoint())
            await exchange.send_line(COMPLETE)
            stream.set_result(exchange)
            await exchange.closed_by_client()

    async with scripted_service(service) as server:
        await database.connect(ServiceConnector(server.url, complete_all), QUICK)
        await insert(database, "a")
        await database.wait_for_sync(10)
        assert counter > 40
        before = counter
        await database.wait_for_sync(10)
        assert counter == before + 1


@pytest.mark.parametrize("wait", ["upload", "flush", "sync"])
async def test_a_rejected_change_is_told_by_the_waits_for_it(database: PowerSyncDatabase, wait: str) -> None:
    async def reject(database: PowerSyncDatabase) -> None:
        async for transaction in database.crud_transactions():
            if transaction.crud[0].id == "c":
                await transaction.complete()
            else:
                await transaction.reject("No room." if transaction.crud[0].id == "a" else "No time.")

    async with stepwise(checkpoint(), COMPLETE) as service:
        for row in "ab":
            await database.execute("INSERT INTO lists(id, name) VALUES (?, 'x')", [row])
        await database.connect(ServiceConnector(service.url, reject), QUICK)
        with pytest.raises(WriteRejectedError, match=r"rejected a change: No room\. It is kept"):
            await WHILE_WANTED[wait](database, 10)
        # It is told by the waits that began before it was, not by all that follow.
        await WHILE_WANTED[wait](database, 10)
        await database.execute("INSERT INTO lists(id, name) VALUES ('c', 'x')")
        await WHILE_WANTED[wait](database, 10)
        await database.disconnect()
