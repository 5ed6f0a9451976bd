"""The kit itself: its faults are what they are called, and its model holds together."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from tests.kit.small_service import (
    LISTS,
    STREAM,
    SmallService,
    at_line,
    drop,
    flip_checksum,
    late,
    lose_answer,
    refuse,
    small_service,
    swallow,
)


@pytest.fixture
async def service() -> AsyncGenerator[SmallService]:
    async with small_service() as service:
        yield service


@pytest.fixture
async def client(service: SmallService) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, trust_env=False, verify=False, timeout=0.5) as client:
        yield client


async def lines(client: httpx.AsyncClient, count: int = 3) -> list[Any]:
    """The first lines of a new stream."""
    token = (await client.get("/token")).json()["token"]
    body = {"buckets": [], "client_id": "c", "streams": {"include_defaults": True, "subscriptions": []}}
    found: list[Any] = []
    async with client.stream("POST", STREAM, json=body, headers={"Authorization": f"Token {token}"}) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            found.append(json.loads(line))
            if len(found) == count:
                break
    return found


def upload(number: int) -> dict[str, Any]:
    return {"crud": [{"number": number, "op": "PUT", "table": "lists", "id": f"r{number}", "data": {"name": "x"}}]}


async def test_a_checkpoint_adds_up_over_changes(service: SmallService, client: httpx.AsyncClient) -> None:
    for data in ({"name": "first"}, {"name": "second"}, None, {"name": "third"}):
        service.write("lists", "a", data)
    checkpoint, data, complete = await lines(client)
    (bucket,) = checkpoint["checkpoint"]["buckets"]
    operations = data["data"]["data"]
    assert [operation["op"] for operation in operations] == ["PUT", "PUT", "REMOVE", "PUT"]
    assert (sum(operation["checksum"] for operation in operations) - bucket["checksum"]) % 2**32 == 0
    assert complete["checkpoint_complete"]["last_op_id"] == checkpoint["checkpoint"]["last_op_id"] == "4"


async def test_faults_of_a_request_are_what_they_are_called(service: SmallService, client: httpx.AsyncClient) -> None:
    service.next("/upload", refuse(503, "CODE", retry_after="7"), drop(), swallow(), lose_answer(), late(0.1))
    refused = await client.post("/upload", json=upload(1))
    assert (refused.status_code, refused.headers["retry-after"], refused.json()["error"]["code"]) == (503, "7", "CODE")
    with pytest.raises(httpx.TransportError):
        await client.post("/upload", json=upload(1))
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/upload", json=upload(1))
    assert service.uploads == []
    with pytest.raises(httpx.TransportError):
        await client.post("/upload", json=upload(1))
    before = time.monotonic()
    assert (await client.post("/upload", json=upload(2))).status_code == 200
    assert time.monotonic() - before >= 0.1
    assert [(upload.numbers, upload.answered) for upload in service.uploads] == [((1,), False), ((2,), True)]


async def test_faults_of_a_stream_are_what_they_are_called(service: SmallService, client: httpx.AsyncClient) -> None:
    service.write("lists", "a", {"name": "x"})
    right = (await lines(client))[0]["checkpoint"]["buckets"][0]["checksum"]
    service.next(STREAM, flip_checksum(LISTS))
    assert (await lines(client))[0]["checkpoint"]["buckets"][0]["checksum"] == right ^ 1
    service.next(STREAM, at_line(2, "end"), at_line(1, "drop"), at_line(1, "swallow"))
    assert len(await lines(client)) == 2
    with pytest.raises(httpx.HTTPError):
        await lines(client)
    with pytest.raises(httpx.ReadTimeout):
        await lines(client)


async def test_a_frozen_service_answers_nobody_and_resets_nothing(
    service: SmallService, client: httpx.AsyncClient
) -> None:
    reading = asyncio.create_task(lines(client, 3))
    async with asyncio.timeout(10):
        while not service.bodies[STREAM]:
            await asyncio.sleep(0.001)
    service.freeze()
    service.write("lists", "a", {"name": "x"})
    with pytest.raises(httpx.ReadTimeout):
        await reading
    with pytest.raises(httpx.ReadTimeout):
        await client.get("/token")
    service.thaw()
    assert len(await lines(client)) == 3


async def test_expired_tokens_end_streams_and_are_refused(service: SmallService, client: httpx.AsyncClient) -> None:
    reading = asyncio.create_task(lines(client, 3))
    async with asyncio.timeout(10):
        while not service.bodies[STREAM]:
            await asyncio.sleep(0.001)
    service.expire_tokens()
    assert (await reading)[-1] == {"token_expires_in": 0}
    response = await client.post(STREAM, json={}, headers={"Authorization": "Token token-1"})
    assert response.status_code == 401


async def test_a_restart_keeps_the_port_and_the_data(service: SmallService, client: httpx.AsyncClient) -> None:
    await client.post("/upload", json=upload(1))
    await service.stop()
    with pytest.raises(httpx.ConnectError):
        await client.get("/token")
    await service.start()
    assert (await lines(client))[1]["data"]["bucket"] == LISTS
