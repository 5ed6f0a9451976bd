"""Sync streams: uses that are counted, kept, renewed and ended, and what the service says of them."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sync import PowerSyncDatabase
from tests.kit import inside
from tests.sync.rig import QUICK, SCHEMA, ServiceConnector, rows, within
from tests.sync.stepwise import COMPLETE, Stepwise, bucket, checkpoint, data, stepwise, stream

SUBSCRIPTIONS = "SELECT stream_name, local_params, ttl, local_priority FROM ps_stream_subscriptions ORDER BY id"


async def next_request(service: Stepwise) -> list[Any]:
    exchange = await within(10, service.streams.get())
    return [[s["stream"], s["parameters"]] for s in exchange.json["streams"]["subscriptions"]]


async def expires_in(database: PowerSyncDatabase) -> float:
    (expires_at,) = (await rows(database, "SELECT expires_at FROM ps_stream_subscriptions"))[0]
    return expires_at / 1e6 - time.time()


async def test_a_subscription_is_known_at_once_and_its_status_grows(database: PowerSyncDatabase) -> None:
    todos = database.sync_stream("todos", {"list": "a"})
    assert todos.status is None
    subscription = await todos.subscribe()
    assert todos.status is not None
    assert todos.status == subscription.status == database.status.for_stream("todos", {"list": "a"})
    assert (todos.status.offered, todos.status.has_synced, todos.status.has_explicit_subscription) == (
        None,
        False,
        True,
    )
    async with stepwise(checkpoint(streams=[stream("todos")])) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_status(lambda _: todos.status is not None and todos.status.offered is True, 10)
        assert not todos.status.has_synced
        await service.send(COMPLETE)
        await subscription.wait_for_first_sync(10)
        assert todos.status.last_synced_at == database.status.last_synced_at


async def test_with_rules_for_whole_databases_an_app_learns_that_its_data_is_there(
    database: PowerSyncDatabase,
) -> None:
    """Such a service offers the stream `global` only; `todos` is never in its answers though all its data comes."""
    subscription = await database.sync_stream("todos", {"list": "a"}).subscribe()
    target = checkpoint(
        bucket("global[]", [1], subscriptions=[{"default": 0}]), streams=[stream("global", is_default=True)]
    )
    async with stepwise(target, data("global[]", [1])) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_status(lambda status: status.for_stream("global") is not None, 10)
        status = await database.wait_for_status(lambda _: getattr(subscription.status, "offered", None) is False, 10)
        assert not status.has_synced
        await service.send(COMPLETE)
        await subscription.wait_for_first_sync(10)
        assert await rows(database, "SELECT id FROM lists") == [["list-1"]]
        todos = subscription.status
        assert todos is not None
        assert (todos.has_synced, todos.offered, todos.active) == (True, False, False)
    await database.disconnect()
    # The file still tells that it is not offered.
    assert subscription.status is not None
    assert subscription.status.offered is False


async def test_what_a_service_says_is_wrong_with_a_stream_is_shown(database: PowerSyncDatabase) -> None:
    good = await database.sync_stream("todos", {"list": "a"}).subscribe()
    bad = await database.sync_stream("todos", {"list": 7}).subscribe()
    todos = stream("todos", errors=[{"subscription": 1, "message": "list must be text"}])
    lists = stream("lists", is_default=True, errors=[{"subscription": "default", "message": "no user"}])
    async with stepwise(checkpoint(streams=[lists, todos]), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await bad.wait_for_first_sync(10)
        assert bad.status is not None
        assert bad.status.error == "list must be text"
        assert good.status is not None
        assert good.status.error is None
        default = database.status.for_stream("lists")
        assert default is not None
        assert default.error == "no user"
        await database.disconnect()
    assert all(known.error is None for known in database.status.streams)


async def test_uses_are_counted_by_key_and_the_last_one_begins_the_time_to_live(database: PowerSyncDatabase) -> None:
    todos = database.sync_stream("todos", {"list": "a"})
    async with await todos.subscribe(ttl=timedelta(hours=5)) as first:
        second = await database.sync_stream("todos", {"list": "a"}).subscribe(ttl=timedelta(hours=1))
        await database.execute("UPDATE ps_stream_subscriptions SET expires_at = 0")
        await second.unsubscribe()
        await second.unsubscribe()
        assert first.is_active
        assert not second.is_active
        assert inside.streams_in_use(database) == {first.key: 1}
        assert 3500 < await expires_in(database) <= 3600
    assert not first.is_active
    # The use that asked for more time gets it, though it was not the newest.
    assert 5 * 3600 - 100 < await expires_in(database) <= 5 * 3600
    assert not inside.streams_in_use(database)
    assert len(await rows(database, SUBSCRIPTIONS)) == 1


async def test_a_short_use_does_not_shorten_what_an_earlier_one_asked_for(database: PowerSyncDatabase) -> None:
    todos = database.sync_stream("todos")
    await (await todos.subscribe(ttl=timedelta(hours=5))).unsubscribe()
    await (await todos.subscribe(ttl=timedelta(0))).unsubscribe()
    assert await expires_in(database) > 4 * 3600


async def test_a_stream_in_use_is_asked_for_however_short_its_time_to_live(database: PowerSyncDatabase) -> None:
    async with stepwise(checkpoint(), COMPLETE) as service:
        async with await database.sync_stream("todos").subscribe(ttl=timedelta(0)):
            await database.connect(ServiceConnector(service.url), QUICK)
            assert await next_request(service) == [["todos", None]]
            await database.disconnect()
            await database.execute("UPDATE ps_stream_subscriptions SET expires_at = 1")
            await database.connect(ServiceConnector(service.url), QUICK)
            assert await next_request(service) == [["todos", None]]
            await database.disconnect()
        await database.connect(ServiceConnector(service.url), QUICK)
        assert await next_request(service) == []
        await database.disconnect()


async def test_uses_are_renewed_without_a_connection(
    database: PowerSyncDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may be the one that syncs, and drops what has expired."""
    monkeypatch.setattr("sync.api.streams._SHORTEST_RENEWAL_SECONDS", 0.01)
    monkeypatch.setattr("sync.api.streams._LONGEST_RENEWAL_SECONDS", 0.01)
    async with await database.sync_stream("todos").subscribe(ttl=timedelta(hours=1)):
        await database.execute("UPDATE ps_stream_subscriptions SET expires_at = 1")
        async with asyncio.timeout(10):
            while await expires_in(database) < 3500:
                await asyncio.sleep(0.01)


async def test_subscriptions_survive_a_restart(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
        await database.sync_stream("todos", {"list": "a"}).subscribe(priority=1)
        await (await database.sync_stream("todos", {"list": "b"}).subscribe()).unsubscribe()
    async with (
        stepwise(checkpoint(), COMPLETE) as service,
        PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database,
    ):
        assert len(database.status.streams) == 2
        await database.connect(ServiceConnector(service.url), QUICK)
        assert await next_request(service) == [["todos", {"list": "a"}], ["todos", {"list": "b"}]]


async def test_ending_all_subscriptions_of_a_stream(database: PowerSyncDatabase) -> None:
    todos = database.sync_stream("todos", {"list": "a"})
    first, second = await todos.subscribe(), await todos.subscribe()
    other = await database.sync_stream("todos", {"list": "b"}).subscribe()
    async with stepwise(checkpoint(streams=[stream("todos")]), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        assert await next_request(service) == [["todos", {"list": "a"}], ["todos", {"list": "b"}]]
        await first.wait_for_first_sync(10)
        await todos.unsubscribe_all()
        assert (first.is_active, second.is_active, other.is_active) == (False, False, True)
        assert todos.status is None
        assert await next_request(service) == [["todos", {"list": "b"}]]
        # A new use is not ended by the handles of the old ones.
        third = await todos.subscribe()
        await first.unsubscribe()
        await second.unsubscribe()
        assert third.is_active
        assert inside.streams_in_use(database)[third.key] == 1


async def test_a_default_stream_goes_on_when_the_app_ends_its_own_subscription(database: PowerSyncDatabase) -> None:
    async with stepwise(checkpoint(streams=[stream("lists", is_default=True)]), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_first_sync(10)
        lists = database.sync_stream("lists")
        await lists.subscribe(priority=0)
        await lists.unsubscribe_all()
        assert lists.status is not None
        assert not lists.status.has_explicit_subscription
    assert await rows(database, SUBSCRIPTIONS) == [["lists", "null", None, None]]


async def test_changes_in_a_burst_connect_once(database: PowerSyncDatabase) -> None:
    async with stepwise(checkpoint(), COMPLETE) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        assert await next_request(service) == []
        await database.wait_for_first_sync(10)
        streams = [database.sync_stream("todos", {"list": number}) for number in range(20)]
        await asyncio.gather(*(todos.subscribe() for todos in streams))
        await asyncio.gather(*(todos.unsubscribe_all() for todos in streams[:10]))
        numbers = [parameters["list"] for _, parameters in await next_request(service)]
        while len(numbers) != 10:  # the first of the burst may have been a connection of their own
            numbers = [parameters["list"] for _, parameters in await next_request(service)]
        assert sorted(numbers) == list(range(10, 20))
        await database.disconnect()
        assert len(service.server.requests) <= 10


async def test_the_same_parameters_in_another_spelling_are_the_same_subscription(database: PowerSyncDatabase) -> None:
    """As another SDK, or another order, may have written them into the file."""
    await database.execute(
        "INSERT INTO ps_stream_subscriptions(stream_name, local_params, ttl, expires_at)"
        """ VALUES ('todos', '{"b": 1, "a": [null]}', 60, 9000000000000000)"""
    )
    todos = database.sync_stream("todos", {"a": [None], "b": 1})
    async with await todos.subscribe(ttl=timedelta(seconds=90)):
        assert [row[1:3] for row in await rows(database, SUBSCRIPTIONS)] == [['{"b": 1, "a": [null]}', 90]]
    await todos.unsubscribe_all()
    assert await rows(database, SUBSCRIPTIONS) == []
    # Our own spelling is that of the SDKs' apps.
    await todos.subscribe()
    assert (await rows(database, SUBSCRIPTIONS))[0][1] == '{"a":[null],"b":1}'


@pytest.mark.parametrize("parameters", [{"a": object()}, {"a": float("nan")}])
def test_parameters_that_are_not_json_are_refused(parameters: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError)):
        PowerSyncDatabase(tmp_path / "c.db", SCHEMA).sync_stream("todos", parameters)
