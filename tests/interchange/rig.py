"""Two clients side by side, this engine and PowerSync's core, to whom the same happens."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sync import PowerSyncDatabase, SyncOptions
from tests.interchange.core import Core
from tests.kit.contents import contents
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, ServiceConnector

TRANSCRIPTS = Path(__file__).parents[1] / "fixtures" / "transcripts"
NAMES = sorted(path.stem for path in TRANSCRIPTS.glob("*.ndjson"))
DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Transcript:
    """Real lines of a service, the request that they answered, and after which of them a checkpoint was complete."""

    lines: list[str]
    request: dict[str, Any]
    stops: list[int]

    @classmethod
    def load(cls, name: str) -> Transcript:
        lines = (TRANSCRIPTS / f"{name}.ndjson").read_text().splitlines()
        expected = json.loads((TRANSCRIPTS / f"{name}.expected.json").read_text())
        return cls(lines, expected["request"], [checkpoint["after_line"] for checkpoint in expected["checkpoints"]])

    @property
    def complete_stops(self) -> list[int]:
        """Those after which all buckets were complete, not only those of some priority."""
        return [stop for stop in self.stops if "checkpoint_complete" in json.loads(self.lines[stop - 1])]

    @property
    def include_defaults(self) -> bool:
        return self.request["streams"]["include_defaults"]

    @property
    def subscriptions(self) -> list[dict[str, Any]]:
        return self.request["streams"]["subscriptions"]


def checkpoint_after(lines: list[str]) -> dict[str, Any]:
    """The checkpoint that a service would begin a new stream with after these lines."""
    checkpoint: dict[str, Any] = {}
    for line in map(json.loads, lines):
        if "checkpoint" in line:
            checkpoint = line["checkpoint"]
        elif diff := line.get("checkpoint_diff"):
            changed = {bucket["bucket"]: bucket for bucket in diff["updated_buckets"]}
            gone = {*diff["removed_buckets"], *changed}
            kept = [bucket for bucket in checkpoint["buckets"] if bucket["bucket"] not in gone]
            checkpoint = {**checkpoint, "last_op_id": diff["last_op_id"], "buckets": [*kept, *changed.values()]}
    return checkpoint


def query_of(path: Path) -> Callable[[str], list[list[Any]]]:
    """Look into a file with the SQLite of this Python."""

    def query(sql: str) -> list[list[Any]]:
        with closing(sqlite3.connect(path, timeout=10)) as connection:
            return [list(row) for row in connection.execute(sql)]

    return query


async def prepare(database: PowerSyncDatabase, transcript: Transcript) -> None:
    """Bring a file of this engine to where the transcript's request came from."""
    for bucket in transcript.request["buckets"]:
        await database.execute(
            "INSERT INTO ps_buckets(name, last_op) VALUES (?, ?)", (bucket["name"], int(bucket["after"]))
        )
    for wish in transcript.subscriptions:
        stream = database.sync_stream(wish["stream"], wish["parameters"])
        await stream.subscribe(ttl=timedelta(seconds=DAY), priority=wish["override_priority"])


def prepare_core(core: Core, transcript: Transcript) -> None:
    """Bring a file of the core to where the transcript's request came from."""
    for bucket in transcript.request["buckets"]:
        core.execute("INSERT INTO ps_buckets(name, last_op) VALUES (?, ?)", [bucket["name"], int(bucket["after"])])
    for wish in transcript.subscriptions:
        core.subscribe(wish["stream"], wish["parameters"], DAY, wish["override_priority"])


@dataclass
class Feed:
    """A stream that an engine is connected to, line by line in the hands of a test."""

    url: str
    exchanges: list[Exchange] = field(default_factory=list[Exchange])
    connected: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, lines: list[str]) -> None:
        async with asyncio.timeout(10):
            await self.connected.wait()
            await self.exchanges[-1].send("".join(f"{line}\n" for line in lines))


@asynccontextmanager
async def feed() -> AsyncGenerator[Feed]:
    """A service that holds the first stream open for the test; later ones stay silent.

    Its answers to requests for a checkpoint are all 404, as those of a service without that endpoint.
    """

    async def service(exchange: Exchange) -> None:
        if exchange.path != "/sync/stream":
            await exchange.answer(404, {})
            return
        await exchange.begin_stream()
        source.exchanges.append(exchange)
        source.connected.set()
        await exchange.closed_by_client()

    async with scripted_service(service) as server:
        source = Feed(server.url)
        yield source


@asynccontextmanager
async def connected(
    database: PowerSyncDatabase, *, include_defaults: bool = True, retry_delay: float = QUICK.retry_delay
) -> AsyncGenerator[Feed]:
    """Let a database of this engine sync from a feed. Its uploads never get an answer."""
    never = asyncio.Event()

    async def upload(_: PowerSyncDatabase) -> None:
        await never.wait()

    async with feed() as source:
        options = SyncOptions(
            crud_throttle=0, retry_delay=retry_delay, max_retry_delay=60, include_default_streams=include_defaults
        )
        await database.connect(ServiceConnector(source.url, upload), options)
        try:
            yield source
        finally:
            await database.disconnect()


async def until_same(path: Path, expected: dict[str, Any], without: tuple[str, ...] = ()) -> None:
    """Wait until the file of this engine holds what another holds."""
    wanted = {name: rows for name, rows in expected.items() if name not in without}
    query = query_of(path)
    deadline = asyncio.get_running_loop().time() + 10
    while True:
        found = {name: rows for name, rows in contents(query).items() if name not in without}
        if found == wanted or asyncio.get_running_loop().time() > deadline:
            assert found == wanted
            return
        await asyncio.sleep(0.01)
