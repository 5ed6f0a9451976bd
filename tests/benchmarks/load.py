"""`python -m tests.benchmarks.load`: many connected clients while others write, and a first download of many rows.

The backend runs in a process of its own; the clients are bare sockets in this one, so that it measures the backend and
not them. Prints figures, together with the load of the machine, and never fails for them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

_MARK = re.compile(rb"W([0-9]+)E")
_SERVE = """
import asyncio, pathlib, sys
from app.backend import BackendConfig, serve
config = BackendConfig(pathlib.Path(sys.argv[1]), port=0, open_to_all=True)
asyncio.run(serve(config, on_ready=lambda url: print(url, flush=True)))
"""


@contextmanager
def backend():
    """A backend process: its URL and its process id."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-c", _SERVE, str(Path(directory) / "backend.db")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield process.stdout.readline().strip(), process.pid
            finally:
                process.terminate()
                process.wait()


def memory(process_id: int) -> int:
    """The memory of a process in KiB."""
    with Path(f"/proc/{process_id}/status").open() as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def signed_in(url: str, user_id: str) -> httpx.AsyncClient:
    http = httpx.AsyncClient(base_url=url, timeout=60)
    token = (await http.get("/api/auth/token", params={"user_id": user_id})).json()["token"]
    http.headers["Authorization"] = f"Token {token}"
    return http


class Stream(asyncio.Protocol):
    """A sync stream of which only the arrival of marks and of completed checkpoints is noted."""

    def __init__(self, request: bytes, arrived: dict[int, list[float]]) -> None:
        self._request = request
        self._arrived = arrived
        self._tail = b""
        self.bytes = 0
        self.complete = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self.bytes += len(data)
        data = self._tail + data
        if not self.complete.is_set() and b"checkpoint_complete" in data:
            self.complete.set()
        end = 0
        for match in _MARK.finditer(data):
            self._arrived.setdefault(int(match[1]), []).append(now)
            end = match.end()
        self._tail = data[max(end, len(data) - 30) :]


def stream_request(http: httpx.AsyncClient, lists: list[str], accept: str) -> bytes:
    subscriptions = [{"stream": "todos", "parameters": {"list": it}, "override_priority": None} for it in lists]
    body = json.dumps(
        {"raw_data": True, "client_id": os.urandom(8).hex(), "streams": {"subscriptions": subscriptions}}
    ).encode()
    return (
        f"POST /sync/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {http.headers['Authorization']}\r\n"
        f"Accept: {accept}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def connect(url: str, request: bytes, arrived: dict[int, list[float]]) -> Stream:
    address = httpx.URL(url)
    _, stream = await asyncio.get_running_loop().create_connection(
        lambda: Stream(request, arrived), address.host, address.port
    )
    return stream


def entry(op: str, table: str, row_id: str, **data: str) -> dict[str, Any]:
    return {"op": op, "table": table, "id": row_id, "data": data}


async def write(http: httpx.AsyncClient, *entries: dict[str, Any]) -> None:
    (await http.post("/api/data", json={"batch": entries})).raise_for_status()


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def measure_fan_out(clients: int, users: int, writes: int, seconds: int, accept: str) -> None:
    """Clients that wait, spread over users, while each write of a user must come to all clients of that user."""
    arrived: dict[int, list[float]] = {}
    sent: dict[int, float] = {}
    answered: dict[int, float] = {}
    with backend() as (url, process_id):
        https = [await signed_in(url, f"user{number}") for number in range(users)]
        for number, http in enumerate(https):
            await write(http, entry("PUT", "lists", f"l{number}", name="N"))
        before = memory(process_id)
        streams: list[Stream] = []
        for number in range(clients):
            user = number % users
            streams.append(await connect(url, stream_request(https[user], [f"l{user}"], accept), arrived))
        for stream in streams:
            await stream.complete.wait()
        idle = memory(process_id)

        async def one(number: int) -> None:
            user = number % users
            todo = entry("PUT", "todos", f"t{number % 500}", description=f"W{number}E", list_id=f"l{user}")
            sent[number] = time.perf_counter()
            await write(https[user], todo)
            answered[number] = time.perf_counter()

        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(writes * seconds):
                await asyncio.sleep(max(0.0, started + number / writes - time.perf_counter()))
                tasks.create_task(one(number))
        took = time.perf_counter() - started
        wanted = clients // users
        for _ in range(500):
            if all(len(arrived.get(number, ())) >= wanted for number in sent):
                break
            await asyncio.sleep(0.02)
        busy = memory(process_id)
        for http in https:
            await http.aclose()
    missing = sum(wanted - len(arrived.get(number, ())) for number in sent)
    from_answer = [1000 * max(0.0, at - answered[number]) for number, times in arrived.items() for at in times]
    from_request = [1000 * (at - sent[number]) for number, times in arrived.items() for at in times]
    upload = [1000 * (answered[number] - sent[number]) for number in sent]
    print(
        f"{clients} clients of {users} users, {writes} writes/s for {took:.1f} s: each heard by {wanted},"
        f" {len(from_answer)} arrivals, {missing} missing\n"
        f"  from the answer to the write: median {statistics.median(from_answer):.0f} ms,"
        f" p95 {percentile(from_answer, 0.95):.0f} ms, worst {max(from_answer):.0f} ms\n"
        f"  from sending the write:       median {statistics.median(from_request):.0f} ms,"
        f" p95 {percentile(from_request, 0.95):.0f} ms, worst {max(from_request):.0f} ms\n"
        f"  the write itself: median {statistics.median(upload):.0f} ms, p95 {percentile(upload, 0.95):.0f} ms\n"
        f"  memory: {(idle - before) / clients:.0f} KiB for each idle stream, {busy / 1024:.0f} MiB in all",
        flush=True,
    )


async def measure_download(rows: int, accept: str, rounds: int) -> None:
    """All rows to one new client."""
    with backend() as (url, _):
        http = await signed_in(url, "ann")
        await write(http, entry("PUT", "lists", "l", name="N"))
        for start in range(0, rows, 5000):
            await write(
                http,
                *(
                    entry("PUT", "todos", f"{n:032x}", description=f"Something to do, number {n}", list_id="l")
                    for n in range(start, min(rows, start + 5000))
                ),
            )
        for _ in range(rounds):
            started = time.perf_counter()
            stream = await connect(url, stream_request(http, ["l"], accept), {})
            await stream.complete.wait()
            took = time.perf_counter() - started
            print(f"{rows} rows as {accept}: {took:.2f} s, {rows / took:.0f} rows/s, {stream.bytes / 1e6:.0f} MB")
        await http.aclose()


async def measure(options: argparse.Namespace) -> None:
    print(f"load of the machine: {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
    if not options.no_download:
        for accept in ("application/x-ndjson", "application/vnd.powersync.bson-stream"):
            await measure_download(options.rows, accept, options.rounds)
    for users in options.users:
        await measure_fan_out(options.clients, users, options.writes, options.seconds, "application/x-ndjson")
    print(f"load of the machine: {os.getloadavg()[0]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.load", description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--users", type=int, nargs="*", default=[500, 50, 1])
    parser.add_argument("--writes", type=int, default=50, help="a second")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-download", action="store_true")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
