"""The same connector against recorded exchanges of the official backends, and specified ones of the write API."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.connection.connector import HttpConnector
from app.connection.upload_interfaces import UploadInterfaceName
from sync import PowerSyncDatabase
from tests.kit.exchanges import OTHER_INTERFACES, SCENARIOS, SCHEMA, World, load, recorded_request, two_lists, uuid
from tests.kit.record_exchanges import give
from tests.kit.service import Exchange, scripted_service

BACKENDS: dict[str, UploadInterfaceName] = {"node": "batch", "django": "rows", "write-api": "transactions"}

REFUSED_EVERYWHERE = {
    "refused_row": [[uuid(2, 1), uuid(2, 2)]],
    "bad_id": [["an id that is not a UUID but longer than one"]],
    "unknown_table": [[uuid(4, 0)]],
}
REFUSED_BY_ONE = {
    ("node", "unknown_column"): [[uuid(5, 0)]],
    ("write-api", "unknown_column"): [[uuid(5, 0)]],
    ("django", "long_name"): [[uuid(6, 0)]],
    ("node", "long_text"): [[uuid(7, 1)]],
    ("django", "update_of_a_missing_row"): [[uuid(9, 0)]],
}
SENTENCES = {
    ("node", "refused_row"): ('null value in column "owner_id"', "400", None),
    ("django", "refused_row"): ('null value in column "owner_id"', "IntegrityError", 1),
    ("write-api", "refused_row"): ("The backend rejected it.", "23502", 1),
    ("node", "bad_id"): ("invalid input syntax for type uuid", "400", None),
    ("django", "bad_id"): ("value too long for type character varying(36)", "DataError", 0),
    ("node", "unknown_table"): ('type "notes" does not exist', "400", None),
    ("django", "unknown_table"): ("Expected a `Response`", "AssertionError", 0),
    ("node", "unknown_column"): ('column "colour" of relation "lists" does not exist', "400", None),
    ("django", "long_name"): ("value too long for type character varying(100)", "DataError", 0),
    ("node", "long_text"): ("(HTTP 413)", "413", None),
    ("django", "update_of_a_missing_row"): ("Lists matching query does not exist", "DoesNotExist", 0),
}


@asynccontextmanager
async def replayed(
    backend: str, scenario: str, directory: Path, interface: UploadInterfaceName | None = None
) -> AsyncGenerator[World]:
    """A world whose backend gives the recorded answers, each only to the very request that it was given to."""
    recording = load(backend)
    remaining: list[dict[str, Any]] = list(recording["scenarios"][scenario])
    token = ""

    async def handle(exchange: Exchange) -> None:
        nonlocal token
        assert remaining, f"{exchange.method} {exchange.target} comes after all that was recorded"
        recorded = remaining.pop(0)
        assert recorded_request(exchange) == recorded["request"]
        assert exchange.headers["accept"] == "application/json"
        if exchange.method == "GET":
            token = recorded["answer"].get("json", {}).get("token", "")
        else:
            assert exchange.headers["authorization"] == f"Bearer {token}"
        await give(exchange, recorded["answer"])

    async def nothing() -> None:
        """The answers know whether the backend has its database."""

    async with scripted_service(handle) as service, PowerSyncDatabase(directory / "todo.db", SCHEMA) as database:
        connector = HttpConnector(service.url, recording["user_id"], interface=interface or BACKENDS[backend])
        try:
            yield World(database, connector, recording["user_id"], nothing, nothing)
        finally:
            await connector.aclose()
    assert remaining == [], "not all that was recorded was asked for"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_same_connector_runs_through_what_every_backend_answers(
    backend: str, scenario: str, tmp_path: Path
) -> None:
    async with replayed(backend, scenario, tmp_path) as world:
        await SCENARIOS[scenario](world)
        assert await world.waiting() == []
        refused = REFUSED_EVERYWHERE.get(scenario) or REFUSED_BY_ONE.get((backend, scenario), [])
        assert await world.rejected() == refused
        rejected = await world.database.rejected_writes()
    if (expected := SENTENCES.get((backend, scenario))) is not None:
        assert [(each.code, each.operation_index) for each in rejected] == [expected[1:]]
        assert expected[0] in rejected[0].reason
        assert "\n" not in rejected[0].reason
    told_at_once = backend == "write-api" and scenario != "outage"
    troubles = {"outage": 5, "lost_answers": len(world.troubles)}.get(
        scenario, 2 if refused and not told_at_once else 0
    )
    assert len(world.troubles) == troubles


@pytest.mark.parametrize("backend", BACKENDS)
async def test_an_outage_is_waited_for_and_refuses_nothing(backend: str, tmp_path: Path) -> None:
    async with replayed(backend, "outage", tmp_path) as world:
        await SCENARIOS["outage"](world)
        assert [trouble.partition(":")[0] for trouble in world.troubles] == ["UploadRetryError"] * 5
        assert (await world.waiting(), await world.rejected()) == ([], [])


@pytest.mark.parametrize(
    ("backend", "scenario"),
    [("node", "as_write_api"), ("node", "as_rows"), ("django", "as_write_api"), ("django", "as_batch")],
)
async def test_at_a_backend_with_another_interface_everything_waits(
    backend: str, scenario: str, tmp_path: Path
) -> None:
    async with replayed(backend, scenario, tmp_path, OTHER_INTERFACES[scenario]) as world:
        await two_lists(world)
        assert await world.waiting() == [uuid(13, 0)] * 2
        assert await world.rejected() == []
        assert len(world.troubles) == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_recording_holds_no_secret(backend: str) -> None:
    text = json.dumps(load(backend))
    for exchanges in load(backend)["scenarios"].values():
        for exchange in exchanges:
            token = exchange["answer"].get("json", {}).get("token")
            assert token is None or token.endswith(".signature")
    assert "Bearer" not in text
    assert not any(trace in text for trace in ("Traceback", "/tmp/", "/home/", "/root/", "node_modules"))
