"""The same lines of a service leave the same file, in this engine and in PowerSync's core."""

from __future__ import annotations

from pathlib import Path

import pytest

from sync import PowerSyncDatabase
from tests.interchange.core import Core
from tests.interchange.rig import NAMES, Transcript, connected, prepare, prepare_core, until_same
from tests.kit.contents import contents
from tests.sync.rig import SCHEMA

WRITES = [
    "INSERT INTO lists(id, name) VALUES ('mine', 'Mine')",
    "UPDATE lists SET name = 'Ours' WHERE id = 'mine'",
    "INSERT INTO todos(id, list_id, completed) VALUES ('t', 'mine', 0)",
    "DELETE FROM todos WHERE id = 't'",
]


@pytest.mark.parametrize("name", NAMES)
async def test_after_every_checkpoint_both_files_hold_the_same(name: str, tmp_path: Path) -> None:
    transcript = Transcript.load(name)
    ours = tmp_path / "ours.db"
    with Core(tmp_path / "core.db") as core:
        core.open(SCHEMA)
        prepare_core(core, transcript)
        core.start(include_defaults=transcript.include_defaults)
        async with PowerSyncDatabase(ours, SCHEMA) as database:
            await prepare(database, transcript)
            sent = 0
            async with connected(database, include_defaults=transcript.include_defaults, retry_delay=60) as source:
                for stop in transcript.stops:
                    core.lines(transcript.lines[sent:stop])
                    await source.send(transcript.lines[sent:stop])
                    await until_same(ours, contents(core.execute))
                    sent = stop
        await until_same(ours, contents(core.execute))


@pytest.mark.parametrize("name", NAMES)
async def test_with_local_writes_waiting_both_hold_back_the_same(name: str, tmp_path: Path) -> None:
    transcript = Transcript.load(name)
    ours = tmp_path / "ours.db"
    with Core(tmp_path / "core.db") as core:
        core.open(SCHEMA)
        prepare_core(core, transcript)
        async with PowerSyncDatabase(ours, SCHEMA) as database:
            await prepare(database, transcript)
            for sql in WRITES:
                core.execute(sql)
                await database.execute(sql)
            assert contents(core.execute)["ps_crud"]
            core.start(include_defaults=transcript.include_defaults)
            async with connected(database, include_defaults=transcript.include_defaults, retry_delay=60) as source:
                core.lines(transcript.lines[: transcript.stops[-1]])
                await source.send(transcript.lines[: transcript.stops[-1]])
                await until_same(ours, contents(core.execute))
        await until_same(ours, contents(core.execute))
