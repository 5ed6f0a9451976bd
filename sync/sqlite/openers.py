"""Which processes have a database file open, and how one process gets it for itself alone.

Every opener keeps a small file beside the database, `NAME-open-PID`, locked for as long as it has the database open;
the operating system releases the lock of a process that dies. A process that needs the file alone locks
`NAME-rescue-lock` first and looks for locked marks second; openers do it the other way round. So of two that come at
the same moment at least one sees the other. Owns these files. Must not know what the file is needed for.

Functions take real paths (`os.path.realpath`), so that all names of a file share its marks, and block.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from filelock import lock_descriptor

from sync.errors import DatabaseInUseError
from sync.sqlite.cancellation import run_to_completion
from sync.sqlite.connection_thread import BUSY_TIMEOUT_SECONDS, make_private_file

logger = logging.getLogger("sync.connection")

_GRACE_SECONDS = 1.0
"""How long `alone` waits for those who are about to close the file, or who hold a mark only to look at it."""

_POLL_SECONDS = 0.02
_RESCUE_POLL_SECONDS = 0.1
_FLAGS = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class OpenProcess:
    """A process that has a database file open.

    Attributes:
        pid: its number.
        program: the name of its program, such as `todo-tui`; None if it could not be read.
    """

    pid: int
    program: str | None

    def __str__(self) -> str:
        return f"process {self.pid}" if self.program is None else f"{self.program} (process {self.pid})"


class OpenMark:
    """The mark by which others see that this process has a database file open.

    Args:
        path: of the database, as the app gave it.

    Attributes:
        path: once the mark is up, the real path: all names of a file mean the same one, from whatever directory.
    """

    def __init__(self, path: str) -> None:
        self.path = self._name = path
        self._file: str | None = None
        self._descriptor: int | None = None

    async def put_up(self) -> None:
        """Put the mark up, and make the database file if it is missing.

        While another process has the file for itself alone, waits for a few seconds. Where no mark can be made or
        locked, the database can be opened all the same: a warning is logged, and a rescue has to find out from SQLite
        that the file is open.

        Raises:
            DatabaseInUseError: another process still has the file for itself alone.
            OSError: the database file cannot be made.
        """
        deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
        while (rescuer := await run_to_completion(asyncio.to_thread(self._try))) is not None:
            if time.monotonic() > deadline:
                raise DatabaseInUseError(
                    f"The database {self._name} is being rescued by {rescuer}; open it again when that has ended.",
                    (rescuer.pid,),
                )
            await asyncio.sleep(_RESCUE_POLL_SECONDS)

    async def take_down(self) -> None:
        """Remove the mark. Idempotent."""
        if self._descriptor is None:
            return
        await run_to_completion(asyncio.to_thread(self._take_down))

    def _try(self) -> OpenProcess | None:
        """Put the mark up, unless a process has the file for itself alone: then returns that process."""
        self.path = os.path.realpath(self._name)
        make_private_file(self.path)
        try:
            self._create()
        except OSError as error:
            self._warn(error)
        rescuer = _rescuer(self.path)
        if rescuer is None:
            remove_stale_marks(self.path, but=self._file)
        else:
            self._take_down()
        return rescuer

    def _take_down(self) -> None:
        file, self._file = self._file, None
        descriptor, self._descriptor = self._descriptor, None
        if file is not None:
            with contextlib.suppress(OSError):
                Path(file).unlink()
        if descriptor is not None:
            os.close(descriptor)

    def _create(self) -> None:
        own = f"{self.path}-open-{os.getpid()}"
        for number in count():  # this process may have the file open several times
            file = f"{own}-{number}" if number else own
            descriptor = os.open(file, _FLAGS | os.O_CREAT, 0o600)
            try:
                locked = lock_descriptor(descriptor, blocking=False)
            except OSError as error:
                self._warn(error)
                locked = True
            if locked and _is_named(descriptor, file):
                self._file, self._descriptor = file, descriptor
                os.ftruncate(descriptor, 0)
                os.write(descriptor, _own_line())
                return
            os.close(descriptor)

    def _warn(self, error: OSError) -> None:
        logger.warning("others cannot see that %s is open here: %s", self.path, error.strerror or error)


def open_processes(path: str) -> tuple[OpenProcess, ...]:
    """The processes that have a database file open, this one included if it has."""
    found = {process.pid: process for file in _marks(path) if (process := _holder(file)) is not None}
    return tuple(found[pid] for pid in sorted(found))


def remove_stale_marks(path: str, but: str | None = None) -> None:
    """Remove the marks of processes that were killed. The one that is excepted need not be looked at."""
    for file in _marks(path):
        if file != but:
            _holder(file, remove_stale=True)


@contextmanager
def alone(path: str) -> Generator[None]:
    """Have a database file for oneself: nobody has it open, and whoever wants to open it waits.

    Programs that do not use this engine are not seen; SQLite's own locks tell of those.

    Raises:
        DatabaseInUseError: somebody has it open, or for themselves.
        OSError: the lock cannot be made.
    """
    deadline = time.monotonic() + _GRACE_SECONDS
    with _rescue_lock(path, deadline):
        while processes := open_processes(path):
            if time.monotonic() > deadline:
                raise DatabaseInUseError(
                    f"{path} is open in {_listed(processes)}; close it there first. Nothing was changed.",
                    tuple(process.pid for process in processes),
                )
            time.sleep(_POLL_SECONDS)
        remove_stale_marks(path)
        yield


@contextmanager
def _rescue_lock(path: str, deadline: float) -> Generator[None]:
    file = f"{path}-rescue-lock"
    while True:
        descriptor = os.open(file, _FLAGS | os.O_CREAT, 0o600)
        try:
            if lock_descriptor(descriptor, blocking=False) and _is_named(descriptor, file):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if time.monotonic() > deadline:
            other = _rescuer(path)
            raise DatabaseInUseError(
                f"{path} is being rescued already, by {other or 'another process'}. Nothing was changed.",
                () if other is None else (other.pid,),
            )
        time.sleep(_POLL_SECONDS)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, _own_line())
        yield
    finally:
        with contextlib.suppress(OSError):
            Path(file).unlink()
        os.close(descriptor)


def _rescuer(path: str) -> OpenProcess | None:
    """The process that has the file for itself alone, or None."""
    return _holder(f"{path}-rescue-lock")


def _marks(path: str) -> list[str]:
    directory, name = os.path.split(path)
    mark = re.compile(rf"{re.escape(name)}-open-\d+(-\d+)?")
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.path for entry in entries if mark.fullmatch(entry.name))
    except OSError:
        return []


def _holder(file: str, *, remove_stale: bool = False) -> OpenProcess | None:
    """The process that holds the lock on a mark, or None."""
    try:
        descriptor = os.open(file, _FLAGS)
    except FileNotFoundError:
        return None
    except OSError:  # it is another account's
        return _if_alive(_written_in(file, ""))
    try:
        try:
            is_free = lock_descriptor(descriptor, blocking=False)
        except OSError:  # this file system has no locks
            return _if_alive(_written_in(file, _line(descriptor)))
        if not is_free:
            return _written_in(file, _line(descriptor))
        if remove_stale and _is_named(descriptor, file):
            with contextlib.suppress(OSError):
                Path(file).unlink()
        return None
    finally:
        os.close(descriptor)


def _line(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, _LONGEST_NAME).decode("utf-8", "replace")


def _written_in(file: str, line: str) -> OpenProcess:
    number, _, program = line.strip().partition(" ")
    if not number.isdecimal():  # it is being written; the name of a mark gives the number too
        found = re.search(r"-open-(\d+)(-\d+)?$", file)
        number = found.group(1) if found else "0"
    return OpenProcess(int(number), program or None)


def _if_alive(process: OpenProcess) -> OpenProcess | None:
    if process.pid == 0:
        return None
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return process
    return process


def _own_line() -> bytes:
    """What a mark says of this process: not what it was called with, which may hold the user's texts."""
    program = Path(sys.argv[0] if sys.argv else "")
    name = program.parent.name if program.name == "__main__.py" else program.name
    return f"{os.getpid()} {name if name and not name.startswith('-') else 'python'}\n".encode()[:_LONGEST_NAME]


def _is_named(descriptor: int, file: str) -> bool:
    """Whether a file still has its name: somebody may have removed it between opening and locking it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except OSError:
        return False


def _listed(processes: tuple[OpenProcess, ...]) -> str:
    names = [str(process) for process in processes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
