"""Real traffic of a PowerSync Service, replayed over HTTP; after each checkpoint the file must be as the reference
client's was.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sync import PowerSyncDatabase, SyncOptions
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, SCHEMA, ServiceConnector, rows, within

TRANSCRIPTS = Path(__file__).parents[1] / "fixtures" / "transcripts"
NAMES = sorted(path.stem for path in TRANSCRIPTS.glob("*.ndjson"))

# The service answered three subscriptions, of which the file keeps two: the same stream stands there once.
SENT_OTHERWISE = {"duplicate-subscription-two-priorities"}


def load(name: str) -> tuple[list[str], dict[str, Any]]:
    lines = (TRANSCRIPTS / f"{name}.ndjson").read_text().splitlines()
    return lines, json.loads((TRANSCRIPTS / f"{name}.expected.json").read_text())


async def state_of(database: PowerSyncDatabase) -> dict[str, list[list[Any]]]:
    return {
        "lists": await rows(database, "SELECT id, created_at, name, owner_id FROM lists ORDER BY id"),
        "todos": await rows(
            database,
            "SELECT id, list_id, created_at, completed_at, description, completed, created_by, completed_by"
            " FROM todos ORDER BY id",
        ),
        "ps_buckets": await rows(
            database,
            "SELECT name, last_op, last_applied_op, add_checksum, op_checksum, count_at_last, count_since_last"
            " FROM ps_buckets ORDER BY name",
        ),
        "ps_oplog": await rows(
            database,
            "SELECT b.name, op_id, row_type, row_id, key, hash FROM ps_oplog o JOIN ps_buckets b ON b.id = o.bucket"
            " ORDER BY b.name, op_id",
        ),
        "ps_updated_rows": await rows(database, "SELECT row_type, row_id FROM ps_updated_rows"),
        "ps_untyped": await rows(database, "SELECT type, id, data FROM ps_untyped ORDER BY type, id"),
        "ps_kv": await rows(database, "SELECT key, value FROM ps_kv WHERE key <> 'client_id' ORDER BY key"),
        "ps_sync_state": [row[0] for row in await rows(database, "SELECT priority FROM ps_sync_state ORDER BY 1")],
        "ps_stream_subscriptions": await rows(
            database,
            "SELECT stream_name, active, is_default, local_priority, json(local_params), ttl,"
            " last_synced_at IS NOT NULL FROM ps_stream_subscriptions ORDER BY id",
        ),
    }


def expected_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    state = {key: value for key, value in checkpoint.items() if key not in {"after_line", "line"}}
    for row in state["ps_stream_subscriptions"]:
        row[4] = json.dumps(json.loads(row[4]), separators=(",", ":"))
    for key in ("lists", "todos", "ps_buckets", "ps_oplog", "ps_untyped", "ps_kv"):
        state[key] = sorted(state[key], key=lambda row: row[:2])
    # The reference client was driven from Python, which puts spaces into JSON; the SDKs' own apps write none.
    for row in state["ps_stream_subscriptions"]:
        row[4] = json.dumps(json.loads(row[4]), separators=(",", ":"))
    return state


async def prepare(database: PowerSyncDatabase, request: dict[str, Any]) -> None:
    """Bring the file to where the transcript's request came from."""
    for bucket in request["buckets"]:
        await database.execute(
            "INSERT INTO ps_buckets(name, last_op) VALUES (?, ?)", (bucket["name"], int(bucket["after"]))
        )
    for subscription in request["streams"]["subscriptions"]:
        stream = database.sync_stream(subscription["stream"], subscription["parameters"])
        await stream.subscribe(ttl=timedelta(days=1), priority=subscription["override_priority"])


@pytest.mark.parametrize("name", NAMES)
async def test_after_every_checkpoint_the_file_is_as_the_reference_clients(name: str, tmp_path: Path) -> None:
    lines, expected = load(name)
    request = expected["request"]
    closed_after: int | None = expected["closed_after_line"]
    go_on: asyncio.Queue[int] = asyncio.Queue()
    streams: asyncio.Queue[Exchange] = asyncio.Queue()

    async def service(exchange: Exchange) -> None:
        assert exchange.path == "/sync/stream"
        await exchange.begin_stream()
        is_first = len(server.requests) == 1
        await streams.put(exchange)
        if is_first:
            sent = 0
            while sent < len(lines):
                until = await go_on.get()
                await exchange.send("".join(f"{line}\n" for line in lines[sent:until]))
                sent = until
        await exchange.closed_by_client()
        if is_first:
            closed.set()

    closed = asyncio.Event()
    new_token = asyncio.Event()

    async def tokens(count: int) -> str:
        if count > 1:
            await new_token.wait()
        return f"token-{count}"

    async with (
        PowerSyncDatabase(tmp_path / "client.db", SCHEMA) as database,
        scripted_service(service) as server,
    ):
        await prepare(database, request)
        options = SyncOptions(
            crud_throttle=0,
            retry_delay=QUICK.retry_delay,
            include_default_streams=request["streams"]["include_defaults"],
        )
        await database.connect(ServiceConnector(server.url, tokens=tokens), options)
        sent = (await within(10, streams.get())).json
        assert sent["buckets"] == request["buckets"]
        assert (sent["include_checksum"], sent["raw_data"]) == (True, True)
        assert set(sent["streams"]["subscriptions"][0] if sent["streams"]["subscriptions"] else ()) <= {
            "stream",
            "parameters",
            "override_priority",
        }
        if name not in SENT_OTHERWISE:
            assert sent["streams"] == request["streams"]

        published = database.watch("SELECT * FROM ps_sync_state", throttle=0)
        await anext(published)
        for checkpoint in expected["checkpoints"]:
            go_on.put_nowait(checkpoint["after_line"])
            if closed_after == checkpoint["after_line"]:
                await within(10, closed.wait())
            else:
                await within(10, anext(published))
            assert await state_of(database) == expected_state(checkpoint), checkpoint["after_line"]

        go_on.put_nowait(len(lines))
        if closed_after is None:
            assert not closed.is_set()
        else:
            await within(10, closed.wait())
            new_token.set()
            await within(10, streams.get())  # it connects again by itself
        await database.disconnect()


async def test_a_changed_checksum_is_refused_and_the_client_recovers(tmp_path: Path) -> None:
    """What was visible stays, only the bucket at fault downloads afresh, and the next checkpoint is published."""
    lines, _ = load("lifecycle")
    first_checkpoint, update = lines[:4], lines[4:7]
    spoiled = [update[0].replace('"checksum":1448548753', '"checksum":1448548754'), *update[1:]]
    assert spoiled != update
    streams: asyncio.Queue[Exchange] = asyncio.Queue()
    go_on = asyncio.Event()

    async def service(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await streams.put(exchange)
        if len(server.requests) == 1:
            await exchange.send("\n".join(first_checkpoint) + "\n")
            await go_on.wait()
            await exchange.send("\n".join(spoiled) + "\n")
        else:
            await go_on_again.wait()
            bucket = '1#todos|0["11111111-1111-4111-8111-111111111111"]'
            checkpoint = json.loads(first_checkpoint[0])
            checkpoint["checkpoint"]["last_op_id"] = "6"
            checkpoint["checkpoint"]["buckets"][1] = json.loads(update[0])["checkpoint_diff"]["updated_buckets"][0]
            assert checkpoint["checkpoint"]["buckets"][1]["bucket"] == bucket
            data = json.loads(first_checkpoint[2])
            data["data"]["data"] += json.loads(update[1])["data"]["data"]
            for line in (checkpoint, data, {"checkpoint_complete": {"last_op_id": "6"}}):
                await exchange.send_line(line)
        await exchange.closed_by_client()

    go_on_again = asyncio.Event()
    async with (
        PowerSyncDatabase(tmp_path / "client.db", SCHEMA) as database,
        scripted_service(service) as server,
    ):
        await database.connect(ServiceConnector(server.url), QUICK)
        todos = database.watch("SELECT description FROM todos ORDER BY created_at, description", throttle=0)
        await within(10, streams.get())
        visible = [list(row) for row in await within(10, anext(todos))]
        if not visible:
            visible = [list(row) for row in await within(10, anext(todos))]
        assert visible == [["Bread"], ["Milk"]]
        before = await state_of(database)

        go_on.set()
        again = await within(10, streams.get())
        assert again.json["buckets"] == [{"name": "1#lists|0[]", "after": "5"}]
        after = await state_of(database)
        assert (after["lists"], after["todos"]) == (before["lists"], before["todos"])
        error = database.status.download_error
        assert error is None or "checksums" in str(error)

        go_on_again.set()
        assert [list(row) for row in await within(10, anext(todos))] == [["Bread"], ["Milk"], ["Eggs"]]
        await database.disconnect()
