"""The backend inside todo-tui: real child processes, really killed; who serves the port, and never with other data."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.backend import BackendConfig
from app.connection.data_owner import DataOwner, InnerBackend, Ownership
from app.connection.embedded_backend import (
    CHILD_PORT_TAKEN,
    Absence,
    BackendState,
    EmbeddedBackend,
    EmbeddedBackendError,
    Liveness,
    Phase,
    probe,
)
from app.system.user_error import UserError
from tests.app.backend.harness import free_port, running

WAIT_SECONDS = 60.0
ROOT = Path(__file__).parents[3]

PARENT = """
import asyncio, sys
from pathlib import Path
from app.connection.embedded_backend import EmbeddedBackend

async def run():
    def changed(state):
        print(state.phase.value, flush=True)
    async with EmbeddedBackend.open(Path(sys.argv[1]), int(sys.argv[2]), changed):
        await asyncio.Event().wait()

asyncio.run(run())
"""


def children(port: int) -> list[int]:
    """Process ids of the backends that this process runs on a port."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [
        int(row[0]) for row in rows if row[1] == str(os.getpid()) and row[-5:-2] == ["--port", str(port), "--database"]
    ]


class States:
    """The states that an embedded backend went through; give it as `on_change`."""

    def __init__(self) -> None:
        self.seen: list[BackendState] = []
        self._posted = asyncio.Event()

    def __call__(self, state: BackendState) -> None:
        self.seen.append(state)
        self._posted.set()

    async def until(self, phase: Phase, problem: str = "") -> BackendState:
        """Wait until the newest state has this phase and a problem that contains these words."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                if self.seen and self.seen[-1].phase is phase and problem in (self.seen[-1].problem or ""):
                    return self.seen[-1]
                self._posted.clear()
                await self._posted.wait()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something outside this process that tells nobody when it happens."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not await condition():
            await asyncio.sleep(0.02)


async def is_gone(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return False
    return True


async def introduction(port: int) -> Liveness:
    found = await probe(port)
    assert isinstance(found, Liveness)
    return found


@asynccontextmanager
async def listener(port: int, answer: bytes | None) -> AsyncGenerator[None]:
    """Another program on `port`: answers a request with `answer`, hangs up if it is empty, is silent if it is None."""
    release = asyncio.Event()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await release.wait()
        else:
            writer.write(answer)
            if answer.startswith(b"SSH"):
                await release.wait()
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", port)
    try:
        yield
    finally:
        release.set()
        server.close()
        await server.wait_closed()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    return directory


async def synced_once(data_dir: Path, port: int) -> Liveness:
    """Let `data_dir` be used with a backend of its own, which has ended again."""
    states = States()
    async with EmbeddedBackend.open(data_dir, port, states):
        await states.until(Phase.OWN)
        return await introduction(port)


async def test_the_first_start_runs_a_backend_with_a_database_of_its_own(
    data_dir: Path, port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.connection.embedded_backend._STOP_SECONDS", 1e6)
    caplog.set_level(logging.INFO, "app.connection.embedded_backend")
    states = States()
    async with EmbeddedBackend.open(data_dir, port, states) as embedded:
        assert embedded.state.phase is Phase.STARTING
        await embedded.verify()
        assert embedded.state == BackendState(Phase.OWN)
        (pid,) = children(port)
        found = await introduction(port)
        assert found.database == data_dir / "backend.db"
        assert embedded.url == f"http://127.0.0.1:{port}"
    assert f"Backend child {pid} ended with code 0" in caplog.text, "it ends when it is asked to, and is not forced to"
    assert await is_gone(pid)
    assert await probe(port) is Absence.NOBODY
    memory = data_dir / "backend.json"
    assert json.loads(memory.read_text()) == {"backend_id": found.backend_id, "database": "backend.db"}
    assert memory.stat().st_mode & 0o777 == 0o600
    assert (data_dir / "backend.db").stat().st_mode & 0o777 == 0o600


async def test_the_child_ends_when_the_task_is_cancelled(data_dir: Path, port: int) -> None:
    states = States()
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def use() -> None:
        async with EmbeddedBackend.open(data_dir, port, states):
            await states.until(Phase.OWN)
            started.set_result(children(port)[0])
            await asyncio.Event().wait()

    task = asyncio.create_task(use())
    pid = await started
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await is_gone(pid)


async def test_leaving_before_the_child_is_ready_leaves_no_child(data_dir: Path, port: int) -> None:
    async with EmbeddedBackend.open(data_dir, port) as embedded:

        async def started() -> bool:
            return bool(children(port))

        await until(started)
        (pid,) = children(port)
        assert embedded.state.phase is Phase.STARTING
    assert await is_gone(pid)


async def test_a_child_that_hangs_is_killed_on_the_way_out(data_dir: Path, port: int) -> None:
    states = States()
    async with EmbeddedBackend.open(data_dir, port, states):
        await states.until(Phase.OWN)
        (pid,) = children(port)
        os.kill(pid, signal.SIGSTOP)
    assert await is_gone(pid)


async def test_a_directory_named_app_where_the_user_stands_is_not_run(
    data_dir: Path, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit('the wrong app')")
    monkeypatch.chdir(tmp_path)
    assert (await synced_once(data_dir, port)).database == data_dir / "backend.db"


async def test_a_killed_child_is_started_again_with_the_same_data(data_dir: Path, port: int) -> None:
    states = States()
    async with EmbeddedBackend.open(data_dir, port, states) as embedded:
        await states.until(Phase.OWN)
        before, (pid,) = await introduction(port), children(port)
        os.kill(pid, signal.SIGKILL)
        await states.until(Phase.UNAVAILABLE, "exited (exit code -9); restarting it")
        await states.until(Phase.OWN)
        (new_pid,) = children(port)
        assert new_pid != pid
        assert await introduction(port) == before
        await embedded.verify()


async def test_a_second_one_uses_the_backend_of_the_first_and_takes_over(tmp_path: Path, port: int) -> None:
    first_dir, second_dir = tmp_path / "first", tmp_path / "second"
    first_dir.mkdir()
    second_dir.mkdir()
    first, second = States(), States()
    async with contextlib.AsyncExitStack() as stack:
        async with EmbeddedBackend.open(first_dir, port, first):
            await first.until(Phase.OWN)
            shared = await introduction(port)
            await stack.enter_async_context(EmbeddedBackend.open(second_dir, port, second))
            await second.until(Phase.SHARED)
            assert len(children(port)) == 1
        await second.until(Phase.OWN)
        assert await introduction(port) == shared, "the same file, though it lies in the other's directory"
        assert not (second_dir / "backend.db").exists()
        # The first one comes back while the second serves.
        first = States()
        await stack.enter_async_context(EmbeddedBackend.open(first_dir, port, first))
        await first.until(Phase.SHARED)
    # Later, alone, the second still opens the file that it was synced with.
    assert await synced_once(second_dir, port) == shared


async def test_a_killed_process_takes_its_child_with_it_and_another_takes_over(tmp_path: Path, port: int) -> None:
    first_dir, second_dir = tmp_path / "first", tmp_path / "second"
    first_dir.mkdir()
    second_dir.mkdir()
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(first_dir), str(port)), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    async with asyncio.timeout(WAIT_SECONDS):
        assert await parent.stdout.readline() == b"own\n"
    before = await introduction(port)
    states = States()
    async with EmbeddedBackend.open(second_dir, port, states):
        await states.until(Phase.SHARED)
        parent.kill()
        await parent.communicate()
        await states.until(Phase.OWN)
        assert await introduction(port) == before
    assert await probe(port) is Absence.NOBODY


async def test_a_killed_process_leaves_no_child(data_dir: Path, port: int) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(data_dir), str(port)), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    async with asyncio.timeout(WAIT_SECONDS):
        assert await parent.stdout.readline() == b"own\n"
    assert isinstance(await probe(port), Liveness)
    parent.kill()
    await parent.communicate()

    async def nobody_listens() -> bool:
        return await probe(port) is Absence.NOBODY

    await until(nobody_listens)


async def test_of_two_that_start_at_once_one_serves_both(
    tmp_path: Path, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.connection.embedded_backend")
    first_dir, second_dir = tmp_path / "first", tmp_path / "second"
    first_dir.mkdir()
    second_dir.mkdir()
    first, second = States(), States()
    async with (
        EmbeddedBackend.open(first_dir, port, first) as one,
        EmbeddedBackend.open(second_dir, port, second) as two,
    ):
        # Neither had a child when the other looked at the port, so both start one.
        await asyncio.gather(one.verify(), two.verify())

        async def settled() -> bool:
            return {one.state.phase, two.state.phase} == {Phase.OWN, Phase.SHARED}

        await until(settled)
        await asyncio.gather(one.verify(), two.verify())
        assert len(children(port)) == 1
        assert f"ended with code {CHILD_PORT_TAKEN}" in caplog.text
        assert not any(state.problem for state in (*first.seen, *second.seen))
    memories = [json.loads((directory / "backend.json").read_text()) for directory in (first_dir, second_dir)]
    assert memories[0]["backend_id"] == memories[1]["backend_id"]


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n<html>hello</html>",
        b'HTTP/1.1 200 OK\r\n\r\n{"ready": true}',
        b"HTTP/1.1 200 OK\r\n\r\n[]",
        b'HTTP/1.1 500 Oops\r\n\r\n{"name": "todo-tui backend", "backend_id": "x"}',
        b'HTTP/1.1 200 OK\r\n\r\n{"name": "todo-tui backend", "backend_id": 7}',
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 60_000,
        b"",
        None,
    ],
)
async def test_another_program_on_the_port_is_told_at_the_start(
    data_dir: Path, port: int, answer: bytes | None
) -> None:
    async with listener(port, answer):
        with pytest.raises(UserError) as caught:
            async with EmbeddedBackend.open(data_dir, port):
                pytest.fail("it must not start")
    assert str(caught.value) == (
        f"Port {port} is used by another program; quit it, or choose another port with --port."
    )
    assert list(data_dir.iterdir()) == []


async def test_a_backend_with_other_lists_is_told_at_the_start(data_dir: Path, port: int, tmp_path: Path) -> None:
    own = await synced_once(data_dir, port)
    memory = (data_dir / "backend.json").read_bytes()
    async with running(BackendConfig(tmp_path / "other.db", port=port, open_to_all=True)):
        assert await introduction(port) != own
        with pytest.raises(UserError, match=f"on port {port} serves other lists than those in {data_dir}; quit"):
            async with EmbeddedBackend.open(data_dir, port):
                pytest.fail("it must not start")
    assert (data_dir / "backend.json").read_bytes() == memory
    assert await synced_once(data_dir, port) == own


async def test_a_backend_with_other_lists_that_comes_later_is_not_used(
    data_dir: Path, port: int, tmp_path: Path
) -> None:
    right, hidden = tmp_path / "right.db", tmp_path / "hidden.db"
    states = States()
    async with contextlib.AsyncExitStack() as stack:
        async with running(BackendConfig(right, port=port, open_to_all=True)):
            embedded = await stack.enter_async_context(EmbeddedBackend.open(data_dir, port, states))
            await states.until(Phase.SHARED)
            memory = (data_dir / "backend.json").read_bytes()
            # With its file away, this process cannot take over when the backend ends.
            right.rename(hidden)
        await states.until(Phase.UNAVAILABLE, f"The backend database {right}")
        with pytest.raises(EmbeddedBackendError, match="is missing"):
            await embedded.verify()
        assert not right.exists(), "no empty database may take the place of the lost one"

        async with running(BackendConfig(tmp_path / "other.db", port=port, open_to_all=True)):
            await states.until(Phase.UNAVAILABLE, "serves other lists")
            with pytest.raises(EmbeddedBackendError, match="serves other lists"):
                await embedded.verify()
            assert (data_dir / "backend.json").read_bytes() == memory
        hidden.rename(right)
        await states.until(Phase.OWN)
        await embedded.verify()


async def test_another_program_that_comes_later_is_not_used(data_dir: Path, port: int, tmp_path: Path) -> None:
    shared = tmp_path / "shared.db"
    states = States()
    async with contextlib.AsyncExitStack() as stack:
        async with running(BackendConfig(shared, port=port, open_to_all=True)):
            embedded = await stack.enter_async_context(EmbeddedBackend.open(data_dir, port, states))
            await states.until(Phase.SHARED)
            shared.rename(tmp_path / "away.db")
        await states.until(Phase.UNAVAILABLE, "is missing")
        async with listener(port, b"HTTP/1.1 200 OK\r\n\r\nhello"):
            await states.until(Phase.UNAVAILABLE, "used by another program")
            with pytest.raises(EmbeddedBackendError, match="used by another program"):
                await embedded.verify()


async def test_a_child_whose_database_was_replaced_is_not_used(data_dir: Path, port: int, tmp_path: Path) -> None:
    own = await synced_once(data_dir, port)
    (tmp_path / "elsewhere").mkdir()
    await synced_once(tmp_path / "elsewhere", port)
    (tmp_path / "elsewhere" / "backend.db").replace(data_dir / "backend.db")
    states = States()
    async with EmbeddedBackend.open(data_dir, port, states) as embedded:
        await states.until(Phase.UNAVAILABLE, "serves other lists")
        with pytest.raises(EmbeddedBackendError, match="serves other lists"):
            await embedded.verify()
    assert json.loads((data_dir / "backend.json").read_text())["backend_id"] == own.backend_id


async def test_a_lost_database_is_told_at_the_start(data_dir: Path, port: int) -> None:
    await synced_once(data_dir, port)
    (data_dir / "backend.db").unlink()
    with pytest.raises(UserError, match=f"The backend database {data_dir / 'backend.db'} .* is missing; restore it"):
        async with EmbeddedBackend.open(data_dir, port):
            pytest.fail("it must not start")
    assert not (data_dir / "backend.db").exists()


async def test_a_backend_of_somebody_else_is_not_taken_for_ours(data_dir: Path, port: int, tmp_path: Path) -> None:
    async with running(BackendConfig(tmp_path / "theirs.db", port=port, open_to_all=True)):
        (tmp_path / "theirs.db").rename(tmp_path / "out of reach.db")
        with pytest.raises(UserError, match="stores its lists where you cannot open them"):
            async with EmbeddedBackend.open(data_dir, port):
                pytest.fail("it must not start")
    assert not (data_dir / "backend.json").exists()


@pytest.mark.parametrize("claimed", [r"a\u0000b", r"/a\u0000b", r"/\ud800", "/dev/null", "", "/etc/passwd", "b.db"])
async def test_a_claimed_file_that_is_not_its_own_is_not_taken(data_dir: Path, port: int, claimed: str) -> None:
    body = f'{{"name": "todo-tui backend", "backend_id": "x", "database": "{claimed}"}}'
    async with listener(port, f"HTTP/1.1 200 OK\r\n\r\n{body}".encode()):
        with pytest.raises(UserError, match="stores its lists where you cannot open them"):
            async with EmbeddedBackend.open(data_dir, port):
                pytest.fail("it must not start")
    assert not (data_dir / "backend.json").exists()


def claim(backend_id: str, database: Path) -> bytes:
    """What a program answers that says to be a backend."""
    body = json.dumps({"name": "todo-tui backend", "backend_id": backend_id, "database": str(database)})
    return f"HTTP/1.1 200 OK\r\n\r\n{body}".encode()


async def test_a_known_database_is_not_exchanged_for_another(data_dir: Path, port: int, tmp_path: Path) -> None:
    own = await synced_once(data_dir, port)
    memory = (data_dir / "backend.json").read_bytes()
    (tmp_path / "copy.db").write_bytes((data_dir / "backend.db").read_bytes())
    (tmp_path / "text.db").write_text("This is not a database.")
    for database in (tmp_path / "copy.db", tmp_path / "text.db"):
        async with listener(port, claim(own.backend_id, database)):
            with pytest.raises(
                UserError, match=f"stores its lists in {database}, but those in {data_dir} are stored in"
            ):
                async with EmbeddedBackend.open(data_dir, port):
                    pytest.fail("it must not start")
    # With the old file gone, only one that carries the same id takes its place.
    (data_dir / "backend.db").unlink()
    async with listener(port, claim(own.backend_id, tmp_path / "text.db")):
        with pytest.raises(UserError, match="is missing; restore it"):
            async with EmbeddedBackend.open(data_dir, port):
                pytest.fail("it must not start")
    assert (data_dir / "backend.json").read_bytes() == memory
    async with running(BackendConfig(tmp_path / "copy.db", port=port, open_to_all=True)):
        states = States()
        async with EmbeddedBackend.open(data_dir, port, states):
            await states.until(Phase.SHARED)
    assert DataOwner(data_dir).recall() == Ownership(None, InnerBackend(own.backend_id, tmp_path / "copy.db"))


async def test_a_database_that_is_served_elsewhere_is_told_soon_and_used_when_it_is_free(
    data_dir: Path, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.connection.embedded_backend")
    states = States()
    async with contextlib.AsyncExitStack() as stack:
        async with running(BackendConfig(data_dir / "backend.db", port=free_port(), open_to_all=True)):
            await stack.enter_async_context(EmbeddedBackend.open(data_dir, port, states))
            await states.until(Phase.UNAVAILABLE, "is served at another port or address; stop the todo-tui")
            assert children(port) == []
            assert "Backend child" not in caplog.text, "no child had to find it out"
        await states.until(Phase.OWN)


async def test_a_backend_for_other_machines_is_shared_on_this_one(data_dir: Path, port: int, tmp_path: Path) -> None:
    states = States()
    async with (
        running(BackendConfig(tmp_path / "b.db", host="0.0.0.0", port=port, open_to_all=True)),
        EmbeddedBackend.open(data_dir, port, states) as embedded,
    ):
        await states.until(Phase.SHARED)
        await embedded.verify()


async def test_whatever_fails_the_backend_goes_on_being_looked_after(
    data_dir: Path, port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(port: int) -> Liveness | Absence:
        raise ZeroDivisionError

    states = States()
    async with EmbeddedBackend.open(data_dir, port, states):
        with monkeypatch.context() as broken:
            broken.setattr("app.connection.embedded_backend.probe", fail)
            await states.until(Phase.UNAVAILABLE, "cannot be used (ZeroDivisionError); retrying")
        await states.until(Phase.OWN)
    assert "Checking the backend on port" in caplog.text


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"backend_id": "x"}', '{"backend_id": "x", "database": 7}', "[" * 60_000]
)
async def test_a_damaged_memory_is_told_at_the_start(data_dir: Path, port: int, text: str) -> None:
    (data_dir / "backend.json").write_text(text)
    with pytest.raises(UserError, match=r"backend\.json is damaged"):
        async with EmbeddedBackend.open(data_dir, port):
            pytest.fail("it must not start")


async def test_a_data_directory_that_was_moved_keeps_its_backend(data_dir: Path, port: int, tmp_path: Path) -> None:
    before = await synced_once(data_dir, port)
    moved = data_dir.rename(tmp_path / "moved")
    assert await synced_once(moved, port) == Liveness(before.backend_id, moved / "backend.db")


async def test_the_childs_own_words_say_why_it_ended(
    data_dir: Path, port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    (data_dir / "backend.db").write_text("This is not a database.")
    states = States()
    async with EmbeddedBackend.open(data_dir, port, states) as embedded:
        await states.until(Phase.UNAVAILABLE, "is not a SQLite database")
        with pytest.raises(EmbeddedBackendError, match="is not a SQLite database"):
            await embedded.verify()
    assert capfd.readouterr() == ("", ""), "nothing of it reaches the terminal"
