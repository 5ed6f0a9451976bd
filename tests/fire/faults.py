"""What is done to the processes of a run, at random and from a seed: each fault begins, lasts a while, and is healed.

Two go on at a time, never two on the same process but for those of the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fire.processes import Process
from tests.kit.network import Host

if TYPE_CHECKING:
    from tests.fire.run import Run

_LONGEST_SECONDS = 8.0
_LONGEST_PAUSE_BETWEEN = 3.0
_STOP_SECONDS = 40.0

Fault = Callable[["Nemesis"], Awaitable[None]]


class Nemesis:
    """Does faults until it is cancelled; whatever it leaves undone, `Run` heals."""

    def __init__(self, run: Run, names: list[str], seed: str) -> None:
        self.run = run
        self.random = random.Random(seed)
        self._names = names

    async def rage(self) -> None:
        """One fault after the other."""
        while True:
            await asyncio.sleep(self.random.uniform(0, _LONGEST_PAUSE_BETWEEN))
            await FAULTS[self.random.choice(self._names)](self)

    async def last(self, name: str, **details: object) -> None:
        """Tell that the fault has begun, and let it go on for a while."""
        seconds = self.random.uniform(0, min(_LONGEST_SECONDS, self.run.seconds / 3))
        self.run.tell("fault", name=name, seconds=round(seconds, 2), **details)
        await asyncio.sleep(seconds)

    def some(self, processes: list[Process]) -> list[Process]:
        """One to all of those that run and have no other fault."""
        free = [process for process in processes if process.is_running and not process.busy]
        return self.random.sample(free, self.random.randint(1, len(free))) if free else []

    def some_hosts(self) -> list[Host]:
        processes = self.random.choice([self.run.clients, self.run.clients, [self.run.backend]])
        hosts = [process.host for process in processes if process.host is not None]
        return self.random.sample(hosts, self.random.randint(1, len(hosts))) if hosts else []


@contextlib.contextmanager
def busy(processes: list[Process]):
    for process in processes:
        process.busy = True
    try:
        yield
    finally:
        for process in processes:
            process.busy = False


def _names(processes: list[Process]) -> list[str]:
    return [process.name for process in processes]


async def disconnect(nemesis: Nemesis) -> None:
    """Orderly: the app disconnects, goes on writing, and connects again."""
    chosen = nemesis.some(nemesis.run.clients)
    with busy(chosen):
        for client in chosen:
            client.tell("disconnect")
        await nemesis.last("disconnect", of=_names(chosen))
        for client in chosen:
            client.tell("connect")


async def reset(nemesis: Nemesis) -> None:
    """Abrupt: every connection that carries anything to the host is reset."""
    hosts = nemesis.some_hosts()
    for host in hosts:
        host.resets = True
    await nemesis.last("reset", of=[host.name for host in hosts])
    for host in hosts:
        host.resets = False


async def stop(nemesis: Nemesis) -> None:
    """Stopped in order, and started on the same file."""
    chosen = nemesis.some(nemesis.run.clients)
    with busy(chosen):
        for client in chosen:
            await nemesis.run.stop_client(client)
        await nemesis.last("stop", of=_names(chosen))
        for client in chosen:
            await nemesis.run.start_client(client)


async def kill(nemesis: Nemesis) -> None:
    """SIGKILL, to clients or the backend, and a start on the same file."""
    chosen = nemesis.some(nemesis.random.choice([nemesis.run.clients, nemesis.run.clients, [nemesis.run.backend]]))
    with busy(chosen):
        for process in chosen:
            await process.kill()
        await nemesis.last("kill", of=_names(chosen))
        for process in chosen:
            await nemesis.run.start_again(process)


async def pause(nemesis: Nemesis) -> None:
    """SIGSTOP and SIGCONT."""
    chosen = nemesis.some(nemesis.random.choice([nemesis.run.clients, nemesis.run.clients, [nemesis.run.backend]]))
    with busy(chosen):
        for process in chosen:
            process.signal(signal.SIGSTOP)
        await nemesis.last("pause", of=_names(chosen))
        for process in chosen:
            process.signal(signal.SIGCONT)


async def partition(nemesis: Nemesis) -> None:
    """Packets are swallowed, in one direction or in both."""
    hosts = nemesis.some_hosts()
    how = nemesis.random.choice(["sent", "received", "both"])
    for host in hosts:
        host.cut(sent=how != "received", received=how != "sent")
    await nemesis.last("partition", of=[host.name for host in hosts], direction=how)
    for host in hosts:
        host.cut(sent=False, received=False)


async def slow(nemesis: Nemesis) -> None:
    """Packets take their time, and some are lost."""
    hosts = nemesis.some_hosts()
    for host in hosts:
        host.latency, host.loss = nemesis.random.uniform(0, 0.3), nemesis.random.uniform(0, 0.15)
    await nemesis.last("slow", of=[host.name for host in hosts])
    for host in hosts:
        host.latency = host.loss = 0.0


async def disk(nemesis: Nemesis) -> None:
    """The clients' file system has no room left."""
    chosen = nemesis.some(nemesis.run.clients)
    with busy(chosen):
        for client in chosen:
            fill(nemesis.run.directory_of(client))
        await nemesis.last("disk", of=_names(chosen))
        for client in chosen:
            free(nemesis.run.directory_of(client))


def fill(directory: Path) -> None:
    """Take all the room there is."""
    with (directory / "filler").open("ab", buffering=0) as filler:
        try:
            while filler.write(b"\0" * 65536):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def free(directory: Path) -> None:
    """Give it back."""
    (directory / "filler").unlink(missing_ok=True)


async def clock(nemesis: Nemesis) -> None:
    """The wall clock jumps by up to two days in either direction, and back."""
    chosen = nemesis.random.sample(nemesis.run.processes, nemesis.random.randint(1, len(nemesis.run.processes)))
    for process in chosen:
        if process.clock is not None:
            process.clock.jump_to(int(nemesis.random.choice([-1, 1]) * 10 ** nemesis.random.uniform(0, 5.2)))
    await nemesis.last("clock", of=_names(chosen))
    for process in chosen:
        if process.clock is not None:
            process.clock.jump_to(0)


async def config(nemesis: Nemesis) -> None:
    """The backend restarts with another sync config: every bucket has another name."""
    backend = nemesis.run.backend
    if backend.busy or not backend.is_running:
        return
    with busy([backend]):
        await backend.stop(_STOP_SECONDS, by=lambda: backend.signal(signal.SIGTERM))
        nemesis.run.change_sync_config()
        await nemesis.last("config")
        await nemesis.run.start_again(backend)


async def second(nemesis: Nemesis) -> None:
    """A second process opens a client's file, writes there too, and ends in order or is killed."""
    free_seconds = [each for each in nemesis.run.seconds_on_files if not each.is_running and not each.busy]
    if not free_seconds:
        return
    process = nemesis.random.choice(free_seconds)
    with busy([process]):
        await nemesis.run.start_client(process)
        await nemesis.last("second", of=[process.name])
        if nemesis.random.random() < 0.5:
            await process.kill()
        else:
            await nemesis.run.stop_client(process)


async def token(nemesis: Nemesis) -> None:
    """Nothing to do: with this fault all tokens of the run are valid for a few seconds only."""
    await nemesis.last("token")


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (disconnect, reset, stop, kill, pause, partition, slow, disk, clock, config, second, token)
}
OF_THE_NETWORK = {"partition", "slow", "reset"}
