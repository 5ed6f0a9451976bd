"""The process: where it listens, what it refuses to open, what survives it, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from blockbuster import blockbuster_ctx

import app.backend.http.server
import app.connection.embedded_backend
from app.backend import BackendConfig, BackendError, create_app, serve

from .harness import Replica, User, delete, put, running, signed_in

PROGRAM = """
import asyncio, sys
from pathlib import Path
from app.backend import BackendConfig, serve
config = BackendConfig(Path(sys.argv[1]), port=int(sys.argv[2]), open_to_all=True)
asyncio.run(serve(config, on_ready=lambda url: print(url, flush=True)))
print("ended", flush=True)
"""


def connections_of(url: str) -> list[asyncio.WriteTransport]:
    """The backend's ends of its connections, for one that runs on this event loop."""
    port = int(url.rpartition(":")[2])
    transports = list(asyncio.get_running_loop()._transports.values())
    return [each for each in transports if each.get_extra_info("sockname")[1] == port]


async def test_the_probe_tells_who_it_is(config: BackendConfig, backend: str) -> None:
    async with httpx.AsyncClient(base_url=backend) as http:
        answer = await http.get("/probes/liveness")
        assert answer.status_code == 200
        probe = answer.json()
        assert probe["name"] == "todo-tui backend"
        assert probe["version"]
        assert probe["database"] == str(config.database)
        assert (await http.get("/probes/liveness")).json() == probe
        forwarded = await http.get("/probes/liveness", headers={"X-Forwarded-For": "203.0.113.9"})
        assert "database" not in forwarded.json()


async def test_small_answers_are_sent_at_once(backend: str) -> None:
    """Nagle's algorithm would keep the end of an answer back until its beginning is acknowledged, 40 ms later."""
    async with httpx.AsyncClient(base_url=backend) as http:
        await http.get("/probes/liveness")
        (connection,) = connections_of(backend)
        assert connection.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_the_path_is_told_only_to_this_machine(config: BackendConfig) -> None:
    app = create_app(config)
    async with app.router.lifespan_context(app):
        for address, local in (
            ("127.0.0.1", True),
            ("::1", True),
            ("203.0.113.9", False),
            ("::ffff:127.0.0.1", True),
            ("nowhere", False),
        ):
            transport = httpx.ASGITransport(app, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                probe = (await http.get("/probes/liveness")).json()
            assert ("database" in probe) is local
            assert probe["backend_id"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost", 200),
        ("LocalHost:1", 200),
        ("[::1]:{port}", 200),
        ("evil.example", 421),
        ("evil.example:{port}", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:{port}", 421),
        ("evil.example:127.0.0.1", 421),
        ("[::1", 421),
        ("[127.0.0.1]evil", 421),
        ("", 421),
    ],
)
async def test_on_loopback_no_other_name_is_answered(backend: str, host: str, status: int) -> None:
    """A browser lets a foreign page in under a name that the page's owner points at this machine."""
    headers = {"Host": host.format(port=backend.rpartition(":")[2])}
    async with httpx.AsyncClient(base_url=backend, headers=headers) as http:
        for path in ("/probes/liveness", "/api/auth/token?user_id=ann"):
            answer = await http.get(path)
            assert answer.status_code == status, host
            if status != 200:
                assert answer.json()["error"]["code"] == "wrong_host"


async def test_a_backend_for_other_machines_answers_under_any_name_and_tells_the_path_under_none(
    tmp_path: Path,
) -> None:
    async with running(BackendConfig(tmp_path / "b.db", host="0.0.0.0", port=0, open_to_all=True)) as url:
        async with httpx.AsyncClient(base_url=url, headers={"Host": "name.example"}) as http:
            probe = (await http.get("/probes/liveness")).json()
            assert probe["name"] == "todo-tui backend"
            assert "database" not in probe
        async with httpx.AsyncClient(base_url=url) as http:
            assert "database" in (await http.get("/probes/liveness")).json()


async def test_a_file_without_photos_still_opens(config: BackendConfig) -> None:
    async with running(config) as url, signed_in(url, "ann") as ann:
        await ann.write(put("lists", "l", name="N"), put("todos", "t", description="D", list_id="l"))
    with closing(sqlite3.connect(config.database)) as connection:
        connection.execute("ALTER TABLE todos DROP COLUMN photo_id")
    async with running(config) as url, signed_in(url, "ann") as ann:
        await ann.write(put("todos", "t", description="D", list_id="l", photo_id="p"))
        assert (await ann.synced("l")).rows("todos")["t"]["photo_id"] == "p"


async def test_files_are_private(config: BackendConfig, ann: User) -> None:
    await ann.write(put("lists", "l", name="N"))
    assert config.database.parent.stat().st_mode & 0o777 == 0o700
    names = sorted(path.name for path in config.database.parent.iterdir())
    assert names == ["backend.db", "backend.db-lock", "backend.db-shm", "backend.db-wal", "backend.db.key"]
    for path in config.database.parent.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


async def test_an_existing_file_is_made_private(config: BackendConfig) -> None:
    async with running(config):
        pass
    config.database.chmod(0o644)
    async with running(config):
        assert config.database.stat().st_mode & 0o777 == 0o600


async def test_a_restart_keeps_ids_data_and_checkpoints(config: BackendConfig) -> None:
    async with running(config) as url, signed_in(url, "ann") as ann:
        await ann.write(put("lists", "l", name="N"), put("todos", "t", description="D", list_id="l"))
        await ann.http.get("/write-checkpoint2.json?client_id=client")
        await ann.write(put("lists", "m", name="N"), delete("lists", "m"))
        probe = (await ann.http.get("/probes/liveness")).json()
        before = await ann.synced("l")
    async with running(config) as url, signed_in(url, "ann") as ann:
        assert (await ann.http.get("/probes/liveness")).json() == probe
        assert await ann.synced("l") == before
        await ann.write(put("lists", "n", name="N"))
        resumed = Replica(ops=before.ops)
        async with ann.stream([], buckets=before.positions()) as lines:
            await resumed.take_checkpoint(lines)
        assert resumed.last_op_id == before.last_op_id + 2  # the list, and whose it is
        assert set(resumed.rows("lists")) == {"l", "n"}


async def test_a_taken_port_is_a_clear_error_and_leaves_no_trace(config: BackendConfig, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BackendError, match=f"port {port} of 127.0.0.1"):
            await serve(BackendConfig(tmp_path / "none" / "b.db", port=port, open_to_all=True))
    assert not (tmp_path / "none").exists()


async def test_one_file_has_one_backend(config: BackendConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams learn of commits inside one process only: those of a second one would wait."""
    monkeypatch.setattr("app.backend.http.server._LOCK_SECONDS", 0.1)
    async with running(config):
        with pytest.raises(BackendError, match="already serves"):
            await serve(BackendConfig(config.database, port=0, open_to_all=True))
    async with running(config):
        pass


@pytest.mark.parametrize(
    ("host", "port"),
    [("203.0.113.9", 0), ("no such host", 0), ("127.0.0.1", 70000), ("127.0.0.1", -1), ("x" * 300, 0), ("a\x00b", 0)],
)
async def test_an_impossible_address_is_a_clear_error(tmp_path: Path, host: str, port: int) -> None:
    with pytest.raises(BackendError, match="Cannot listen"):
        await serve(BackendConfig(tmp_path / "b.db", host=host, port=port, open_to_all=True))


async def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    def refused(path: Path, reason: str) -> None:
        with pytest.raises(BackendError, match=reason) as caught:
            asyncio.run(serve(BackendConfig(path, port=0, open_to_all=True)))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    text = tmp_path / "text.db"
    text.write_text("This is not a database. " * 100)
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE t (x)")
    newer = tmp_path / "newer.db"
    async with running(BackendConfig(newer, port=0, open_to_all=True)):
        pass
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 99")
    (tmp_path / "directory.db").mkdir()
    await asyncio.to_thread(refused, text, "not a SQLite database")
    await asyncio.to_thread(refused, foreign, "another program")
    await asyncio.to_thread(refused, newer, "newer version")
    await asyncio.to_thread(refused, tmp_path / "directory.db", "it is not a regular file")
    await asyncio.to_thread(refused, text / "below" / "b.db", "Cannot use the database")
    assert not (tmp_path / "directory.db-lock").exists()
    assert text.read_text().startswith("This is not")
    with closing(sqlite3.connect(foreign)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("t",)]


async def test_stopping_ends_open_streams_cleanly_and_at_once(
    config: BackendConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would end them: no keepalive comes, no token expires, and the server has all patience."""
    monkeypatch.setattr("app.backend.http.server._STOP_SECONDS", None)
    stop = asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    endless = replace(config, keepalive_seconds=1e6, token_seconds=86_400)
    serving = asyncio.create_task(serve(endless, stop=stop, on_ready=ready.set_result))
    async with signed_in(await ready, "ann") as ann, ann.stream() as first, ann.stream() as second:
        await first.checkpoint()
        await second.checkpoint()
        stop.set()
        assert await first.rest() == []
        assert await second.rest() == []
        await serving


async def test_a_peer_that_does_not_read_cannot_hold_up_the_end(
    config: BackendConfig, caplog: pytest.LogCaptureFixture
) -> None:
    stop = asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(config, stop=stop, on_ready=ready.set_result))
    url = await ready
    async with signed_in(url, "ann", receive_buffer=64 * 1024) as ann:
        ann.http.headers["Accept-Encoding"] = "identity"
        for number in range(30):
            await ann.write(put("lists", f"l{number}", name="x" * 1_000_000))
        async with ann.stream() as lines:
            await lines.next()
            before, stuck = -1, 0
            while not 0 < stuck == before:
                await asyncio.sleep(0.05)
                before, stuck = stuck, sum(each.get_write_buffer_size() for each in connections_of(url))
            stop.set()
            await serving
    assert "timeout graceful shutdown exceeded" in caplog.text
    # Whoever runs it as a child kills it if it takes longer.
    assert app.backend.http.server._STOP_SECONDS < app.connection.embedded_backend._STOP_SECONDS


async def test_cancelling_ends_cleanly_and_frees_the_port(config: BackendConfig) -> None:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(config, on_ready=ready.set_result))
    url = await ready
    async with signed_in(url, "ann") as ann, ann.stream() as lines:
        await lines.checkpoint()
        serving.cancel()
        assert await lines.rest() == []
        with pytest.raises(asyncio.CancelledError):
            await serving
    assert not config.database.with_name("backend.db-wal").exists()
    again = BackendConfig(config.database, port=int(url.rpartition(":")[2]), open_to_all=True)
    async with running(again) as same:
        assert same == url


async def test_signal_handlers_are_restored_and_other_threads_install_none(config: BackendConfig) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with running(config):
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) != before
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

    loop = asyncio.get_running_loop()
    ready: asyncio.Future[str] = loop.create_future()
    stops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def in_thread() -> None:
        async def main() -> None:
            stop = asyncio.Event()
            stops.append((asyncio.get_running_loop(), stop))
            await serve(config, stop=stop, on_ready=lambda url: loop.call_soon_threadsafe(ready.set_result, url))

        asyncio.run(main())

    thread = threading.Thread(target=in_thread)
    thread.start()
    async with asyncio.timeout(10):
        url = await ready
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    async with signed_in(url, "ann") as ann:
        await ann.write(put("lists", "l", name="N"))
    ((its_loop, stop),) = stops
    its_loop.call_soon_threadsafe(stop.set)
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_ends_with_streams_open_and_loses_nothing(
    config: BackendConfig, number: signal.Signals
) -> None:
    async def start() -> tuple[asyncio.subprocess.Process, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "error",
            "-c",
            PROGRAM,
            str(config.database),
            "0",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(20):
            return process, (await process.stdout.readline()).decode().strip()

    process, url = await start()
    async with signed_in(url, "ann") as ann, ann.stream() as lines:
        await lines.checkpoint()
        await ann.write(put("lists", "l", name="N"))
        await lines.checkpoint()
        process.send_signal(number)
        assert await lines.rest() == []
        async with asyncio.timeout(10):
            assert await process.communicate() == (b"ended\n", b"")
    assert process.returncode == 0

    process, url = await start()
    async with signed_in(url, "ann") as ann:
        await ann.write(put("lists", "m", name="N"))
        process.kill()
        await process.communicate()
    process, url = await start()
    async with signed_in(url, "ann") as ann:
        assert set((await ann.synced()).rows("lists")) == {"l", "m"}
    process.terminate()
    async with asyncio.timeout(10):
        await process.communicate()


async def test_importing_the_backend_loads_nothing_heavy() -> None:
    program = (
        "import sys, app.backend;"
        "print(sorted({name.partition('.')[0] for name in sys.modules}"
        " & {'starlette', 'uvicorn', 'joserfc', 'cryptography', 'msgspec', 'sqlite3', 'httpx', 'textual'}))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE, env={**os.environ, "PYTHONSAFEPATH": ""}
    )
    output, _ = await process.communicate()
    assert output == b"[]\n"


async def test_the_loop_is_never_blocked(ann: User) -> None:
    """Neither by waiting for files and SQLite, nor by computing; the time of its thread, not that of the machine."""
    await ann.write(put("lists", "l", name="N"))
    computed: list[float] = []

    async def tick() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.005)
            computed.append(time.thread_time() - before)

    with blockbuster_ctx(app.backend):
        ticking = asyncio.create_task(tick())
        for start in range(0, 2000, 500):
            await ann.write(
                *(put("todos", f"t{n}", description="D" * 500, list_id="l") for n in range(start, start + 500))
            )
        await ann.write(delete("lists", "l"))
        ticking.cancel()
    computed.sort()
    print(f"{len(computed)} ticks, 95 % below {computed[int(len(computed) * 0.95)] * 1000:.1f} ms")
    assert computed[int(len(computed) * 0.95)] < 0.1
