"""The demo backend inside todo-tui: finds one on the loopback port, or runs one as a child process.

Owns the child process, and the check of who serves the port: only the backend that the lists of the data directory
belong to is used. Must not know what is synced, nor import the engine or the interface; of the backend it knows only
its file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, cast

from app.connection.backend_check import BackendCheck
from app.connection.data_owner import DataOwner, InnerBackend
from app.system.sign_in_keys import SignInKey, local_key_path, read_local_key
from app.system.user_error import UserError

HOST = "127.0.0.1"
CHILD_PORT_TAKEN = 98
"""Exit code of a backend child that found its port in use."""

_PROBE_SECONDS = 3.0
_WATCH_SECONDS = 1.0
_READY_SECONDS = 60.0
_SETTLE_SECONDS = 20.0
_HANDOVER_SECONDS = 2.0
_STOP_SECONDS = 6.0
_KILL_SECONDS = 2.0
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 30.0
_STABLE_SECONDS = 10.0
_MAX_ANSWER = 65536
_MAX_STDERR = 8192

_log = logging.getLogger(__name__)


class EmbeddedBackendError(Exception):
    """There is no backend that may be used now. The message is one sentence; nothing was sent to any other."""


class Phase(Enum):
    """Who serves the port, as far as this process knows."""

    STARTING = "starting"
    OWN = "own"
    SHARED = "shared"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class BackendState:
    """What is known about the backend at one moment.

    Attributes:
        phase: STARTING: not known yet; OWN: the child of this process serves; SHARED: the backend of another
            process serves; UNAVAILABLE: none may be used now.
        problem: one sentence that says why none can be used; None in the other phases.
    """

    phase: Phase
    problem: str | None = None

    @property
    def usable(self) -> bool:
        """Whether a backend with the right data serves the port."""
        return self.phase in (Phase.OWN, Phase.SHARED)


@dataclass(frozen=True, slots=True)
class Liveness:
    """How a todo-tui backend introduces itself.

    Attributes:
        backend_id: the id kept in its database.
        database: its database file, or None if it does not say.
    """

    backend_id: str
    database: Path | None


class Absence(Enum):
    """Why no todo-tui backend answered a probe."""

    NOBODY = "nothing listens"
    STRANGER = "something else listens, or does not answer in time"


async def probe(port: int, seconds: float = _PROBE_SECONDS) -> Liveness | Absence:
    """Ask who serves `port` on the loopback interface; takes at most `seconds`. May be cancelled."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    answer = await _ask(port)
                except ConnectionRefusedError:
                    return Absence.NOBODY
                except OSError:
                    answer = b""
                if answer:
                    return _introduction(answer)
                # Closed without an answer: a backend that is exiting does that, and is gone a moment later.
                await asyncio.sleep(0.05)
    except TimeoutError:
        return Absence.STRANGER


async def _ask(port: int) -> bytes:
    """The answer to a liveness request; only its beginning if that is enough to see that it is something else."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        if writer.get_extra_info("sockname") == writer.get_extra_info("peername"):
            # The system chose the port itself as the outgoing one and connected the socket to itself.
            raise ConnectionRefusedError
        writer.write(f"GET /probes/liveness HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        answer = b""
        while chunk := await reader.read(_MAX_ANSWER):
            answer += chunk
            if len(answer) > _MAX_ANSWER or (len(answer) >= 5 and not answer.startswith(b"HTTP/")):
                break
        return answer
    finally:
        # Not awaited: the peer may be anything, and nothing more is needed of it.
        writer.close()


def _introduction(answer: bytes) -> Liveness | Absence:
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError):
        return Absence.STRANGER
    if head.split(b" ")[1:2] != [b"200"] or not isinstance(content, dict):
        return Absence.STRANGER
    fields = cast("dict[str, Any]", content)
    backend_id, database = fields.get("backend_id"), fields.get("database")
    if fields.get("name") != "todo-tui backend" or not isinstance(backend_id, str) or not backend_id:
        return Absence.STRANGER
    return Liveness(backend_id, _path(database) if isinstance(database, str) and database else None)


def _path(text: str) -> Path | None:
    """`text` as an absolute path, if any file can have that name."""
    try:
        possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return None
    return Path(text) if possible and Path(text).is_absolute() else None


class EmbeddedBackend(BackendCheck):
    """Keeps one backend with the right data on a loopback port; make one with `EmbeddedBackend.open`."""

    def __init__(self, data_dir: Path, port: int, on_change: Callable[[BackendState], None] | None = None) -> None:
        super().__init__()
        self._data_dir = data_dir
        self._port = port
        self._on_change = on_change
        self._owner = DataOwner(data_dir)
        self._known: InnerBackend | None = None
        self._state = BackendState(Phase.STARTING)
        self._settled = asyncio.Event()
        self._judging = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, data_dir: Path, port: int, on_change: Callable[[BackendState], None] | None = None
    ) -> AsyncGenerator[EmbeddedBackend]:
        """Check who serves the port, then keep a backend there in the background until the block is left.

        A child that this process started is ended with the block.

        Args:
            data_dir: exists and can be written.
            port: loopback TCP port.
            on_change: called on the event loop after each change of `state`; it must not raise.

        Raises:
            UserError: the port is used by something else, or by a backend with other data, or the backend database
                of these lists is gone.
        """
        backend = cls(data_dir, port, on_change)
        await backend._check()
        keeper = asyncio.create_task(backend._keep(), name="keep a backend on the port")
        try:
            yield backend
        finally:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper

    @property
    def url(self) -> str:
        """Base URL of the backend, whoever serves it."""
        return f"http://{HOST}:{self._port}"

    @property
    def state(self) -> BackendState:
        """What is known about the backend now."""
        return self._state

    async def verify(self) -> None:
        """Return if what answers on the port says that it is the backend of these lists; waits while it starts.

        Takes at most 25 seconds. Call it before credentials of the backend are used: it keeps apart backends that use
        the same port by accident. It believes what answers; an impostor is found out because it does not know the key
        (`sign_in_key`).

        Raises:
            EmbeddedBackendError: there is none, or another one.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                await self._settled.wait()
        found = await probe(self._port)
        if found is Absence.NOBODY:
            raise EmbeddedBackendError(self._state.problem or "The backend inside todo-tui is still starting.")
        problem = await self._judge(found)
        if problem is not None:
            raise EmbeddedBackendError(problem)

    async def sign_in_key(self) -> SignInKey:
        """The key stored beside the backend's database; without it there are no tokens.

        Raises:
            EmbeddedBackendError: it cannot be read: another account or an older todo-tui runs the backend.
        """
        key = await asyncio.to_thread(read_local_key, self._database())
        if key is None:
            raise EmbeddedBackendError(
                f"The sign-in key {local_key_path(self._database())} cannot be read; quit an older todo-tui that is "
                "still running, or choose another port with --port."
            )
        return key

    async def _check(self) -> None:
        self._known = await asyncio.to_thread(self._owner.recall_inner)
        found = await probe(self._port)
        problem = self._missing_database() if found is Absence.NOBODY else await self._judge(found)
        if problem is not None:
            raise UserError(problem)

    async def _keep(self) -> None:
        """Use the backend that answers, or start one; again and again, until cancelled."""
        failures = 0
        while True:
            started = asyncio.get_running_loop().time()
            try:
                steady = await self._keep_once()
            except Exception as error:  # noqa: BLE001 - logged; without this task no backend would come back
                _log.exception("Checking the backend on port %d failed.", self._port)
                problem = f"The backend inside todo-tui cannot be used ({type(error).__name__}); retrying."
                self._post(BackendState(Phase.UNAVAILABLE, problem))
                steady = False
            if steady or asyncio.get_running_loop().time() - started >= _STABLE_SECONDS:
                failures = 0
            await asyncio.sleep(_WATCH_SECONDS if steady else min(_LONGEST_DELAY, _FIRST_DELAY * 2**failures))
            failures += not steady

    async def _keep_once(self) -> bool:
        """Use the backend that answers, or run one until it ends; False if one has ended."""
        found = await probe(self._port)
        if found is not Absence.NOBODY:
            problem = await self._judge(found)
            self._post(BackendState(Phase.UNAVAILABLE if problem else Phase.SHARED, problem))
            return True
        if (problem := self._missing_database() or await self._served_elsewhere()) is not None:
            self._post(BackendState(Phase.UNAVAILABLE, problem))
            return True
        if (problem := await self._run_child(self._database())) is not None:
            self._post(BackendState(Phase.UNAVAILABLE, problem))
        return False

    async def _served_elsewhere(self) -> str | None:
        """A sentence if the database is served although nobody listens on the port; waits for one that is exiting."""
        from app.backend.data.file import is_served

        waited = 0.0
        while await asyncio.to_thread(is_served, self._database()):
            if waited >= _HANDOVER_SECONDS:
                return (
                    f"The backend database {self._database()} is served at another port or address; stop the todo-tui "
                    f"that serves it, or let it listen on port {self._port} of {HOST}."
                )
            await asyncio.sleep(_HANDOVER_SECONDS / 10)
            waited += _HANDOVER_SECONDS / 10
        return None

    async def _run_child(self, database: Path) -> str | None:
        """Serve `database` with a child until it ends; returns why it did, or None if another backend has the port."""
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "app", "backend", "--host", HOST, "--port", str(self._port), "--database", str(database)),
                "--until-stdin-closes",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                # `-m` looks for `app` here first: a directory of that name in the current directory must not be used.
                cwd=Path(__file__).parents[2],
                # Ctrl-C in the terminal is for the interface; the child ends with it, because its stdin closes.
                start_new_session=True,
            )
        except OSError as error:
            return f"The backend inside todo-tui cannot be started: {error.strerror}; retrying."
        _log.info("Backend child %d started on port %d with %s.", child.pid, self._port, database)
        assert child.stdout is not None
        assert child.stderr is not None
        stderr_text = asyncio.create_task(_read_tail(child.stderr), name="read the backend's stderr")
        problem: str | None = None
        try:
            async with asyncio.timeout(_READY_SECONDS) as patience:
                if await child.stdout.readline():
                    problem = await self._meet_child()
                patience.reschedule(None)
                if problem is None:
                    await child.wait()
        except TimeoutError:
            problem = f"The backend inside todo-tui was not ready within {_READY_SECONDS:.0f} seconds."
        finally:
            await _end(child)
            text = await stderr_text
            _log.info("Backend child %d ended with code %s: %s", child.pid, child.returncode, text or "no message")
        if child.returncode == CHILD_PORT_TAKEN:
            return None
        reason = text.splitlines()[-1].strip().rstrip(".") if text else f"exit code {child.returncode}"
        return problem or f"The backend inside todo-tui exited ({reason}); restarting it."

    async def _meet_child(self) -> str | None:
        """Use the child; returns what is wrong if its data is not that of these lists."""
        problem = await self._judge(await probe(self._port))
        if problem is None:
            self._post(BackendState(Phase.OWN))
        return problem

    async def _judge(self, found: Liveness | Absence) -> str | None:
        """Whether `found` may be used: None, or a sentence that says why not. The first one is recorded for good."""
        if isinstance(found, Absence):
            return f"Port {self._port} is used by another program; quit it, or choose another port with --port."
        async with self._judging:
            try:
                return await asyncio.to_thread(self._take, found)
            except UserError as error:
                return str(error)

    def _take(self, found: Liveness) -> str | None:
        # Another todo-tui with the same data directory may have recorded one meanwhile.
        known = self._known = self._owner.recall_inner()
        if known is not None and known.backend_id != found.backend_id:
            return (
                f"The todo-tui backend on port {self._port} serves other lists than those in {self._data_dir}; quit "
                "the todo-tui that runs it, choose another port with --port, or show its lists with another --data-dir."
            )
        if known is not None and known.database.is_file():
            if found.database is None or not found.database.exists() or _same(found.database, known.database):
                return None
            return (
                f"The todo-tui backend on port {self._port} stores its lists in {found.database}, but those in "
                f"{self._data_dir} are stored in {known.database}; quit the todo-tui that runs it, or choose another "
                "port with --port."
            )
        if found.database is None or not _is_usable(found.database, found.backend_id):
            return self._missing_database() or (
                f"The todo-tui backend on port {self._port} stores its lists where you cannot open them; choose "
                f"another port with --port, or connect to it with --backend {self.url}."
            )
        backend = InnerBackend(found.backend_id, found.database)
        self._owner.claim(None, backend)
        self._known = backend
        return None

    def _database(self) -> Path:
        return self._data_dir / "backend.db" if self._known is None else self._known.database

    def _missing_database(self) -> str | None:
        known = self._known
        if known is None or known.database.is_file():
            return None
        return (
            f"The backend database {known.database} of the lists in {self._data_dir} is missing; "
            "restore it, or start with no lists in another directory with --data-dir."
        )

    def _post(self, state: BackendState) -> None:
        self._settled.set()
        if state == self._state:
            return
        self._state = state
        if state.problem is None:
            _log.info("The backend on port %d is used (%s).", self._port, state.phase.value)
        else:
            _log.warning("%s", state.problem)
        if self._on_change is not None:
            self._on_change(state)


def _is_usable(database: Path, backend_id: str) -> bool:
    """Whether `database` is that backend's, and this process could serve it when its server ends."""
    from app.backend.data.file import backend_id_of

    return os.access(database, os.R_OK | os.W_OK) and backend_id_of(database) == backend_id


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


async def _read_tail(stream: asyncio.StreamReader) -> str:
    """The last few kilobytes of what `stream` brings until its end."""
    tail = b""
    while chunk := await stream.read(_MAX_STDERR):
        tail = (tail + chunk)[-_MAX_STDERR:]
    return tail.decode("utf-8", "replace").strip()


async def _end(child: asyncio.subprocess.Process) -> None:
    """Stop `child`, by force if it takes long; afterwards it has exited and its exit code is known."""
    assert child.stdin is not None
    try:
        child.stdin.close()
        for seconds, stop in ((_STOP_SECONDS, child.terminate), (_KILL_SECONDS, child.kill)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await child.wait()
                    return
            with contextlib.suppress(ProcessLookupError):
                stop()
        await child.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        raise
