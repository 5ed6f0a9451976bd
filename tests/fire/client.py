"""A client process: one database, transactions that read all registers and write four, and a record of each.

Run as `python -m tests.fire.client NAME FILE LIFE WRITER URL SEED RATE`. Events go to stdout, commands come from stdin,
one JSON word a line: "connect", "disconnect", "begin", "quiesce", "final", "close". It never helps the engine: after
`connect` nothing but its own loops gets it going again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from app.connection.connector import HttpConnector
from app.store.schema import APP_SCHEMA
from sync import (
    CrudTransaction,
    DatabaseOpenError,
    NotConnectedError,
    PowerSyncDatabase,
    PowerSyncError,
    Row,
    SyncOptions,
    Verdict,
)
from tests.fire import registers
from tests.fire.registers import KEYS, KEYS_PER_WRITE, LIST, READ, USER, WRITE

OPTIONS = SyncOptions(
    retry_delay=0.1,
    max_retry_delay=2.0,
    credentials_timeout=5.0,
    upload_timeout=6.0,
    connect_timeout=4.0,
    silence_timeout=6.0,
)
"""The engine's own deadlines are a minute and more: shortened, so that a run of a minute meets each of them often."""


class Recorder:
    """Writes events to stdout, each in one piece."""

    def __init__(self, name: str, file: str, life: int) -> None:
        self._who = {"process": name, "file": file, "life": life}

    def tell(self, kind: str, **details: object) -> None:
        line = registers.encode({"t": registers.microseconds(), "type": kind, **self._who, **details})
        while line:
            line = line[os.write(1, line) :]


class RecordingConnector(HttpConnector):
    """The app's connector, telling what is sent and what has left the queue."""

    def __init__(self, url: str, recorder: Recorder) -> None:
        super().__init__(url, USER, timeout=4.0)
        self._recorder = recorder
        self._sent: list[int] = []

    def _left_the_queue(self) -> None:
        if self._sent:
            self._recorder.tell("completed", values=self._sent)
        self._sent = []

    async def upload_data(self, database: PowerSyncDatabase) -> None:
        self._sent = []
        await super().upload_data(database)
        self._left_the_queue()

    async def upload_transactions(self, transactions: Sequence[CrudTransaction]) -> Sequence[Verdict]:
        self._left_the_queue()
        values = [int((transaction.crud[0].data or {}).get("description", 0)) for transaction in transactions]
        self._recorder.tell("attempt", values=values)
        verdicts = await super().upload_transactions(transactions)
        self._sent = values[: len(verdicts)]
        return verdicts


def state_of(rows: Sequence[Row]) -> dict[str, int]:
    return {row["id"]: int(row["description"]) for row in rows}


class Client:
    """What the commands do."""

    def __init__(
        self, database: PowerSyncDatabase, recorder: Recorder, url: str, writer: int, rate: float, rng: random.Random
    ) -> None:
        self.database = database
        self.recorder = recorder
        self.connector = RecordingConnector(url, recorder)
        self._writer = writer
        self._rate = rate
        self._random = rng
        self._working: asyncio.Task[None] | None = None

    async def work(self) -> None:
        """Write and read until cancelled."""
        while True:
            try:
                subscription = await self.database.sync_stream("todos", {"list": LIST}).subscribe()
                break
            except sqlite3.Error:
                await asyncio.sleep(0.5)
        while True:
            try:
                await subscription.wait_for_first_sync()
                break
            except NotConnectedError:  # a fault disconnected it meanwhile
                await asyncio.sleep(0.1)
        while True:
            await asyncio.sleep(self._random.expovariate(self._rate))
            if self._random.random() < 0.6:
                await self._write()
            else:
                await self._read("read")

    async def _write(self) -> None:
        keys = self._random.sample(KEYS, KEYS_PER_WRITE)
        value = 0
        try:
            async with self.database.write_transaction() as transaction:
                # Not before the lock is held: values must grow in the order of the file's transactions.
                value = registers.new_value(self._writer)
                state = state_of(await transaction.get_all(READ))
                self.recorder.tell("invoke", value=value, keys=keys, state=state)
                for key in keys:
                    await transaction.execute(WRITE, [str(value), key])
        except (sqlite3.Error, PowerSyncError) as error:
            self.recorder.tell("fail", value=value, error=str(error))
        else:
            self.recorder.tell("ok", value=value)

    async def _read(self, kind: str, **details: object) -> None:
        try:
            before = self.database.status.last_synced_at
            state = state_of(await self.database.get_all(READ))
        except (sqlite3.Error, PowerSyncError) as error:
            self.recorder.tell("unreadable", error=str(error))
            return
        synced_at = None if before is None else int(before.timestamp() * 1e6)
        self.recorder.tell(kind, state=state, synced_at=synced_at, **details)

    async def obey(self, command: str) -> None:
        match command:
            case "connect":
                await self.database.connect(self.connector, OPTIONS)
            case "disconnect":
                await self.database.disconnect()
            case "begin":
                self._working = asyncio.create_task(self.work())
            case "quiesce":
                await self.stop_working()
            case "final":
                status = self.database.status
                stats = await self.database.upload_queue_stats()
                elsewhere = status.syncing_elsewhere
                await self._read(
                    "final",
                    waiting=stats.transactions,
                    rejected=len(await self.database.rejected_writes()),
                    busy=status.downloading or status.uploading or not (status.connected or elsewhere),
                    errors=[str(error) for error in (status.download_error, status.upload_error) if error is not None],
                )
            case _:
                raise ValueError(command)

    async def stop_working(self) -> None:
        working, self._working = self._working, None
        if working is not None:
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working


async def opened(path: str, recorder: Recorder) -> PowerSyncDatabase:
    """The open database. The disk may be full: a user would try again, and so does this."""
    while True:
        database = PowerSyncDatabase(path, APP_SCHEMA)
        try:
            await database.open()
            await database.sync_stream("todos", {"list": LIST}).subscribe()
        except (DatabaseOpenError, sqlite3.Error) as error:
            recorder.tell("unopenable", error=str(error))
            await database.close()
            await asyncio.sleep(0.5)
        else:
            return database


async def live(path: str, recorder: Recorder, make: Callable[[PowerSyncDatabase], Client]) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    database = await opened(path, recorder)
    client = make(database)
    try:
        await database.connect(client.connector, OPTIONS)
        recorder.tell("started")
        while line := await reader.readline():
            command = msgspec.json.decode(line)
            if command == "close":
                break
            await client.obey(command)
        await client.stop_working()
    finally:
        await database.close()
    await client.connector.aclose()
    transport.close()
    for _ in range(5):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        recorder.tell("tasks", leaked=[task.get_name() for task in left])


def open_files() -> set[str]:
    """What the file descriptors of this process are, but for the standard ones."""
    found: set[str] = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if int(entry.name) > 2:
                found.add(f"{entry.name} {entry.readlink()}")
    return {each for each in found if "/proc/" not in each}


def main() -> None:
    name, path, life, writer, url, seed, rate = sys.argv[1:]
    recorder = Recorder(name, path, int(life))
    rng = random.Random(f"{seed} {name} {life}")
    # Whatever a first loop opens for good is no leak.
    asyncio.run(asyncio.sleep(0))
    before = open_files()

    def make(database: PowerSyncDatabase) -> Client:
        return Client(database, recorder, url, int(writer), float(rate), rng)

    asyncio.run(live(path, recorder, make))
    gc.collect()
    leaked = sorted(open_files() - before) + [
        thread.name for thread in threading.enumerate() if thread is not threading.main_thread()
    ]
    recorder.tell("closed", leaked=leaked)


if __name__ == "__main__":
    main()
