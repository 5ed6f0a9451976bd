"""A small sync service with its backend, on real sockets, and all that can go wrong with it.

Owns a model that is small but true: buckets with operations and checksums, checkpoints and diffs, write checkpoints,
tokens, and an upload endpoint that notes each transaction it was sent. A test queues faults for the next requests of a
path; what no fault concerns is answered rightly.

- stream `lists`, by default: all rows of the table `lists`; stream `todos` with the parameter `list`: those of a list.
- `GET /token` gives a token, `POST /upload` takes a transaction; the rest is the sync service's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import time
import zlib
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import httpx

from sync import BackendConnector, PowerSyncCredentials, PowerSyncDatabase
from tests.kit.service import Exchange, ScriptedService, scripted_service

STREAM = "/sync/stream"
CHECKPOINT = "/sync/checkpoint-request"
LEGACY_CHECKPOINT = "/write-checkpoint2.json"
UPLOAD = "/upload"
TOKEN = "/token"

LISTS = "1#lists|0[]"

Line = dict[str, Any]
LineFault = Callable[[Exchange, int, Line], Awaitable[Line]]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Attributes:
        instead: done instead of answering.
        late: seconds before anything is done.
        answer_lost: the request has its effect, but the connection breaks before the answer.
        line: changes each line of a stream, knowing its number, or breaks the stream off by a ConnectionError.
    """

    instead: Callable[[Exchange], Awaitable[None]] | None = None
    late: float = 0.0
    answer_lost: bool = False
    line: LineFault | None = None


def refuse(status: int, code: str = "", description: str = "Refused", retry_after: str | None = None) -> Fault:
    """An HTTP error with the service's own body."""

    async def answer(exchange: Exchange) -> None:
        error = {"code": code, "status": status, "description": description, "name": "Error"}
        await exchange.answer(status, {"error": error}, {"Retry-After": retry_after} if retry_after else None)

    return Fault(instead=answer)


def drop() -> Fault:
    """The connection breaks without an answer."""

    async def reset(exchange: Exchange) -> None:
        exchange.drop()

    return Fault(instead=reset)


def swallow() -> Fault:
    """A half-open connection: the request vanishes, and nobody says so."""
    return Fault(instead=Exchange.closed_by_client)


def late(seconds: float) -> Fault:
    """The right answer, but late."""
    return Fault(late=seconds)


def lose_answer() -> Fault:
    """The request has its effect, but its answer is lost."""
    return Fault(answer_lost=True)


def at_line(number: int, how: Literal["cut", "drop", "end", "swallow"]) -> Fault:
    """The stream breaks off at its line of this number, counted from 0."""

    async def break_off(exchange: Exchange, now: int, line: Line) -> Line:
        if now != number:
            return line
        match how:
            case "cut":
                text = json.dumps(line)
                await exchange.send(text[: len(text) // 2])
                exchange.drop()
            case "drop":
                exchange.drop()
            case "end":
                await exchange.end_stream()
                await exchange.closed_by_client()
            case "swallow":
                await exchange.closed_by_client()
        raise ConnectionResetError

    return Fault(line=break_off)


def change_line(kind: str, change: Callable[[Any], Any]) -> Fault:
    """The first line of this kind is changed on its way: `change` gets the whole line; a string is sent as it is."""
    is_done = False

    async def changed(exchange: Exchange, _: int, line: Line) -> Line:
        nonlocal is_done
        if is_done or kind not in line:
            return line
        is_done = True
        return change(copy.deepcopy(line))

    return Fault(line=changed)


def flip_checksum(bucket: str = LISTS) -> Fault:
    """The first checkpoint names a wrong checksum for a bucket."""

    def flip(line: Line) -> Line:
        for entry in line["checkpoint"]["buckets"]:
            if entry["bucket"] == bucket:
                entry["checksum"] ^= 1
        return line

    return change_line("checkpoint", flip)


@dataclass(frozen=True)
class Upload:
    """A transaction as it arrived, in the order of arrival.

    Attributes:
        numbers: of its entries in the device's upload queue.
        crud: its entries.
        answered: whether the device was told.
    """

    numbers: tuple[int, ...]
    crud: list[dict[str, Any]] = field(compare=False)
    answered: bool = field(compare=False)


class SmallService:
    """See the module. Made by `small_service`."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._address = address
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.uploads: list[Upload] = []
        self.requests: Counter[str] = Counter()
        self.bodies: dict[str, list[Any]] = defaultdict(list)
        self.headers: dict[str, list[dict[str, str]]] = defaultdict(list)
        self.write_checkpoints: dict[str, int] = {}
        self.knows_checkpoint_requests = True
        self.custom_checkpoints = False
        self.encoding: Literal["gzip", "zstd"] | None = None
        self.keepalive_seconds = 20.0
        self.token_seconds = 300.0
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._logs: dict[str, list[dict[str, Any]]] = {LISTS: []}
        self._sums: Counter[str] = Counter()
        self._last_op = 0
        self._tokens: dict[str, float] = {}
        self._tokens_given = 0
        self._custom = 0
        self._changed = asyncio.Event()
        self._open: set[Exchange] = set()
        self._frozen = False
        self._server = AsyncExitStack()
        self._running: ScriptedService | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://{self._address}:{self._port}"

    @property
    def streams(self) -> int:
        """Streams that are open now."""
        return sum(exchange.path == STREAM and not exchange.muted for exchange in self._open)

    @property
    def open_requests(self) -> int:
        """Requests that are not answered yet, or whose stream is open."""
        return len(self._open)

    def next(self, path: str, *faults: Fault) -> None:
        """Let the next requests of a path meet these faults, one each."""
        self._faults[path].extend(faults)

    @property
    def faults_left(self) -> int:
        return sum(map(len, self._faults.values()))

    # What a test does to it

    async def start(self) -> None:
        """Listen, at the same port as ever."""
        self._running = await self._server.enter_async_context(
            scripted_service(self._serve, self._port, address=self._address)
        )
        self._port = self._running.port

    async def stop(self) -> None:
        """Break all connections, and listen no more. Data, tokens and write checkpoints stay."""
        self._open.clear()
        await self._server.aclose()
        self._running = None

    def freeze(self) -> None:
        """Swallow what comes and goes, on all connections there are and on new ones."""
        self._frozen = True
        for exchange in self._open:
            exchange.muted = True

    def thaw(self) -> None:
        """Serve new connections; those that were swallowed stay so."""
        self._frozen = False

    def expire_tokens(self) -> None:
        """All tokens are expired: streams end as such, and new requests are refused."""
        self._tokens.clear()
        self._wake()

    def forget(self) -> None:
        """Everything but the tokens, for the next device."""
        self.rows.clear()
        self.uploads.clear()
        self.bodies.clear()
        self.headers.clear()
        self._faults.clear()
        self._logs = {LISTS: []}
        self._sums.clear()

    def write(self, table: str, row_id: str, data: dict[str, Any] | None) -> None:
        """Somebody else writes a row, or deletes it."""
        self._write(table, row_id, data)
        self._wake()

    # What it does

    async def _serve(self, exchange: Exchange) -> None:
        self.requests[exchange.path] += 1
        self.headers[exchange.path].append(exchange.headers)
        self._open.add(exchange)
        exchange.muted = self._frozen
        try:
            if exchange.muted:
                await exchange.closed_by_client()
                return
            queue = self._faults[exchange.path]
            fault = queue.popleft() if queue else Fault()
            await asyncio.sleep(fault.late)
            if fault.instead is not None:
                await fault.instead(exchange)
            else:
                await self._answer(exchange, fault)
        finally:
            self._open.discard(exchange)

    async def _answer(self, exchange: Exchange, fault: Fault) -> None:
        if exchange.body:
            self.bodies[exchange.path].append(exchange.json)
        if exchange.path.startswith(("/sync/", "/write-")) and self._token_left(exchange) <= 0:
            description = {"code": "PSYNC_S2103", "status": 401, "description": "JWT has expired", "name": "Error"}
            await exchange.answer(401, {"error": description})
            return
        match exchange.path:
            case "/sync/stream":
                await self._stream(exchange, fault)
                return
            case "/sync/checkpoint-request":
                status, answer = self._checkpoint_request(exchange.json)
            case "/write-checkpoint2.json":
                client_id = exchange.target.partition("client_id=")[2]
                checkpoint = self._reach(client_id, self.write_checkpoints.get(client_id, 0) + 1)
                status, answer = 200, {"data": {"write_checkpoint": str(checkpoint)}}
            case "/token":
                self._tokens_given += 1
                token = f"token-{self._tokens_given}"
                self._tokens[token] = time.time() + self.token_seconds
                status, answer = 200, {"token": token, "expires_at": self._tokens[token]}
            case "/upload":
                status, answer = 200, self._upload(exchange.json, answered=not fault.answer_lost)
            case _:
                status, answer = 404, {}
        if fault.answer_lost:
            exchange.drop()
        else:
            await exchange.answer(status, answer)

    def _checkpoint_request(self, request: Any) -> tuple[int, Any]:
        if not self.knows_checkpoint_requests:
            return 404, {}
        reached = self._reach(request["client_id"], int(request["checkpoint_request_id"]))
        return 200, {"data": {"checkpoint_request_id": str(reached)}}

    def _reach(self, client_id: str, checkpoint: int) -> int:
        self.write_checkpoints[client_id] = max(checkpoint, self.write_checkpoints.get(client_id, 0))
        self._wake()
        return self.write_checkpoints[client_id]

    def _upload(self, request: Any, *, answered: bool) -> Any:
        crud = request["crud"]
        self.uploads.append(Upload(tuple(entry["number"] for entry in crud), crud, answered))
        for entry in crud:
            before = self.rows.get((entry["table"], entry["id"]), {})
            data = entry["data"] or {}
            self._write(
                entry["table"],
                entry["id"],
                None if entry["op"] == "DELETE" else data if entry["op"] == "PUT" else before | data,
            )
        self._custom += 1
        self._wake()
        return {"checkpoint": self._custom if self.custom_checkpoints else None}

    def _write(self, table: str, row_id: str, data: dict[str, Any] | None) -> None:
        before = self.rows.pop((table, row_id), None)
        old, new = (None if row is None else self._bucket(table, row) for row in (before, data))
        if old is not None and old != new:
            self._log(old, "REMOVE", table, row_id, None)
        if data is not None and new is not None:
            self.rows[table, row_id] = data
            self._log(new, "PUT", table, row_id, json.dumps({"id": row_id, **data}))

    def _bucket(self, table: str, data: dict[str, Any]) -> str:
        return LISTS if table == "lists" else f"1#todos|0{json.dumps([data.get('list_id')])}"

    def _log(self, bucket: str, op: str, table: str, row_id: str, data: str | None) -> None:
        self._last_op += 1
        operation = {"op_id": str(self._last_op), "op": op, "object_type": table, "object_id": row_id, "subkey": "s"}
        checksum = zlib.crc32(json.dumps([bucket, operation, data]).encode())
        self._sums[bucket] += checksum
        self._logs.setdefault(bucket, []).append(operation | {"checksum": checksum, "data": data})

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _token_left(self, exchange: Exchange) -> float:
        token = exchange.headers.get("authorization", "").removeprefix("Token ")
        return self._tokens.get(token, 0.0) - time.time()

    async def _stream(self, exchange: Exchange, fault: Fault) -> None:
        request = exchange.json
        await exchange.begin_stream(self.encoding)
        connection = _Connection(self, exchange, fault, {b["name"]: int(b["after"]) for b in request["buckets"]})
        closed = asyncio.create_task(exchange.closed_by_client())
        try:
            while True:
                changed = self._changed
                if self._token_left(exchange) <= 0:
                    await connection.send({"token_expires_in": 0})
                    await exchange.end_stream()
                    return
                await connection.catch_up(request)
                waiting = asyncio.create_task(changed.wait())
                done, _ = await asyncio.wait(
                    {closed, waiting}, timeout=self.keepalive_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                waiting.cancel()
                if closed in done:
                    return
                if not done:
                    await connection.send({"token_expires_in": int(self._token_left(exchange))})
        finally:
            closed.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await closed

    def target(self, request: Any) -> tuple[list[Line], list[Line]]:
        """The buckets of a request as a checkpoint names them, and the streams."""
        reasons: dict[str, list[Line]] = {}
        streams: dict[str, Line] = {}
        if request["streams"]["include_defaults"]:
            streams["lists"] = {"name": "lists", "is_default": True, "errors": []}
            reasons[LISTS] = [{"default": 0}]
        for index, subscription in enumerate(request["streams"]["subscriptions"]):
            if subscription["stream"] == "todos":
                streams["todos"] = {"name": "todos", "is_default": False, "errors": []}
                bucket = f"1#todos|0{json.dumps([(subscription['parameters'] or {}).get('list')])}"
                reasons.setdefault(bucket, []).append({"sub": index})
        buckets = [
            {
                "bucket": bucket,
                "checksum": _signed32(self._sums[bucket]),
                "count": len(self._logs.get(bucket, [])),
                "priority": 3,
                "subscriptions": why,
            }
            for bucket, why in reasons.items()
        ]
        return buckets, list(streams.values())

    def operations(self, bucket: str, after: int) -> list[dict[str, Any]]:
        log = self._logs.get(bucket, [])
        return log[bisect_right(log, after, key=lambda operation: int(operation["op_id"])) :]

    def write_checkpoint(self, client_id: str) -> int:
        return self._custom if self.custom_checkpoints else self.write_checkpoints.get(client_id, 0)

    @property
    def last_op(self) -> int:
        return self._last_op


class _Connection:
    """One stream: what its device has, and what it was told last."""

    def __init__(self, service: SmallService, exchange: Exchange, fault: Fault, positions: dict[str, int]) -> None:
        self._service = service
        self._exchange = exchange
        self._fault = fault
        self._positions = positions
        self._told: dict[str, Line] | None = None
        self._told_write_checkpoint = 0
        self._lines = 0

    async def catch_up(self, request: Any) -> None:
        """Send a checkpoint, or a diff, and the data that belongs to it, if anything changed."""
        service = self._service
        buckets, streams = service.target(request)
        write_checkpoint = service.write_checkpoint(request["client_id"])
        target = {bucket["bucket"]: bucket for bucket in buckets}
        if target == self._told and write_checkpoint == self._told_write_checkpoint:
            return
        last_op = str(service.last_op)
        # The data as of now: what is written while lines are on their way belongs to the next checkpoint.
        data = {name: service.operations(name, self._positions.get(name, 0)) for name in target}
        line: Line = {"last_op_id": last_op}
        if write_checkpoint:
            line["write_checkpoint"] = str(write_checkpoint)
        if self._told is None:
            line = {"checkpoint": line | {"buckets": buckets, "streams": streams}}
        else:
            told = self._told
            updated = [bucket for bucket in buckets if told.get(bucket["bucket"]) != bucket]
            line = {"checkpoint_diff": line | {"updated_buckets": updated, "removed_buckets": []}}
        self._told, self._told_write_checkpoint = target, write_checkpoint
        await self.send(line)
        for name, operations in data.items():
            if operations:
                after = self._positions.get(name, 0)
                last = int(operations[-1]["op_id"])
                values = {"bucket": name, "after": str(after), "next_after": str(last), "has_more": False}
                await self.send({"data": values | {"data": operations}})
                self._positions[name] = last
        await self.send({"checkpoint_complete": {"last_op_id": last_op}})

    async def send(self, line: Any) -> None:
        if self._fault.line is not None:
            line = await self._fault.line(self._exchange, self._lines, line)
        self._lines += 1
        await self._exchange.send(line if isinstance(line, str) else json.dumps(line) + "\n")


def _signed32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


@asynccontextmanager
async def small_service() -> AsyncGenerator[SmallService]:
    """A small service that runs until the end of the block."""
    service = SmallService()
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


class SmallConnector(BackendConnector):
    """Connects an engine to a small service over HTTP. Close it with `aclose`.

    Its requests have no deadline: those of the engine are under test.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.AsyncClient(timeout=None, trust_env=False, verify=False)
        self.fetched = 0

    async def aclose(self) -> None:
        await self._client.aclose()

    async def fetch_credentials(self) -> PowerSyncCredentials:
        self.fetched += 1
        response = await self._client.get(self._url + TOKEN)
        response.raise_for_status()
        answer = response.json()
        return PowerSyncCredentials(self._url, answer["token"], datetime.fromtimestamp(answer["expires_at"], UTC))

    async def upload_data(self, database: PowerSyncDatabase) -> None:
        async for transaction in database.crud_transactions():
            crud = [
                {"number": entry.client_id, "op": entry.op, "table": entry.table, "id": entry.id, "data": entry.data}
                for entry in transaction.crud
            ]
            response = await self._client.post(self._url + UPLOAD, json={"crud": crud})
            response.raise_for_status()
            await transaction.complete(response.json()["checkpoint"])
