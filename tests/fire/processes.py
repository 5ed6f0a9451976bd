"""The processes of a run: how they are started, told, heard, stopped and killed.

Owns the pipes. What a process does is `client`'s and `backend`'s; when something happens to it is `faults`'.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

from tests.fire.clock import JumpingClock
from tests.fire.registers import Event
from tests.kit.network import Host

_ROOT = Path(__file__).parents[2]


class Process:
    """One process that can be started again and again; `life` counts its starts.

    Attributes:
        busy: a fault is being done to it.
    """

    def __init__(
        self,
        name: str,
        log: Path,
        command: Callable[[int], list[str]],
        on_line: Callable[[bytes], None],
        host: Host | None,
        clock: JumpingClock | None,
    ) -> None:
        self.name = name
        self.host = host
        self.clock = clock
        self.life = 0
        self.busy = False
        self.paused = False
        self.expected_to_end = True
        self.ended = asyncio.Event()
        self.ended.set()
        self._log = log
        self._command = command
        self._on_line = on_line
        self._popen: subprocess.Popen[bytes] | None = None
        self._hearing: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        return not self.ended.is_set()

    @property
    def pid(self) -> int:
        """Of its present life, or its last one."""
        assert self._popen is not None
        return self._popen.pid

    def start(self) -> None:
        """Start it, on its host. Returns at once."""
        assert not self.is_running
        self.life += 1
        self.expected_to_end = False
        self.ended.clear()
        environment = {**os.environ, **(self.clock.environment if self.clock else {})}
        with self._log.open("ab") as log, self.host.inside() if self.host else contextlib.nullcontext():
            self._popen = subprocess.Popen(
                self._command(self.life),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=_ROOT,
                env=environment,
                start_new_session=True,
            )
        self._hearing = asyncio.create_task(self._hear(self._popen))

    def tell(self, command: str) -> None:
        """Say something to its stdin; it may be dead."""
        assert self._popen is not None
        stdin: IO[bytes] | None = self._popen.stdin
        assert stdin is not None
        if stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(stdin.fileno(), msgspec.json.encode(command) + b"\n")

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        assert self._popen is not None
        if self.is_running and self._popen.poll() is None:
            self.paused = {signal.SIGSTOP: True, signal.SIGCONT: False}.get(signal.Signals(number), self.paused)
            self._popen.send_signal(number)

    async def kill(self) -> None:
        """End it without any notice."""
        self.expected_to_end = True
        self.signal(signal.SIGKILL)
        await self.ended.wait()

    async def stop(self, seconds: float, *, by: Callable[[], None]) -> bool:
        """Let it end in order; whether it did in time. One that did not is killed."""
        self.expected_to_end = True
        by()
        try:
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        except TimeoutError:
            await self.kill()
            return False
        return self._popen is not None and self._popen.returncode in {0, -signal.SIGTERM, 128 + signal.SIGTERM}

    async def _hear(self, popen: subprocess.Popen[bytes]) -> None:
        assert popen.stdout is not None
        reader = asyncio.StreamReader(limit=1 << 20)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), popen.stdout
        )
        try:
            while line := await reader.readline():
                if line.endswith(b"\n"):
                    self._on_line(line)
            await asyncio.to_thread(popen.wait)
        finally:
            transport.close()
            if popen.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    popen.stdin.close()
            self.paused = False
            if not self.expected_to_end:
                self._on_line(msgspec.json.encode(self._crash(popen.returncode)))
            self.ended.set()

    def _crash(self, code: int | None) -> Event:
        from tests.fire.registers import microseconds

        last = self._log.read_text(errors="replace")[-1500:]
        error = f"exit code {code}: {last}"
        return {"t": microseconds(), "type": "crashed", "process": self.name, "life": self.life, "error": error}


def python(module: str, *arguments: Any) -> list[str]:
    """The command line of a module."""
    return [sys.executable, "-X", "dev" if os.environ.get("FIRE_DEV") else "utf8", "-m", module, *map(str, arguments)]
