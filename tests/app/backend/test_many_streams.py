"""Many streams, and readers that stop: the memory of the backend stays bounded, and others are served.

The backend runs in a process of its own, so that its memory is its own. Set IDLE_STREAMS for more than 1,000.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from .harness import WAIT_SECONDS, Replica, User, patch, put, signed_in, todos_of

IDLE = int(os.environ.get("IDLE_STREAMS", "1000"))
SERVE = """
import asyncio, pathlib, sys
from app.backend import BackendConfig, serve
config = BackendConfig(pathlib.Path(sys.argv[1]), port=0, open_to_all=True)
asyncio.run(serve(config, on_ready=lambda url: print(url, flush=True)))
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is in /proc")


@asynccontextmanager
async def backend(directory: Path) -> AsyncGenerator[tuple[str, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(directory / "backend.db"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(3 * WAIT_SECONDS):
            url = (await process.stdout.readline()).decode().strip()
        yield url, process.pid
    finally:
        process.terminate()
        await process.communicate()


def memory(process_id: int) -> float:
    """The memory of a process in MiB."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def request(user: User, accept_encoding: str = "identity", **more: Any) -> bytes:
    body = json.dumps({"raw_data": True, **more}).encode()
    return (
        f"POST /sync/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token {user.token}\r\n"
        f"Content-Type: application/json\r\nAccept-Encoding: {accept_encoding}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def fill(user: User, megabytes: int) -> None:
    await user.write(put("lists", "l", name="N"))
    for start in range(0, megabytes * 50, 200):
        todos = range(start, min(start + 200, megabytes * 50))
        await user.write(*(put("todos", f"t{n}", description="x" * 20_000, list_id="l") for n in todos))


async def test_readers_that_stop_cost_a_bounded_piece_of_memory(tmp_path: Path) -> None:
    """Each is owed 60 MB, of which it reads nothing."""
    readers = 30
    async with backend(tmp_path) as (url, process_id), signed_in(url, "ann") as ann:
        await fill(ann, 60)
        assert len((await ann.synced("l")).rows("todos")) == 3000
        before = memory(process_id)
        address = httpx.URL(url)
        sockets: list[socket.socket] = []
        loop = asyncio.get_running_loop()
        try:
            for _ in range(readers):
                reader = socket.socket()
                sockets.append(reader)
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
                reader.setblocking(False)
                await loop.sock_connect(reader, (address.host, address.port))
                stopped = request(ann, streams={"include_defaults": False, "subscriptions": todos_of("l")})
                await loop.sock_sendall(reader, stopped)
                assert await loop.sock_recv(reader, 1)
            # Who reads is served meanwhile, and what changes comes to them.
            async with ann.stream(todos_of("l")) as lines:
                replica = Replica()
                await replica.take_checkpoint(lines)
                for number in range(10):
                    await ann.write(patch("todos", f"t{number}", description="short"))
                    await replica.take_checkpoint(lines)
            grown = memory(process_id) - before
        finally:
            for reader in sockets:
                reader.close()
    print(f"{grown / readers:.2f} MiB for each reader that stops")
    # A line of 1 MiB and what is made of it; all that they are owed would be 60 MiB each.
    assert grown / readers < 6


@pytest.mark.parametrize("encoding", ["identity", "zstd", "gzip"])
async def test_a_thousand_idle_streams(tmp_path: Path, encoding: str) -> None:
    number = IDLE if encoding == "identity" else IDLE // 5
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * number + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"only {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    async with backend(tmp_path) as (url, process_id), AsyncExitStack() as stack:
        # No user may have more than 1,000.
        users = [await stack.enter_async_context(signed_in(url, f"user{it}")) for it in range(number // 500 + 1)]
        for user in users:
            await user.write(put("lists", f"l of {user.user_id}", name="N"))
            await user.synced()
        before = memory(process_id)
        address = httpx.URL(url)
        streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        try:
            for it in range(number):
                reader, writer = await asyncio.open_connection(address.host, address.port)
                streams.append((reader, writer))
                writer.write(request(users[it % len(users)], encoding))
            async with asyncio.timeout(5 * WAIT_SECONDS):
                for reader, _ in streams:
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                    assert await reader.read(1)
                    if encoding == "identity":
                        await reader.readuntil(b"checkpoint_complete")
                grown = memory(process_id) - before
                if encoding == "identity":
                    for user in users:
                        await user.write(put("lists", f"m of {user.user_id}", name="M"))
                    for reader, _ in streams:
                        await reader.readuntil(b"checkpoint_diff")
        finally:
            for _, writer in streams:
                writer.transport.abort()
    print(f"{1024 * grown / number:.0f} KiB for each idle stream ({encoding})")
    assert 1024 * grown / number < (120 if encoding == "identity" else 400)
