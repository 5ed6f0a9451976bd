"""A PostgreSQL server of the tests' own: a cluster in a temporary directory, on a Unix socket and a loopback port.

Owns how its programs are found, and as whom they run: PostgreSQL refuses to run as root. It is started, killed and
restarted for real.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

_SECONDS = 60


def programs() -> Path | None:
    """The directory with PostgreSQL's server programs, or None if there is none that can be run."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    usable = next((each for each in found if (each / "initdb").exists() and (each / "pg_ctl").exists()), None)
    if usable is not None and os.geteuid() == 0 and (_account() is None or shutil.which("setpriv") is None):
        return None
    return usable


def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return None


class PostgresServer:
    """A server; `start` it, and `stop` it at the end."""

    def __init__(self, directory: Path, port: int) -> None:
        found = programs()
        assert found is not None
        self._programs = found
        self._data = directory / "data"
        self._log = directory / "log"
        self.port = port
        directory.mkdir()
        account = _account()
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            assert account is not None
            os.chown(directory, account.pw_uid, account.pw_gid)
            self._as_user = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N")
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"\nport = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n"
                "wal_level = logical\nshared_buffers = 16MB\nmax_connections = 40\n"
            )

    @property
    def url(self) -> str:
        """Where it is, as the superuser."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self._log), "-w", "-t", str(_SECONDS), "start")

    def stop(self) -> None:
        """Stop it, whatever is connected."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop", check=False)

    def kill(self) -> None:
        """Kill it, without leave to finish anything, and wait until its children are gone too."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
        left = [pid, *map(int, children)]
        for each in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        deadline = time.monotonic() + _SECONDS
        while any(Path(f"/proc/{each}/exe").exists() for each in left):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Where nobody collects dead processes, a new server would take the old one for alive.
        (self._data / "postmaster.pid").unlink()

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        done = subprocess.run(
            [*self._as_user, str(self._programs / program), *arguments],
            cwd="/",
            stdin=subprocess.DEVNULL,
            # Not a pipe: the server would inherit it and keep it open.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS + 10,
            check=False,
        )
        assert not check or done.returncode == 0, (program, self._log.read_text()[-2000:] if self._log.exists() else "")
