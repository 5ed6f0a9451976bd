"""What the tests of the backend share: a running backend, a user's client, and a replica that checks what it is sent.

Everything goes through real HTTP; nothing here imports the backend's inner modules.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.backend import BackendConfig, serve

WAIT_SECONDS = 30.0

# Below the ports that systems give to outgoing connections; each worker of the tests has a range of its own.
_PORTS = itertools.cycle(range(20_000, 20_500))


def free_port() -> int:
    """A loopback port that nobody listens on, and that no other test is given soon."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = next(_PORTS) + 500 * (worker % 20)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@asynccontextmanager
async def running(config: BackendConfig) -> AsyncGenerator[str]:
    """A backend in this process, stopped at the end; gives its base URL."""
    stop = asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(config, stop=stop, on_ready=ready.set_result))
    try:
        await asyncio.wait({serving, ready}, timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        yield ready.result()
    finally:
        stop.set()
        async with asyncio.timeout(WAIT_SECONDS):
            await serving


@asynccontextmanager
async def signed_in(url: str, user_id: str, *, receive_buffer: int | None = None) -> AsyncGenerator[User]:
    """A client with a fresh token of `user_id`, whose system takes `receive_buffer` bytes that it has not read yet."""
    options = [] if receive_buffer is None else [(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)]
    transport = httpx.AsyncHTTPTransport(socket_options=options)
    async with httpx.AsyncClient(base_url=url, timeout=WAIT_SECONDS, transport=transport) as http:
        answer = await http.get("/api/auth/token", params={"user_id": user_id})
        assert answer.status_code == 200, answer.text
        token = answer.json()["token"]
        http.headers["Authorization"] = f"Token {token}"
        yield User(http, user_id, token)


def put(table: str, row_id: str, **data: Any) -> dict[str, Any]:
    return {"op": "PUT", "table": table, "id": row_id, "data": data}


def patch(table: str, row_id: str, **data: Any) -> dict[str, Any]:
    return {"op": "PATCH", "table": table, "id": row_id, "data": data}


def delete(table: str, row_id: str) -> dict[str, Any]:
    return {"op": "DELETE", "table": table, "id": row_id}


def subscription(stream: str, parameters: Any = None, priority: int | None = None) -> dict[str, Any]:
    return {"stream": stream, "parameters": parameters, "override_priority": priority}


def todos_of(*list_ids: str) -> list[dict[str, Any]]:
    return [subscription("todos", {"list": list_id}) for list_id in list_ids]


@dataclass
class User:
    """One user's requests."""

    http: httpx.AsyncClient
    user_id: str
    token: str

    async def try_write(self, *entries: dict[str, Any]) -> httpx.Response:
        return await self.http.post("/api/data", json={"batch": list(entries)})

    async def write(self, *entries: dict[str, Any]) -> None:
        answer = await self.try_write(*entries)
        assert answer.status_code == 200, answer.text

    @asynccontextmanager
    async def stream(
        self,
        subscriptions: list[dict[str, Any]] | None = None,
        *,
        include_defaults: bool = True,
        **request: Any,
    ) -> AsyncGenerator[Lines]:
        """An open sync stream."""
        body = {
            "buckets": [],
            "include_checksum": True,
            "raw_data": True,
            "client_id": "client",
            "streams": {"include_defaults": include_defaults, "subscriptions": subscriptions or []},
            **request,
        }
        async with self.http.stream("POST", "/sync/stream", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"] == "application/x-ndjson"
            yield Lines(_split(answer.aiter_bytes()))

    async def synced(self, *list_ids: str, **request: Any) -> Replica:
        """A replica after one complete checkpoint."""
        replica = Replica()
        async with self.stream(todos_of(*list_ids), **request) as lines:
            await replica.take_checkpoint(lines)
        return replica


async def _split(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The lines of `chunks`: only a line feed ends one, while str.splitlines knows many more ends."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    assert rest == b""


class Lines:
    """The lines of one stream, decoded."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source

    async def next(self) -> tuple[str, Any]:
        """The next line as its key and its content."""
        async with asyncio.timeout(WAIT_SECONDS):
            line = json.loads(await anext(self._source))
        ((key, content),) = line.items()
        return key, content

    async def rest(self) -> list[tuple[str, Any]]:
        """All lines up to a clean end of the stream."""
        lines: list[tuple[str, Any]] = []
        while True:
            try:
                lines.append(await self.next())
            except StopAsyncIteration:
                return lines

    async def checkpoint(self) -> list[tuple[str, Any]]:
        """All lines up to and with the next checkpoint_complete."""
        lines = [await self.next()]
        while lines[-1][0] != "checkpoint_complete":
            lines.append(await self.next())
        return lines


@dataclass
class Replica:
    """A client's copy: every op of every bucket, checked line by line as a strict client would."""

    target: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    ops: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, list[dict[str, Any]]])
    last_op_id: int = 0
    write_checkpoint: int | None = None
    streams: list[str] = field(default_factory=list[str])
    is_compacted: bool = False
    """Whether the service may compact meanwhile: it then has fewer operations than a client that had them before."""
    _open: set[str] = field(default_factory=set[str])

    async def take_checkpoint(self, lines: Lines) -> list[str]:
        """Take lines until a checkpoint is complete; gives their keys."""
        keys: list[str] = []
        while "checkpoint_complete" not in keys:
            key, content = await lines.next()
            keys.append(key)
            self.take(key, content)
        return keys

    def take(self, key: str, content: Any) -> None:
        """Take one line."""
        getattr(self, f"_take_{key}")(content)

    def positions(self) -> list[dict[str, str]]:
        """What a request to resume says."""
        return [{"name": name, "after": str(self._after(name))} for name in self.ops]

    def forget_target(self) -> None:
        """Begin a new connection."""
        self._open.clear()
        self.last_op_id = 0

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """The present rows of a table, by id: of the newest op of each row and bucket, the newest."""
        newest: dict[tuple[str, str, str], dict[str, Any]] = {}
        for name, ops in self.ops.items():
            for op in ops:
                if "object_id" in op:
                    newest[name, op["object_id"], op["subkey"]] = op
        kept = sorted((op for op in newest.values() if op["op"] == "PUT"), key=lambda op: int(op["op_id"]))
        rows = [json.loads(op["data"]) for op in kept if op["object_type"] == table]
        return {row["id"]: row for row in rows}

    def bucket(self, stream: str, *, containing: str = "") -> str:
        """The one bucket of the target that belongs to `stream` and whose name contains the text."""
        (name,) = [name for name in self.target if f"#{stream}|" in name and containing in name]
        return name

    def _after(self, name: str) -> int:
        ops = self.ops.get(name)
        return int(ops[-1]["op_id"]) if ops else 0

    def _take_checkpoint(self, content: dict[str, Any]) -> None:
        assert not self._open
        self.target = {bucket["bucket"]: bucket for bucket in content["buckets"]}
        self.ops = {name: ops for name, ops in self.ops.items() if name in self.target}
        self.streams = [stream["name"] for stream in content["streams"]]
        self._aim(content)

    def _take_checkpoint_diff(self, content: dict[str, Any]) -> None:
        # An overtaken download goes on from where it was.
        assert "streams" not in content
        for name in content["removed_buckets"]:
            del self.target[name]
            self.ops.pop(name, None)
            self._open.discard(name)
        for bucket in content["updated_buckets"]:
            self.target[bucket["bucket"]] = bucket
        self._aim(content)

    def _aim(self, content: dict[str, Any]) -> None:
        assert int(content["last_op_id"]) >= self.last_op_id
        self.last_op_id = int(content["last_op_id"])
        self.write_checkpoint = int(content["write_checkpoint"]) if "write_checkpoint" in content else None

    def _take_data(self, content: dict[str, Any]) -> None:
        name = content["bucket"]
        data = content["data"]
        assert int(content["after"]) == self._after(name)
        assert 0 < len(data) <= 1000
        ids = [int(op["op_id"]) for op in data]
        assert ids == sorted(set(ids))
        assert int(content["after"]) < ids[0]
        assert ids[-1] == int(content["next_after"]) <= self.last_op_id
        assert all(0 <= op["checksum"] < 2**32 for op in data)
        ops = self.ops.setdefault(name, [])
        for op in data:
            if op["op"] == "CLEAR":
                ops.clear()
            ops.append(op)
        (self._open.add if content["has_more"] else self._open.discard)(name)

    def _take_partial_checkpoint_complete(self, content: dict[str, Any]) -> None:
        self._verify(content, content["priority"])

    def _take_checkpoint_complete(self, content: dict[str, Any]) -> None:
        self._verify(content, 3)

    def _verify(self, content: dict[str, Any], priority: int) -> None:
        assert int(content["last_op_id"]) == self.last_op_id
        for name, bucket in self.target.items():
            if bucket["priority"] <= priority:
                assert name not in self._open
                ops = self.ops.get(name, [])
                total = sum(op["checksum"] for op in ops) % 2**32
                assert bucket["checksum"] == (total - 2**32 if total >= 2**31 else total), name
                if not self.is_compacted:
                    assert bucket["count"] == len(ops)
