"""A file in which a large first download broke off, in the hands of PowerSync's core, and here again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from sync import PowerSyncDatabase, SyncOptions
from sync.client import stream_connection
from tests.interchange.core import Core
from tests.interchange.rig import Feed, Transcript, checkpoint_after, feed, prepare, prepare_core, query_of, until_same
from tests.kit.contents import contents
from tests.sync.rig import SCHEMA, ServiceConnector, rows, within

OPTIONS = SyncOptions(crud_throttle=0, retry_delay=60, max_retry_delay=60)
STAGED = "SELECT name FROM sqlite_master WHERE name GLOB 'ps_staged_*'"


@pytest.fixture(params=["lifecycle", "priorities"])
def transcript(request: pytest.FixtureRequest) -> Transcript:
    return Transcript.load(request.param)


async def break_off(path: Path, transcript: Transcript, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a file whose data has come, line by line as if each were large, without the end of the checkpoint."""
    monkeypatch.setattr(stream_connection, "_TAKE_IN_BYTES", 1)
    begun = transcript.lines[: transcript.stops[0] - 1]
    assert any("data" in json.loads(line) for line in begun)
    async with PowerSyncDatabase(path, SCHEMA) as database, feed() as source:
        await prepare(database, transcript)
        await database.connect(ServiceConnector(source.url), OPTIONS)
        await source.send(begun)
        async with asyncio.timeout(10):
            while not query_of(path)(STAGED):
                await asyncio.sleep(0.01)
        await database.disconnect()
    assert query_of(path)("SELECT count(*) FROM ps_staged_oplog")[0][0] > 0
    assert query_of(path)("SELECT count(*) FROM ps_oplog") == [[0]]


async def asked_for(source: Feed) -> dict[str, str]:
    """The positions from which a connection asks for more."""
    await within(10, source.connected.wait())
    return {bucket["name"]: bucket["after"] for bucket in source.exchanges[0].json["buckets"]}


async def test_the_core_downloads_it_all_and_this_engine_goes_on_from_there(
    transcript: Transcript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "half.db"
    await break_off(path, transcript, monkeypatch)
    first, second = transcript.complete_stops[:2]
    with Core(tmp_path / "control.db") as control:
        control.open(SCHEMA)
        prepare_core(control, transcript)
        control.start(include_defaults=transcript.include_defaults)
        with Core(path) as core:
            core.open(SCHEMA)
            request = core.start(include_defaults=transcript.include_defaults)
            # It knows nothing of what is staged.
            assert {bucket["after"] for bucket in request["buckets"]} <= {"0"}
            for client in (core, control):
                client.lines(transcript.lines[:first])
            assert contents(core.execute) == contents(control.execute)
            core.control("stop")
        assert query_of(path)(STAGED)
        positions = dict(control.execute("SELECT name, CAST(last_op AS TEXT) FROM ps_buckets"))
        async with PowerSyncDatabase(path, SCHEMA) as database, feed() as source:
            assert database.status.has_synced
            assert await rows(database, "SELECT * FROM lists ORDER BY id") == control.execute(
                "SELECT * FROM lists ORDER BY id"
            )
            await database.connect(ServiceConnector(source.url), OPTIONS)
            assert await asked_for(source) == positions
            assert query_of(path)(STAGED) == []
            begun = json.dumps({"checkpoint": checkpoint_after(transcript.lines[:first])})
            await source.send([begun, *transcript.lines[first:second]])
            control.lines(transcript.lines[first:second])
            await until_same(path, contents(control.execute))
            await database.disconnect()
        control.control("stop")


async def test_what_another_client_cleared_is_gone(
    transcript: Transcript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "half.db"
    await break_off(path, transcript, monkeypatch)
    with Core(path) as core:
        core.open(SCHEMA)
        with core.transaction():
            core.execute("SELECT powersync_clear(1)")
    async with PowerSyncDatabase(path, SCHEMA) as database, feed() as source:
        await database.connect(ServiceConnector(source.url), OPTIONS)
        assert await asked_for(source) == {}
        assert query_of(path)(STAGED) == []
        await source.send(transcript.lines[: transcript.complete_stops[0]])
        await within(10, database.wait_for_first_sync())
        await database.disconnect()
