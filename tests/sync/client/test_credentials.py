"""Credentials: when they are fetched, that the loops share them, and that no connector can stop a loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from sync import (
    AuthError,
    BackendConnector,
    ConnectorError,
    PowerSyncCredentials,
    PowerSyncDatabase,
    SyncOptions,
    SyncStatus,
)
from sync.client.credentials import CredentialsCache
from tests.kit.service import Exchange, scripted_service
from tests.kit.stopped_time import stopped_time
from tests.sync.rig import QUICK, ServiceConnector, within

EMPTY = {"checkpoint": {"last_op_id": "1", "buckets": [], "streams": []}}
COMPLETE = {"checkpoint_complete": {"last_op_id": "1"}}


class Source(BackendConnector):
    """Gives out credentials by a function of the test."""

    def __init__(self, give: Callable[[int], Any]) -> None:
        self.fetched = 0
        self._give = give

    async def fetch_credentials(self) -> PowerSyncCredentials:
        self.fetched += 1
        given = self._give(self.fetched)
        return await given if asyncio.iscoroutine(given) else given

    async def upload_data(self, _: PowerSyncDatabase) -> None:
        raise AssertionError("nothing was to be uploaded")


def credentials(number: int, seconds: float | None = None) -> PowerSyncCredentials:
    expires_at = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
    return PowerSyncCredentials("http://127.0.0.1", f"token-{number}", expires_at)


async def hold(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.send_line(EMPTY)
    await exchange.send_line(COMPLETE)
    await exchange.closed_by_client()


async def until(database: PowerSyncDatabase, wanted: Callable[[SyncStatus], object]) -> SyncStatus:
    async with asyncio.timeout(10):
        async for status in database.watch_status():
            if wanted(status):
                return status
    raise AssertionError("the database was closed")


async def test_who_asks_at_the_same_time_waits_for_one_fetch() -> None:
    go_on = asyncio.Event()

    async def give(number: int) -> PowerSyncCredentials:
        await go_on.wait()
        return credentials(number, 300)

    source = Source(give)
    cache = CredentialsCache(source, 10)
    asked = [asyncio.create_task(cache.get()) for _ in range(5)]
    await asyncio.sleep(0)
    go_on.set()
    assert {given.token for given in await asyncio.gather(*asked)} == {"token-1"}
    assert source.fetched == 1


async def test_a_refusal_of_old_credentials_leaves_newer_ones_alone() -> None:
    cache = CredentialsCache(Source(lambda number: credentials(number, 300)), 10)
    old = await cache.get()
    await cache.renew()
    cache.discard(old)
    newer = await cache.get()
    assert newer.token == "token-2"
    cache.discard(newer)
    assert (await cache.get()).token == "token-3"


async def test_renewal_is_due_30_seconds_ahead_of_expiry() -> None:
    cache = CredentialsCache(Source(lambda number: credentials(number, 30.2 if number == 1 else 3000)), 10)
    await cache.get()
    await within(10, cache.until_renewal_is_due())
    await cache.renew()
    due = asyncio.create_task(cache.until_renewal_is_due())
    await asyncio.sleep(0)
    assert not due.done()
    cache.request_renewal()
    await within(10, due)


async def test_credentials_that_seem_expired_from_the_start_are_not_renewed_in_a_circle() -> None:
    """So they seem to a clock that is wrong."""
    cache = CredentialsCache(Source(lambda number: credentials(number, -1000)), 10)
    await cache.get()
    with pytest.raises(TimeoutError):
        await within(0.05, cache.until_renewal_is_due())


async def test_credentials_renew_by_their_own_expiry_while_the_stream_goes_on(database: PowerSyncDatabase) -> None:
    streams: list[str] = []
    again = asyncio.Event()
    seen: list[SyncStatus] = []

    async def service(exchange: Exchange) -> None:
        streams.append(exchange.headers["authorization"])
        if len(streams) > 1:
            again.set()
        await hold(exchange)

    async def follow() -> None:
        async for status in database.watch_status():
            seen.append(status)

    async with scripted_service(service) as server, asyncio.TaskGroup() as group:
        with stopped_time() as clock:

            def give(number: int) -> PowerSyncCredentials:
                expires_at = datetime.now(UTC) + timedelta(seconds=31 if number == 1 else 3000)
                return PowerSyncCredentials(server.url, f"token-{number}", expires_at)

            await database.connect(Source(give), QUICK)
            await until(database, lambda status: status.connected and status.has_synced)
            follower = group.create_task(follow())
            assert streams == ["Token token-1"]
            clock.move_on(1)
            await again.wait()
        follower.cancel()
    assert streams == ["Token token-1", "Token token-2"]
    assert all(status.connected for status in seen)


@pytest.mark.parametrize("way", ["cancelled", "something else", "error"])
async def test_no_failure_of_the_connector_ends_the_download_loop(database: PowerSyncDatabase, way: str) -> None:
    async def fail(_: int) -> Any:
        match way:
            case "cancelled":
                raise asyncio.CancelledError
            case "something else":
                return cast("PowerSyncCredentials", None)
            case _:
                raise OSError("the sign-in server is away")

    async with scripted_service(hold) as server:
        source = Source(lambda number: PowerSyncCredentials(server.url, "token") if number > 2 else fail(number))
        await database.connect(source, QUICK)
        status = await until(database, lambda status: status.download_error is not None)
        assert isinstance(status.download_error, OSError if way == "error" else ConnectorError)
        await until(database, lambda status: status.connected)


async def test_a_connector_that_cancels_itself_does_not_end_the_upload_loop(database: PowerSyncDatabase) -> None:
    attempts = 0

    async def upload(database: PowerSyncDatabase) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise asyncio.CancelledError
        async for transaction in database.crud_transactions():
            await transaction.complete()

    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    async with scripted_service(hold) as server:
        await database.connect(ServiceConnector(server.url, upload), QUICK)
        status = await until(database, lambda status: status.upload_error is not None)
        assert isinstance(status.upload_error, ConnectorError)
        await until(database, lambda status: status.upload_queue_count == 0)


async def test_tokens_in_what_others_say_reach_no_log(
    database: PowerSyncDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """A service may repeat the token that it refuses, a connector the one that it was given."""
    caplog.set_level(logging.DEBUG)
    signed = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.c2lnbmF0dXJl"

    async def service(exchange: Exchange) -> None:
        token = exchange.headers["authorization"]
        await exchange.answer(401, {"error": {"code": token, "description": f"{token} is not known"}})

    async def tokens(number: int) -> str:
        if number == 3:
            raise OSError(f"the sign-in server answered {signed} {'very-secret'}")
        return "very-secret"

    async def upload(_: PowerSyncDatabase) -> None:
        raise OSError(f"the backend does not take {signed} nor very-secret")

    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
    async with scripted_service(service) as server:
        connector = ServiceConnector(server.url, upload, tokens)
        await database.connect(connector, QUICK)
        await until(database, lambda status: status.upload_error is not None)
        status = await until(database, lambda status: isinstance(status.download_error, AuthError))
        explanation = str(await database.explain_sync())
        while connector.fetched < 6:
            await asyncio.sleep(0.01)
        await database.disconnect()
    assert isinstance(status.download_error, AuthError)
    assert status.download_error.code == "Token [token]"
    assert "[token] is not known" in str(status.download_error)
    assert "the backend does not take [token]" in explanation
    assert signed not in explanation
    assert "[token] is not known" in caplog.text
    assert "the sign-in server answered [token] [token]" in caplog.text
    assert "the backend does not take [token]" in caplog.text
    assert "very-secret" not in caplog.text
    assert signed not in caplog.text


def test_options_that_cannot_work_are_refused_in_a_sentence() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"crud_throttle": -1}, "crud_throttle is -1"),
        ({"silence_timeout": 0}, "more than 0 seconds"),
        ({"retry_delay": float("nan")}, "retry_delay is nan"),
        ({"params": {"at": object()}}, "params cannot be sent as JSON"),
        ({"proxy": "socks://somewhere"}, "http:// or https://"),
        ({"user_agent": "line\n"}, "printable ASCII"),
        ({"proxy": "http://127.0.0.1:1", "http_client": object()}, "on http_client itself"),
    ]
    for options, sentence in wrong:
        with pytest.raises(ValueError, match=sentence):
            SyncOptions(**options)
    assert "secret" not in repr(SyncOptions(proxy="http://user:secret@127.0.0.1:1"))


def test_options_keep_what_they_were_given() -> None:
    params = {"inner": [1]}
    options = SyncOptions(params=params)
    params["inner"].append(2)
    assert options != SyncOptions(params=params)
