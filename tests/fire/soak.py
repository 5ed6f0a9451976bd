"""Hours of everyday use: `python -m tests.fire.soak --minutes 120 --seed 7`.

Two clients on files of their own and a backend, each a real process. The clients add, edit, complete and delete to-dos,
follow what they show, go offline and come back, and close and open their file. From outside is measured what must stay
as it is: memory, handles, threads, the write-ahead log and the file of each. At the end all three hold the same.
`tests.fire.soak_client` is what a client does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.fire.processes import Process, python

MEGABYTE: Final = 1 << 20
_SECONDS_TO_END: Final = 60.0
_FEWEST_SAMPLES: Final = 25
_CONTENTS: Final = (
    "SELECT id, name FROM lists ORDER BY id",
    "SELECT id, description, completed FROM todos ORDER BY id",
)

Sample = dict[str, float]

_ALLOWED: Final[dict[str, Callable[[float], float]]] = {
    "memory (MB)": lambda early: early * 1.05 + 4,
    "handles": lambda early: early + 3,
    "threads": lambda early: early + 1,
    "log (MB)": lambda early: max(early * 1.5, 8),
    "file (MB)": lambda early: early * 1.25 + 1,
}
"""How much the median of the last fifth may be, given that of the second fifth."""


def sampled(process: int, path: Path) -> Sample:
    """What a process holds now. The threads of a loop's helpers come and go, and are counted with the others."""
    status = Path(f"/proc/{process}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    log = path.with_name(path.name + "-wal")
    return {
        "memory (MB)": int(fields["VmRSS"].split()[0]) / 1024,
        "handles": len(list(Path(f"/proc/{process}/fd").iterdir())),
        "threads": int(fields["Threads"]),
        "log (MB)": log.stat().st_size / MEGABYTE if log.exists() else 0.0,
        "file (MB)": path.stat().st_size / MEGABYTE,
    }


def grown(samples: list[Sample]) -> list[str]:
    """What did not stay as it was, a sentence each; the first fifth is for warming up. A few samples tell nothing."""
    if len(samples) < _FEWEST_SAMPLES:
        return []
    fifth = len(samples) // 5
    found: list[str] = []
    for name, allowed in _ALLOWED.items():
        early = statistics.median(sample[name] for sample in samples[fifth : 2 * fifth])
        late = statistics.median(sample[name] for sample in samples[-fifth:])
        if late > allowed(early):
            found.append(f"{name}: {early:.1f} at first, {late:.1f} in the end")
    return found


def contents(path: Path) -> list[list[tuple[object, ...]]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [connection.execute(query).fetchall() for query in _CONTENTS]


class Soak:
    """One soak, in a directory of its own.

    Attributes:
        done: what each client did, as it told at its end.
    """

    def __init__(self, directory: Path, minutes: float, seed: int, every: float) -> None:
        self._seconds = minutes * 60
        self._every = every
        self.done: dict[str, dict[str, int]] = {"one": {}, "two": {}}
        self._url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.files = {name: directory / f"{name}.db" for name in ("backend", "one", "two")}
        self._log = log = directory / "stderr.log"

        def backend(_life: int) -> list[str]:
            return python("app", "backend", "--port", "0", "--database", self.files["backend"], "--open")

        def client(name: str) -> Callable[[int], list[str]]:
            return lambda _: python("tests.fire.soak_client", self.files[name], self._url.result(), f"{seed} {name}")

        self._backend = Process("backend", log, backend, self._hear_backend, None, None)
        self._clients = [Process(name, log, client(name), self._hear(name), None, None) for name in ("one", "two")]

    def _hear(self, name: str) -> Callable[[bytes], None]:
        def hear(line: bytes) -> None:
            self.done[name] = json.loads(line)

        return hear

    def _hear_backend(self, line: bytes) -> None:
        if not self._url.done() and line.startswith(b"http"):
            self._url.set_result(line.decode().strip())

    async def __call__(self) -> dict[str, list[Sample]]:
        """Run it; gives the samples of each process."""
        samples: dict[str, list[Sample]] = defaultdict(list)
        processes = [self._backend, *self._clients]
        try:
            self._backend.start()
            await asyncio.wait_for(asyncio.shield(self._url), 30)
            for client in self._clients:
                client.start()
            end = time.monotonic() + self._seconds
            while (left := end - time.monotonic()) > 0:
                await asyncio.sleep(min(left, self._every))
                for process in processes:
                    if not process.is_running:
                        raise RuntimeError(f"{process.name} ended: {self._log.read_text()[-2000:]}")
                    with contextlib.suppress(FileNotFoundError):  # a client may not have made its file yet
                        samples[process.name].append(sampled(process.pid, self.files[process.name]))
            for client in self._clients:
                client.expected_to_end = True
                client.tell("finish")
            async with asyncio.timeout(_SECONDS_TO_END):
                for client in self._clients:
                    await client.ended.wait()
            return samples
        finally:
            for client in self._clients:
                await client.kill()
            await self._backend.stop(10, by=lambda: self._backend.signal(signal.SIGTERM))


async def soak(arguments: argparse.Namespace, directory: Path) -> bool:
    run = Soak(directory, arguments.minutes, arguments.seed, arguments.every)
    samples = await run()
    failed: list[str] = []
    print("| | " + " | ".join(_ALLOWED) + " |")
    print("|---" * (len(_ALLOWED) + 1) + "|")
    for name, taken in samples.items():
        fifth = max(1, len(taken) // 5)
        parts = [
            f"{statistics.median(each[key] for each in taken[fifth : 2 * fifth]):.1f} → "
            f"{statistics.median(each[key] for each in taken[-fifth:]):.1f}, at most {max(e[key] for e in taken):.1f}"
            for key in _ALLOWED
        ]
        print(f"| {name} | " + " | ".join(parts) + " |")
        failed += [f"{name}, {each}" for each in grown(taken)]
    for name, done in run.done.items():
        print(f"{name}: {done}")
        if contents(run.files[name]) != contents(run.files["backend"]):
            failed.append(f"{name} holds something else than the backend")
        if not done.get("writes"):
            failed.append(f"{name} wrote nothing")
    if arguments.samples is not None:
        arguments.samples.write_text(json.dumps(samples), "utf-8")
    for sentence in failed:
        print(sentence)
    flat = (
        "flat" if all(len(taken) >= _FEWEST_SAMPLES for taken in samples.values()) else "too short to tell whether flat"
    )
    told = "FAILED" if failed else f"{flat}, and the same everywhere"
    print(f"{told}: {arguments.minutes:g} minutes, seed {arguments.seed}")
    return not failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fire.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--every", type=float, default=10, help="seconds between two samples")
    parser.add_argument("--samples", type=Path, help="keep all samples in this file, as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        return not asyncio.run(soak(arguments, Path(scratch)))


if __name__ == "__main__":
    sys.exit(main())
