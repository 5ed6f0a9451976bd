"""A sync service that sends what a test tells it, step by step, and answers checkpoint requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from tests.kit.service import Exchange, ScriptedService, scripted_service

LAST_OP = 1000


def bucket(name: str, ops: Iterable[int], priority: int = 3, **more: Any) -> dict[str, Any]:
    """A bucket of a checkpoint that holds a PUT under each of these numbers."""
    ops = tuple(ops)
    return {"bucket": name, "checksum": sum(ops), "count": len(ops), "priority": priority, **more}


def checkpoint(*buckets: dict[str, Any], streams: Iterable[Any] = (), **more: Any) -> dict[str, Any]:
    return {"checkpoint": {"last_op_id": str(LAST_OP), "buckets": buckets, "streams": list(streams), **more}}


def diff(*updated: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"checkpoint_diff": {"last_op_id": str(LAST_OP), "updated_buckets": updated, "removed_buckets": [], **more}}


def data(name: str, ops: Iterable[int]) -> dict[str, Any]:
    """Data of a bucket: a list under each of these numbers."""
    operations = [
        {
            "op_id": str(op),
            "op": "PUT",
            "object_type": "lists",
            "object_id": f"list-{op}",
            "checksum": op,
            "subkey": name,
            "data": f'{{"name":"list {op}"}}',
        }
        for op in ops
    ]
    return {"data": {"bucket": name, "data": operations}}


def stream(name: str, *, is_default: bool = False, errors: Iterable[Any] = ()) -> dict[str, Any]:
    return {"name": name, "is_default": is_default, "errors": list(errors)}


COMPLETE = {"checkpoint_complete": {"last_op_id": str(LAST_OP)}}


def partly_complete(priority: int) -> dict[str, Any]:
    return {"partial_checkpoint_complete": {"last_op_id": str(LAST_OP), "priority": priority}}


class Stepwise:
    """The service. Each opened stream is put into `streams`; `send` speaks to the newest one.

    Attributes:
        checkpoint_requests: ids that were asked for.
        confirm: whether a requested checkpoint is sent at once.
        answering: checkpoint requests are answered while it is set.
    """

    def __init__(self, first: tuple[Any, ...]) -> None:
        self.server: ScriptedService
        self.streams: asyncio.Queue[Exchange] = asyncio.Queue()
        self.checkpoint_requests: list[int] = []
        self.confirm = True
        self.answering = asyncio.Event()
        self.answering.set()
        self.asked = asyncio.Event()
        self._first = first
        self._stream: Exchange | None = None

    @property
    def url(self) -> str:
        return self.server.url

    async def send(self, *lines: Any) -> None:
        assert self._stream is not None
        for line in lines:
            await self._stream.send_line(line)

    async def send_confirmation(self, request_id: int) -> None:
        await self.send(diff(write_checkpoint=str(request_id)), COMPLETE)

    async def end(self) -> None:
        assert self._stream is not None
        self._stream.drop()

    async def handle(self, exchange: Exchange) -> None:
        if exchange.path == "/sync/checkpoint-request":
            request_id = int(exchange.json["checkpoint_request_id"])
            self.checkpoint_requests.append(request_id)
            self.asked.set()
            await self.answering.wait()
            await exchange.answer(200, {"data": {"checkpoint_request_id": str(request_id)}})
            if self.confirm:
                await self.send_confirmation(request_id)
            return
        await exchange.begin_stream()
        self._stream = exchange
        positions = {bucket["name"]: int(bucket["after"]) for bucket in exchange.json["buckets"]}
        for line in self._first:
            await exchange.send_line(_behind(positions, line))
        await self.streams.put(exchange)
        await exchange.closed_by_client()


def _behind(positions: dict[str, int], line: Any) -> Any:
    """Of a data line only what the client does not have yet."""
    if "data" not in line:
        return line
    name, operations = line["data"]["bucket"], line["data"]["data"]
    news = [operation for operation in operations if int(operation["op_id"]) > positions.get(name, 0)]
    return {"data": {"bucket": name, "data": news}}


@asynccontextmanager
async def stepwise(*first: Any) -> AsyncGenerator[Stepwise]:
    """Serve; each stream begins with these lines."""
    service = Stepwise(first)
    async with scripted_service(service.handle) as service.server:
        yield service
