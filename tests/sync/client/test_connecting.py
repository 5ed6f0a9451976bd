"""Connections: how they begin, end and begin again."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from sync import (
    ConnectorError,
    DatabaseClosedError,
    NetworkError,
    PowerSyncCredentials,
    PowerSyncDatabase,
    ServiceError,
    SyncOptions,
    SyncStatus,
    TokenExpiredError,
)
from sync.client.backoff import Backoff, RetrySignal
from sync.errors import ProtocolError
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, SCHEMA, ServiceConnector, rows, within

EMPTY = {"checkpoint": {"last_op_id": "1", "buckets": [], "streams": []}}
COMPLETE = {"checkpoint_complete": {"last_op_id": "1"}}


async def until_status(database: PowerSyncDatabase, wanted: Any) -> SyncStatus:
    async with asyncio.timeout(10):
        async for status in database.watch_status():
            if wanted(status):
                return status
    raise AssertionError("the database was closed")


async def hold(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.send_line(EMPTY)
    await exchange.send_line(COMPLETE)
    await exchange.closed_by_client()


async def test_connect_and_disconnect_show_in_the_status(database: PowerSyncDatabase) -> None:
    async with scripted_service(hold) as server:
        await database.connect(ServiceConnector(server.url), QUICK)
        status = await until_status(database, lambda status: status.connected and status.has_synced)
        assert (status.wanted, status.connecting, status.download_error) == (True, False, None)
        await database.disconnect()
        assert not database.status.connected
        assert not database.status.wanted
        assert database.status.has_synced


async def test_last_sync_is_known_after_an_offline_restart(tmp_path: Path) -> None:
    async with scripted_service(hold) as server, PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
        await database.connect(ServiceConnector(server.url), QUICK)
        await database.wait_for_first_sync(10)
        last = database.status.last_synced_at
    async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
        assert database.status.last_synced_at == last


@pytest.mark.parametrize("way", ["end", "drop", "cut", "garbage", "early data", "500", "401", "429"])
async def test_however_a_connection_ends_another_begins(database: PowerSyncDatabase, way: str) -> None:
    async def service(exchange: Exchange) -> None:
        if len(server.requests) > 1:
            await hold(exchange)
            return
        failure = {"error": {"code": "PSYNC_S2302", "description": "No sync config yet"}}
        match way:
            case "500":
                await exchange.answer(500, failure)
            case "401":
                await exchange.answer(401, {"error": {"code": "PSYNC_S2103", "description": "JWT has expired"}})
            case "429":
                await exchange.answer(429, failure, {"Retry-After": "0"})
            case _:
                await exchange.begin_stream()
                if way == "garbage":
                    await exchange.send("this is no JSON\n")
                elif way == "early data":
                    await exchange.send_line({"data": {"bucket": "b", "data": []}})
                elif way == "cut":
                    await exchange.send(json.dumps(EMPTY)[:20])
                await (exchange.end_stream() if way == "end" else asyncio.sleep(0))
                if way in {"drop", "cut"}:
                    exchange.drop()
                else:
                    await exchange.closed_by_client()

    errors: list[Exception] = []

    async def follow() -> None:
        async for status in database.watch_status():
            if status.download_error is not None:
                errors.append(status.download_error)

    async with scripted_service(service) as server, asyncio.TaskGroup() as group:
        follower = group.create_task(follow())
        connector = ServiceConnector(server.url)
        await database.connect(connector, QUICK)
        await within(10, database.wait_for_first_sync())
        await database.disconnect()
        follower.cancel()
        assert connector.fetched == (2 if way == "401" else 1)
    if way == "401":
        assert errors == []  # an expired token is an everyday matter: a new one is fetched at once
    kinds = {"end": None, "401": None, "drop": NetworkError, "cut": NetworkError, "garbage": ProtocolError}
    kinds |= {"early data": ProtocolError, "500": ServiceError, "429": ServiceError}
    if (kind := kinds[way]) is not None:
        assert [type(error) for error in errors[:1]] == [kind]
    if way == "500":
        assert isinstance(errors[0], ServiceError)
        assert errors[0].code == "PSYNC_S2302"
        assert "No sync config yet" in str(errors[0])


async def test_silence_is_noticed(database: PowerSyncDatabase) -> None:
    """A half-open connection: the service is gone without a word."""

    async def service(exchange: Exchange) -> None:
        if len(server.requests) > 1:
            await hold(exchange)
        else:
            await exchange.begin_stream()
            await exchange.closed_by_client()

    async with scripted_service(service) as server:
        options = SyncOptions(retry_delay=0.01, max_retry_delay=0.01, silence_timeout=0.2)
        await database.connect(ServiceConnector(server.url), options)
        status = await until_status(database, lambda status: status.download_error is not None)
        assert "silent for 0.2 seconds" in str(status.download_error)
        await database.wait_for_first_sync(10)


async def test_a_service_that_is_away_is_found_when_it_returns(database: PowerSyncDatabase) -> None:
    async with scripted_service(hold) as server:
        port = server.port
    await database.connect(ServiceConnector(f"http://127.0.0.1:{port}"), QUICK)
    status = await until_status(database, lambda status: status.download_error is not None)
    assert isinstance(status.download_error, NetworkError)
    assert not status.connected
    async with scripted_service(hold, port):
        await database.wait_for_first_sync(10)
        assert (await until_status(database, lambda status: status.connected)).download_error is None


async def test_a_proxy_of_the_environment_is_not_used_on_loopback(
    database: PowerSyncDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with scripted_service(hold) as server:
        await database.connect(ServiceConnector(server.url), QUICK)
        await database.wait_for_first_sync(10)


async def test_connecting_again_cuts_the_wait_short(database: PowerSyncDatabase) -> None:
    async with scripted_service(hold) as server:
        port = server.port
    patient = SyncOptions(retry_delay=1000, max_retry_delay=1000)
    connector = ServiceConnector(f"http://127.0.0.1:{port}")
    await database.connect(connector, patient)
    await until_status(database, lambda status: status.download_error is not None)
    async with scripted_service(hold, port):
        await database.connect(connector, patient)
        await database.wait_for_first_sync(10)
    assert connector.fetched == 1


async def test_a_local_write_cuts_the_wait_short(database: PowerSyncDatabase) -> None:
    async def upload(database: PowerSyncDatabase) -> None:
        async for transaction in database.crud_transactions():
            await transaction.complete()

    async with scripted_service(hold) as server:
        port = server.port
    patient = SyncOptions(retry_delay=1000, max_retry_delay=1000)
    await database.connect(ServiceConnector(f"http://127.0.0.1:{port}", upload), patient)
    await until_status(database, lambda status: status.download_error is not None)
    async with scripted_service(hold, port):
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        await until_status(database, lambda status: status.connected)


def jwt(expires_in: float) -> str:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + expires_in}).encode()).rstrip(b"=")
    return f"e30.{payload.decode()}.x"


async def test_a_token_that_expires_soon_is_fetched_before_it_is_used(database: PowerSyncDatabase) -> None:
    async def tokens(count: int) -> str:
        return jwt(20 if count == 1 else 300)

    async def service(exchange: Exchange) -> None:
        if len(server.requests) > 1:
            await hold(exchange)
        else:
            await exchange.begin_stream()
            await exchange.end_stream()

    async with scripted_service(service) as server:
        connector = ServiceConnector(server.url, tokens=tokens)
        await database.connect(connector, QUICK)
        await database.wait_for_first_sync(10)
        assert connector.fetched == 2


async def test_an_expiring_token_is_exchanged_without_a_gap(database: PowerSyncDatabase) -> None:
    """The old stream goes on until the new token is there; the status stays connected throughout."""
    new_token = asyncio.Event()
    streams: asyncio.Queue[Exchange] = asyncio.Queue()
    seen: list[SyncStatus] = []

    async def tokens(count: int) -> str:
        if count > 1:
            await new_token.wait()
        return f"token-{count}"

    async def service(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.send_line(EMPTY)
        await exchange.send_line(COMPLETE)
        await streams.put(exchange)
        if len(server.requests) == 1:
            await exchange.send_line({"token_expires_in": 20})
        await exchange.closed_by_client()

    async def follow() -> None:
        async for status in database.watch_status():
            seen.append(status)

    async with scripted_service(service) as server, asyncio.TaskGroup() as group:
        connector = ServiceConnector(server.url, tokens=tokens)
        await database.connect(connector, QUICK)
        first = await within(10, streams.get())
        await until_status(database, lambda status: status.connected and status.has_synced)
        follower = group.create_task(follow())
        while connector.fetched < 2:
            await asyncio.sleep(0)
        await first.send_line({"token_expires_in": 19})
        new_token.set()
        second = await within(10, streams.get())
        assert second.headers["authorization"] == "Token token-2"
        follower.cancel()
    assert all(status.connected for status in seen)


async def test_a_service_that_finds_each_token_expired_is_not_besieged(database: PowerSyncDatabase) -> None:
    async def service(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.send_line({"token_expires_in": 0})
        await exchange.end_stream()

    async with scripted_service(service) as server:
        options = SyncOptions(retry_delay=1000, max_retry_delay=1000)
        connector = ServiceConnector(server.url)
        await database.connect(connector, options)
        status = await until_status(database, lambda status: status.download_error is not None)
        assert isinstance(status.download_error, TokenExpiredError)
        assert not status.connected
        assert len(server.requests) == 1


async def test_waits_grow_with_each_failure() -> None:
    backoff = Backoff(1, 60, RetrySignal())
    limits = [1, 2, 4, 8, 16, 32, 60, 60]
    for _ in range(50):
        waits = [backoff.failed() for _ in limits]
        assert all(0 <= wait <= limit for wait, limit in zip(waits, limits, strict=True))
        backoff.succeeded()
    assert max(backoff.failed() for _ in range(200)) > 30


async def test_a_failed_attempt_is_waited_after(database: PowerSyncDatabase) -> None:
    async def service(exchange: Exchange) -> None:
        await exchange.answer(500, {})

    async with scripted_service(service) as server:
        await database.connect(ServiceConnector(server.url), SyncOptions(retry_delay=1000, max_retry_delay=1000))
        await until_status(database, lambda status: status.download_error is not None)
        await database.execute("SELECT 1")
        assert len(server.requests) == 1


async def test_what_asks_for_an_attempt_during_an_attempt_gets_one(database: PowerSyncDatabase) -> None:
    attempts: asyncio.Queue[Exchange] = asyncio.Queue()
    go_on = asyncio.Event()

    async def service(exchange: Exchange) -> None:
        await attempts.put(exchange)
        if len(server.requests) > 1:
            await hold(exchange)
        else:
            await go_on.wait()
            await exchange.answer(500, {})

    async with scripted_service(service) as server:
        options = SyncOptions(retry_delay=1000, max_retry_delay=1000)
        connector = ServiceConnector(server.url)
        await database.connect(connector, options)
        await within(10, attempts.get())
        await database.connect(connector, options)
        go_on.set()
        await database.wait_for_first_sync(10)


async def test_what_keeps_synchronization_from_running_is_shown(tmp_path: Path) -> None:
    (tmp_path / "c.db-sync-lock").mkdir()
    async with scripted_service(hold) as server, PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
        await database.connect(ServiceConnector(server.url), QUICK)
        status = await until_status(database, lambda status: status.download_error is not None)
        assert isinstance(status.download_error, OSError)
        await within(10, database.disconnect())
        assert database.status.download_error is None


async def test_a_closed_database_does_not_connect(tmp_path: Path) -> None:
    database = PowerSyncDatabase(tmp_path / "c.db", SCHEMA)
    with pytest.raises(DatabaseClosedError):
        await database.connect(ServiceConnector("http://127.0.0.1:9"))
    await database.open()
    await database.close()
    with pytest.raises(DatabaseClosedError):
        await database.connect(ServiceConnector("http://127.0.0.1:9"))


async def test_connecting_while_the_database_closes_is_refused(tmp_path: Path) -> None:
    async with scripted_service(hold) as server:
        database = PowerSyncDatabase(tmp_path / "c.db", SCHEMA)
        await database.open()
        await database.connect(ServiceConnector(server.url), QUICK)
        await until_status(database, lambda status: status.connected)
        closing = asyncio.create_task(database.close())
        while database.status.connected:
            await asyncio.sleep(0)
        with pytest.raises(DatabaseClosedError):
            await database.connect(ServiceConnector(server.url), QUICK)
        await within(10, closing)
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("sync: ")]


@pytest.mark.parametrize("token", ["", "two words", "line\n", "\u00fc"])
def test_tokens_that_cannot_be_sent_are_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConnectorError) as raised:
        PowerSyncCredentials("http://localhost", token)
    assert not token or token not in str(raised.value)


async def test_a_subscription_is_synced_only_when_its_own_request_was_answered(database: PowerSyncDatabase) -> None:
    streams: asyncio.Queue[Exchange] = asyncio.Queue()

    async def service(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await streams.put(exchange)
        await exchange.closed_by_client()

    async with scripted_service(service) as server:
        await database.connect(ServiceConnector(server.url), QUICK)
        first = await within(10, streams.get())
        subscription = await database.sync_stream("todos", {"list": (1, 2)}).subscribe()
        await first.send_line(EMPTY)
        await first.send_line(COMPLETE)
        await database.wait_for_first_sync(10)
        stream = database.status.for_stream("todos", {"list": [1, 2]})
        assert stream is not None
        assert not stream.has_synced
        second = await within(10, streams.get())
        await second.send_line(EMPTY)
        await second.send_line(COMPLETE)
        await within(10, subscription.wait_for_first_sync())


async def test_the_time_to_live_begins_when_the_last_use_ends(database: PowerSyncDatabase) -> None:
    subscription = await database.sync_stream("todos").subscribe(ttl=timedelta(hours=1))
    await database.execute("UPDATE ps_stream_subscriptions SET expires_at = 0")
    await subscription.unsubscribe()
    (expires_at,) = (await rows(database, "SELECT expires_at FROM ps_stream_subscriptions"))[0]
    assert expires_at / 1e6 - time.time() > 3500


async def test_the_process_that_syncs_learns_of_the_others_subscriptions(tmp_path: Path) -> None:
    streams: asyncio.Queue[Exchange] = asyncio.Queue()

    async def service(exchange: Exchange) -> None:
        await streams.put(exchange)
        await hold(exchange)

    async with (
        scripted_service(service) as server,
        PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as first,
        PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as second,
    ):
        await first.connect(ServiceConnector(server.url), QUICK)
        await within(10, streams.get())
        await second.sync_stream("todos", {"list": 1}).subscribe()
        again = await within(5, streams.get())
        assert [s["parameters"] for s in again.json["streams"]["subscriptions"]] == [{"list": 1}]


async def test_the_connectors_failures_are_shown_and_survived(database: PowerSyncDatabase) -> None:
    async def tokens(count: int) -> str:
        if count == 1:
            raise RuntimeError("the sign-in server is away")
        if count == 2:
            await asyncio.Event().wait()
        return "token"

    errors: list[str] = []

    async def follow() -> None:
        async for status in database.watch_status():
            if status.download_error is not None:
                errors.append(f"{type(status.download_error).__name__}: {status.download_error}")

    async with scripted_service(hold) as server, asyncio.TaskGroup() as group:
        follower = group.create_task(follow())
        options = SyncOptions(retry_delay=0.01, max_retry_delay=0.01, credentials_timeout=0.05)
        await database.connect(ServiceConnector(server.url, tokens=tokens), options)
        await database.wait_for_first_sync(10)
        follower.cancel()
    assert "RuntimeError: the sign-in server is away" in errors
    assert any(error.startswith(ConnectorError.__name__) for error in errors)


async def test_subscribing_connects_once_more_and_not_more_often(database: PowerSyncDatabase) -> None:
    streams: asyncio.Queue[Exchange] = asyncio.Queue()

    async def service(exchange: Exchange) -> None:
        await streams.put(exchange)
        await hold(exchange)

    async with scripted_service(service) as server:
        await database.connect(ServiceConnector(server.url), QUICK)
        await within(10, streams.get())
        await database.wait_for_first_sync(10)
        for number in range(5):
            await database.sync_stream("todos", {"list": number}).subscribe()
        again = await within(10, streams.get())
        assert [s["parameters"] for s in again.json["streams"]["subscriptions"]] == [{"list": n} for n in range(5)]
        # The same subscription once more changes nothing that the service has to know.
        async with await database.sync_stream("todos", {"list": 0}).subscribe():
            await until_status(database, lambda status: status.connected)
        await database.disconnect()
        assert streams.empty()
    assert len(await rows(database, "SELECT * FROM ps_stream_subscriptions")) == 5


async def test_expired_subscriptions_are_not_asked_for(database: PowerSyncDatabase) -> None:
    streams: asyncio.Queue[Exchange] = asyncio.Queue()

    async def service(exchange: Exchange) -> None:
        await streams.put(exchange)
        await hold(exchange)

    expired = await database.sync_stream("todos", {"list": "old"}).subscribe(ttl=timedelta(0))
    await expired.unsubscribe()
    await database.sync_stream("todos", {"list": "new"}).subscribe()
    async with scripted_service(service) as server:
        await database.connect(ServiceConnector(server.url), QUICK)
        request = (await within(10, streams.get())).json
    assert [s["parameters"] for s in request["streams"]["subscriptions"]] == [{"list": "new"}]


async def test_one_of_two_on_a_file_syncs_and_the_other_takes_over(tmp_path: Path) -> None:
    """Two databases on one file stand for two processes: the lock and the notices are between files, not objects."""
    async with scripted_service(hold) as server:
        first = PowerSyncDatabase(tmp_path / "c.db", SCHEMA)
        await first.open()
        async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as second:
            await first.connect(ServiceConnector(server.url), QUICK)
            await first.wait_for_first_sync(10)
            await second.connect(ServiceConnector(server.url), QUICK)
            status = await until_status(second, lambda status: status.syncing_elsewhere and status.has_synced)
            assert not status.connected
            await first.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
            await until_status(second, lambda status: status.upload_queue_count == 1)
            await first.close()
            status = await until_status(second, lambda status: status.connected)
            assert not status.syncing_elsewhere


async def test_any_sequence_of_connect_and_disconnect_ends_as_last_asked(
    database: PowerSyncDatabase,
) -> None:
    """Also when the calls are cancelled at any point; nothing is left over."""
    chance = random.Random(7)
    async with scripted_service(hold) as server:
        connectors = [ServiceConnector(server.url) for _ in range(2)]
        tasks_before = asyncio.all_tasks()
        for _ in range(60):
            if chance.random() < 0.5:
                call = asyncio.create_task(database.connect(chance.choice(connectors), QUICK))
            else:
                call = asyncio.create_task(database.disconnect())
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        await database.connect(connectors[0], QUICK)
        await until_status(database, lambda status: status.connected)
        await database.disconnect()
        assert not database.status.connected
        async with asyncio.timeout(10):
            while {task.get_name() for task in asyncio.all_tasks() - tasks_before} - {"sync: connection"}:
                await asyncio.sleep(0)


async def test_disconnecting_does_not_wait_for_a_later_connection(database: PowerSyncDatabase) -> None:
    async with scripted_service(hold) as server:
        connector = ServiceConnector(server.url)
        await database.connect(connector, QUICK)
        await until_status(database, lambda status: status.connected)
        disconnecting = asyncio.create_task(database.disconnect())
        await asyncio.sleep(0)
        await database.connect(connector, QUICK)
        await within(10, disconnecting)
        await until_status(database, lambda status: status.connected)
        assert database.status.wanted


@pytest.mark.parametrize("as_date", [False, True])
async def test_a_service_that_asks_for_time_gets_it(database: PowerSyncDatabase, as_date: bool) -> None:
    times: list[float] = []

    async def service(exchange: Exchange) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) > 1:
            await hold(exchange)
        else:
            # A date has whole seconds: two from now is more than one.
            date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
            await exchange.answer(429, {}, {"Retry-After": date if as_date else "1"})

    async with scripted_service(service) as server:
        options = SyncOptions(retry_delay=0.01, max_retry_delay=5)
        await database.connect(ServiceConnector(server.url), options)
        await database.wait_for_first_sync(10)
    assert times[1] - times[0] >= 1


async def test_tokens_reach_no_log(database: PowerSyncDatabase, caplog: pytest.LogCaptureFixture) -> None:
    async def tokens(_: int) -> str:
        return "very-secret"

    async def service(exchange: Exchange) -> None:
        assert exchange.headers["authorization"] == "Token very-secret"
        await (hold(exchange) if len(server.requests) > 1 else exchange.answer(500, {}))

    caplog.set_level(logging.DEBUG)
    async with scripted_service(service) as server:
        await database.connect(ServiceConnector(server.url, tokens=tokens), QUICK)
        await database.wait_for_first_sync(10)
        await database.disconnect()
    assert "not connected" in caplog.text
    assert "very-secret" not in caplog.text
