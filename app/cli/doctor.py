"""What may be wrong with the data, the settings and the way to the backend.

Owns the checks and what each advises. Changes nothing: files are opened for reading, and the backend is only asked
whether it lives.
"""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from app.settings.settings import Settings

_LEAST_SQLITE: Final = (3, 38, 0)
_LARGE_WAL: Final = 64 * 1024 * 1024
_OLD_QUEUE_SECONDS: Final = 24 * 3600
_CLOCK_SECONDS: Final = 30
_TOKEN_SECONDS: Final = 60
_SECONDS: Final = 5.0
_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        what: what was looked at.
        state: how it is.
        told: a sentence or a value; for a warning or a problem with what to do.
    """

    what: str
    state: Literal["ok", "warning", "problem"]
    told: str


def examine(settings: Settings) -> list[Finding]:
    """Run all checks; none raises."""
    database = settings.data_dir / "todo.db"
    findings = [*_sqlite(), *_files(settings.data_dir)]
    checks: list[Callable[[], Generator[Finding]]] = [
        lambda: _database(database),
        lambda: _holder(database),
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
    lines += [f"{each.state}: {each.what}: {each.told}" for each in findings]
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
        yield Finding("data directory", "ok", f"{directory} is not there yet; it is made at the first start.")
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
    if not path.exists():
        yield Finding("database", "ok", "There is none yet.")
        return
    try:
        with closing(sqlite3.connect(f"file:{path.as_posix()}?mode=ro", uri=True, timeout=_SECONDS)) as connection:
            connection.execute("PRAGMA query_only = ON")
            yield from _content(connection)
    except sqlite3.OperationalError as error:
        yield Finding("database", "problem", f"{path} cannot be read now: {error}; end what holds it.")
    except sqlite3.DatabaseError as error:
        yield Finding(
            "database",
            "problem",
            f"{path} is damaged ({error}); quit all todo-tui and run todo-tui doctor --repair, "
            "which keeps it and what waits.",
        )
    wal = path.with_name(f"{path.name}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > _LARGE_WAL:
        yield Finding("log", "warning", f"The write-ahead log has {size:,} bytes; quit all todo-tui, then it shrinks.")
    else:
        yield Finding("log", "ok", f"{size:,} bytes")


def _content(connection: sqlite3.Connection) -> Generator[Finding]:
    (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise sqlite3.DatabaseError(answer)
    yield Finding("database", "ok", "Its pages are whole.")
    (version,) = connection.execute("SELECT max(id) FROM ps_migration").fetchone()
    yield Finding("schema version", "ok", str(version))
    (entries,) = connection.execute("SELECT count(*) FROM ps_crud").fetchone()
    (oldest,) = connection.execute(
        "SELECT (SELECT made_at FROM ps_crud_times WHERE id <= (SELECT min(id) FROM ps_crud) ORDER BY id DESC LIMIT 1)"
    ).fetchone()
    age = datetime.now(UTC).timestamp() - oldest / _MICROSECONDS if entries and oldest else 0
    if age > _OLD_QUEUE_SECONDS:
        days = int(age // 86_400)
        yield Finding(
            "queue", "warning", f"{entries:,} changes wait, the oldest for {days} days; run todo-tui sync and see why."
        )
    else:
        yield Finding("queue", "ok", f"{entries:,} changes wait" if entries else "Nothing waits.")
    yield _gate(connection, entries)
    rejected = connection.execute(
        "SELECT count(*) FROM sqlite_schema WHERE name = 'ps_rejected_transactions'"
    ).fetchone()[0]
    if rejected and (count := connection.execute("SELECT count(*) FROM ps_rejected_transactions").fetchone()[0]):
        yield Finding("rejected", "warning", f"{count:,} changes were rejected; todo-tui rejected shows why.")


def _gate(connection: sqlite3.Connection, waiting: int) -> Finding:
    """Whether what others changed is shown: not while changes of one's own are on their way to the service and back."""
    query = "SELECT CAST(value AS INTEGER) FROM ps_kv WHERE key = ?"
    target, seen = (
        (connection.execute(query, (f"{name}_checkpoint_request_id",)).fetchone() or (0,))[0]
        for name in ("target", "last_seen")
    )
    if waiting:
        return Finding("gate", "ok", "Closed: what others changed is shown once the changes that wait are uploaded.")
    if target > seen:
        return Finding("gate", "ok", "Closed: the service has yet to send back what was uploaded; see todo-tui status.")
    return Finding("gate", "ok", "Open: what others change is shown as it comes.")


def _holder(database: Path) -> Generator[Finding]:
    """Who syncs: the process that holds the lock, whose id stands in the file."""
    from filelock import FileLock, Timeout

    lock = database.with_name(f"{database.name}-sync-lock")
    if not lock.exists():
        return
    try:
        with FileLock(lock, timeout=0):
            yield Finding("syncing", "ok", "Nobody syncs these lists now.")
    except Timeout:
        yield Finding("syncing", "ok", f"Process {lock.read_text('utf-8').strip() or '?'} syncs these lists.")


def _owner(settings: Settings) -> Generator[Finding]:
    from app.connection.account import account_of
    from app.system.user_error import UserError

    try:
        user_id = account_of(settings).user_id
    except UserError as error:
        yield Finding("user and backend", "problem", str(error))
    else:
        yield Finding("user and backend", "ok", f"The lists are those of user {user_id}.")


def _network(settings: Settings) -> Generator[Finding]:
    if settings.backend_url is None:
        yield Finding("backend", "ok", "The one inside todo-tui.")
        return
    import httpx

    for what, url in (("backend", settings.backend_url), ("service", settings.service_url)):
        if url is None:
            continue
        try:
            answer = httpx.get(f"{url}/probes/liveness", timeout=_SECONDS)
        except httpx.HTTPError as error:
            yield Finding(
                what, "problem", f"{url} does not answer ({type(error).__name__}); look at the address and the network."
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
        return Finding("token", "problem", f"It begins to hold in {made - now:.0f} s by this clock; set the clock.")
    if not isinstance(expires, (int, float)):
        return Finding("token", "ok", "The backend gives one.")
    left = expires - now
    if left <= 0:
        return Finding(
            "token",
            "problem",
            f"It expired {-left:.0f} s ago by this clock; set the clock, or ask whoever runs the backend.",
        )
    return Finding("token", "ok", f"It holds for {left:.0f} s.")


def _clock(what: str, sent: str) -> Generator[Finding]:
    try:
        apart = (datetime.now(UTC) - parsedate_to_datetime(sent)).total_seconds()
    except (ValueError, TypeError):
        return
    if abs(apart) > _CLOCK_SECONDS:
        yield Finding(
            "clock",
            "problem",
            f"It is {abs(apart):.0f} seconds from that of the {what}; set it, or tokens are refused.",
        )
    else:
        yield Finding("clock", "ok", f"It agrees with that of the {what}.")
