"""What may be wrong with the data, the settings and the way to the backend.

Owns the checks and what each advises. Changes nothing: files are only read, and the backend is only asked whether it
answers. What is in the database file is for `sync.inspect` to say.
"""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from app.settings.settings import Settings
    from sync import FileInspection, SyncGate

_LEAST_SQLITE: Final = (3, 38, 0)
_LARGE_WAL: Final = 64 * 1024 * 1024
_OLD_QUEUE_SECONDS: Final = 24 * 3600
_CLOCK_SECONDS: Final = 30
_TOKEN_SECONDS: Final = 60
_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        what: what was looked at.
        state: how it is.
        description: a sentence or a value; for a warning or a problem with what to do.
    """

    what: str
    state: Literal["ok", "warning", "problem"]
    description: str


def examine(settings: Settings) -> list[Finding]:
    """Run all checks; none raises."""
    database = settings.data_dir / "todo.db"
    findings = [*_sqlite(), *_files(settings.data_dir)]
    checks: list[Callable[[], Generator[Finding]]] = [
        lambda: _database(database),
        lambda: _owner(settings),
        lambda: _network(settings),
    ]
    for check in checks:
        try:
            findings += check()
        except Exception as error:  # noqa: BLE001 -- whatever fails is what the user wants to know
            findings.append(Finding("doctor", "problem", f"A check failed ({type(error).__name__}: {error})."))
    return findings


def bundle_text(findings: list[Finding], settings: Settings) -> str:
    """What was found, for others to look at: without names, texts, keys, addresses and places."""
    import platform
    import re
    from importlib import metadata

    packages = ("todo-tui", "textual", "httpx", "aiosqlite", "msgspec", "pydantic-settings")
    secrets = [str(settings.data_dir), str(settings.user_id), str(Path.home())]
    secrets += [url for url in (settings.backend_url, settings.service_url, settings.database) if url]
    lines = [f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    for package in packages:
        try:
            lines.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{package} is not installed")
    lines += [f"{each.state}: {each.what}: {each.description}" for each in findings]
    text = "\n".join(lines) + "\n"
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    return re.sub(r"https?://\S+", "…", text)


def _sqlite() -> Generator[Finding]:
    version = sqlite3.sqlite_version_info
    if version < _LEAST_SQLITE:
        yield Finding("SQLite", "problem", f"{sqlite3.sqlite_version} is too old; use a Python with 3.38 or newer.")
    else:
        yield Finding("SQLite", "ok", sqlite3.sqlite_version)


def _files(directory: Path) -> Generator[Finding]:
    import os

    if not directory.exists():
        yield Finding("data directory", "ok", f"{directory} does not exist yet; the first start creates it.")
        return
    if not directory.is_dir() or not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("data directory", "problem", f"{directory} cannot be used; choose another with --data-dir.")
        return
    yield Finding("data directory", "ok", str(directory))
    for path in sorted(directory.iterdir()):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            continue
        if hasattr(os, "getuid") and status.st_uid != os.getuid():
            yield Finding(path.name, "problem", f"It belongs to another account; run chown {os.getuid()} {path}.")
        elif stat.S_IMODE(status.st_mode) & 0o077 and not path.name.endswith("-lock"):
            yield Finding(path.name, "warning", f"Other accounts may read it; run chmod 600 {path}.")


def _database(path: Path) -> Generator[Finding]:
    from sync import inspect

    found = inspect(path)
    if not found.exists:
        yield Finding("database", "ok", "There is none yet.")
        return
    if found.unreadable is not None:
        yield Finding(
            "database",
            "problem",
            f"{path} cannot be read now ({found.unreadable}); close the program that uses it, and try again.",
        )
    elif found.is_damaged:
        yield Finding(
            "database",
            "problem",
            f"{path} is damaged ({found.damage[0]}); quit all todo-tui and run todo-tui doctor --repair, which keeps "
            "the old file and everything that only this device has.",
        )
    else:
        yield Finding("database", "ok", "Integrity check passed.")
    if found.schema_version is not None:
        yield Finding("schema version", "ok", str(found.schema_version))
    yield from _waiting(found)
    if found.log_size > _LARGE_WAL:
        yield Finding(
            "write-ahead log", "warning", f"{found.log_size:,} bytes; it shrinks when all todo-tui have been closed."
        )
    else:
        yield Finding("write-ahead log", "ok", f"{found.log_size:,} bytes")
    if found.open_in:
        yield Finding("open in", "ok", ", ".join(str(process) for process in found.open_in))
    if found.syncing_process is None:
        yield Finding("syncing", "ok", "No process is syncing these lists now.")
    else:
        yield Finding("syncing", "ok", f"Process {found.syncing_process} syncs these lists.")


def _waiting(found: FileInspection) -> Generator[Finding]:
    """What waits for the backend, or for the user."""
    entries, oldest = found.queue_length, found.queue_oldest_at
    if entries is None and found.schema_version is not None:
        yield Finding("queue", "problem", "The queue cannot be read.")
    elif oldest is not None and (age := datetime.now(UTC) - oldest).total_seconds() > _OLD_QUEUE_SECONDS:
        yield Finding(
            "queue",
            "warning",
            f"{entries:,} changes wait for upload, the oldest for {age.days} days; run todo-tui sync to see why.",
        )
    elif entries is not None:
        yield Finding("queue", "ok", f"{entries:,} changes wait for upload." if entries else "Nothing to upload.")
    if (gate := found.gate) is not None:
        yield Finding("gate", "ok", _gate(gate))
    if found.rejected_writes:
        yield Finding(
            "rejected", "warning", f"{found.rejected_writes:,} changes were rejected; todo-tui rejected shows why."
        )


def _gate(gate: SyncGate) -> str:
    """Whether what others changed is shown: not while changes of one's own are on their way to the service and back."""
    if gate.queue_length:
        return "Closed: what others changed is shown once the changes that wait are uploaded."
    if not gate.is_open:
        return "Closed: the service has yet to send back what was uploaded; see todo-tui status."
    return "Open: what others change is shown as it comes."


def _owner(settings: Settings) -> Generator[Finding]:
    from app.connection.account import account_of
    from app.system.user_error import UserError

    try:
        user_id = account_of(settings).user_id
    except UserError as error:
        yield Finding("user and backend", "problem", str(error))
    else:
        yield Finding("user and backend", "ok", f"The lists belong to user {user_id}.")


def _network(settings: Settings) -> Generator[Finding]:
    if settings.backend_url is None:
        yield Finding("backend", "ok", "The one built into todo-tui.")
        return
    import httpx

    for what, url in (("backend", settings.backend_url), ("service", settings.service_url)):
        if url is None:
            continue
        try:
            answer = httpx.get(f"{url}/probes/liveness", timeout=_SECONDS)
        except httpx.HTTPError as error:
            yield Finding(
                what, "problem", f"{url} does not answer ({type(error).__name__}); check the address and the network."
            )
            continue
        yield Finding(what, "ok", f"{url} answers.")
        if what == "backend":
            yield asyncio.run(_token(settings, url))
        if sent := answer.headers.get("date"):
            yield from _clock(what, sent)


async def _token(settings: Settings, url: str) -> Finding:
    """What the backend says to who signs in, and whether this machine's clock agrees with the token."""
    from app.connection.backend_check import BackendCheck
    from app.connection.connector import BackendRefusedError, BackendUnreachableError, HttpConnector
    from app.connection.sign_in import sign_in_key, signed_in_user
    from app.system.user_error import UserError

    try:
        user_id, check = signed_in_user(settings), BackendCheck(sign_in_key(settings))
        connector = HttpConnector(url, user_id, interface=settings.upload_interface, check=check, timeout=_SECONDS)
        try:
            credentials = await connector.fetch_credentials()
        finally:
            await connector.aclose()
    except (BackendRefusedError, BackendUnreachableError, UserError) as error:
        return Finding("token", "problem", str(error))
    now, claims = datetime.now(UTC).timestamp(), credentials.claims()
    made, expires = claims.get("iat"), claims.get("exp")
    if isinstance(made, (int, float)) and made - now > _TOKEN_SECONDS:
        return Finding("token", "problem", f"The token is not valid for another {made - now:.0f} s: check the clock.")
    if not isinstance(expires, (int, float)):
        return Finding("token", "ok", "The backend issues one.")
    left = expires - now
    if left <= 0:
        return Finding(
            "token",
            "problem",
            f"It expired {-left:.0f} s ago: check the clock, or ask whoever runs the backend.",
        )
    return Finding("token", "ok", f"Valid for another {left:.0f} s.")


def _clock(what: str, sent: str) -> Generator[Finding]:
    try:
        apart = (datetime.now(UTC) - parsedate_to_datetime(sent)).total_seconds()
    except (ValueError, TypeError):
        return
    if abs(apart) > _CLOCK_SECONDS:
        yield Finding(
            "clock",
            "problem",
            f"It differs from the clock of the {what} by {abs(apart):.0f} seconds: set it, or tokens are refused.",
        )
    else:
        yield Finding("clock", "ok", f"It agrees with the clock of the {what}.")
