"""The opened backend: what the routes share, from the settings to the database.

Opens and closes, and keeps running what works beside the requests: the feed of the streams, the compaction of the
operation log, and the watch on the sync config. Holds no rules of its own.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import uuid
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import cast

import msgspec
from joserfc.jwk import RSAKey
from starlette.datastructures import URL

from app.backend.config import BackendConfig, BackendError
from app.backend.data import compaction, oplog
from app.backend.data.changes import Changes
from app.backend.data.database import Database
from app.backend.data.feed import Feed
from app.backend.data.oplog import OperationLog
from app.backend.data.rows import RowDatabase, SqliteRowDatabase
from app.backend.data.users import SignIn
from app.backend.http import auth
from app.backend.http.limits import OpenStreams
from app.backend.rules import sync_config
from app.backend.rules.streams import SyncRules
from app.backend.rules.tables import LISTS, TODOS
from app.system.sign_in_keys import SignInKey, make_local_key

_CONFIG_SECONDS = 2.0
_COMPACTING_SECONDS = 0.02
_TABLES = {table.name: table.row_names() for table in (LISTS, TODOS)}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """What exists while the database is open."""

    database: Database
    tokens: auth.Tokens
    sign_in: SignIn
    rows: RowDatabase
    log: OperationLog
    feed: Feed
    backend_id: uuid.UUID


class Service:
    """One backend; `open` and `close` may each be called again.

    Attributes:
        config: what it was told.
        changes: wakes streams.
        streams: counts the open ones.
        sync_port: the port of the sync side, if it has one of its own.
    """

    def __init__(self, config: BackendConfig) -> None:
        self.config = config
        self.changes = Changes()
        self.streams = OpenStreams(config.limits)
        self.sync_port: int | None = None
        self._opened: Opened | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._following: asyncio.Task[None] | None = None

    @property
    def opened(self) -> Opened:
        """The open database and what belongs to it; only between `open` and `close`."""
        assert self._opened is not None
        return self._opened

    def sync_url(self, base_url: URL) -> str:
        """Where clients find the sync side, as they have found the backend itself at `base_url`."""
        if self.config.powersync_url is not None:
            return self.config.powersync_url
        if self.sync_port is not None:
            base_url = base_url.replace(port=self.sync_port)
        return str(base_url).rstrip("/")

    async def open(self) -> None:
        """Open the database. Raises BackendError if it cannot be opened, or if the sync config is not understood."""
        if self._opened is not None:
            return
        path = self.config.sync_config or sync_config.DEFAULT
        seen = _stamp(path)
        rules = await asyncio.to_thread(sync_config.load, path, _TABLES)
        database = await Database.open(self.config.database, self.changes)
        try:
            local_key = await asyncio.to_thread(_local_key, self.config.database)
            backend_id, key = await database.write(_load_identity, user_id="")
            log = OperationLog(backend_id, rules)
            await database.write(lambda connection: _adopt(connection, log, rules), user_id="")
            feed = Feed(database, log, self.changes)
            await feed.start()
            rows = SqliteRowDatabase(database, log) if self.config.postgres is None else await _postgres(self.config)
        except BaseException:
            await database.close()
            raise
        tokens = auth.Tokens(
            key,
            valid_seconds=self.config.token_seconds,
            audience=self.config.audience,
            shared_secret=self.config.shared_secret,
        )
        sign_in = SignIn(local_key, open_to_all=self.config.open_to_all)
        self._opened = Opened(database, tokens, sign_in, rows, log, feed, backend_id)
        self._following = _follow(feed)
        self._tasks = [asyncio.create_task(self._compact())]
        if self.config.sync_config is not None:
            self._tasks.append(asyncio.create_task(self._watch_sync_config(self.config.sync_config, seen)))

    async def close(self) -> None:
        """End the streams and close the database."""
        self.changes.close()
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.feed.end()
            tasks = [*self._tasks, *([self._following] if self._following else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await opened.rows.close()
            await opened.database.close()

    async def change_sync_config(self, rules: SyncRules) -> None:
        """Fill the buckets anew by other rules and end all streams: their clients come back and get the new ones.

        Raises sqlite3.Error if the database is in trouble; the old rules hold on then.
        """
        opened = self.opened
        await opened.database.write(lambda connection: _adopt(connection, opened.log, rules), user_id="")
        feed = Feed(opened.database, opened.log, self.changes)
        await feed.start()
        if self._following is not None:
            self._following.cancel()
        self._following = _follow(feed)
        self._opened = replace(opened, feed=feed)
        # Last: whose stream ends finds the new feed when it comes back.
        opened.feed.end()

    async def _compact(self) -> None:
        """Keep the operation log in proportion to the rows, a step and a transaction at a time."""
        database = self.opened.database
        compacted_to = -1
        while True:
            await asyncio.sleep(self.config.compact_seconds)
            last_op_id = self.opened.feed.last_op_id
            if last_op_id == compacted_to:
                continue
            try:
                await compact(database, forget_lookups_to=last_op_id)
            except sqlite3.Error as error:
                _log.warning("The operation log was not compacted: %s", error)
                continue
            compacted_to = last_op_id

    async def _watch_sync_config(self, path: Path, seen: tuple[int, ...]) -> None:
        """Take in a sync config whose file has changed; one that is not understood changes nothing."""
        while True:
            await asyncio.sleep(_CONFIG_SECONDS)
            stamp = _stamp(path)
            if stamp == seen:
                continue
            try:
                rules = await asyncio.to_thread(sync_config.load, path, _TABLES)
                if rules != self.opened.log.rules:
                    await self.change_sync_config(rules)
                    _log.warning("The sync config %s has changed: the buckets are filled anew.", path)
            except (BackendError, sqlite3.Error) as error:
                _log.warning("The sync config stays as it was: %s", error)
                if isinstance(error, sqlite3.Error):
                    continue
            seen = stamp


async def compact(database: Database, *, forget_lookups_to: int) -> None:
    """Compact all buckets that are worth it, in small transactions between which others write.

    Raises sqlite3.Error if the database is in trouble. Cancelling leaves the rest for the next time.
    """
    await database.write(lambda connection: compaction.forget_lookups(connection, forget_lookups_to), user_id="")
    position: compaction.Position | None = None
    while True:
        work = partial(compaction.compact, position=position, seconds=_COMPACTING_SECONDS)
        position = await database.write(work, user_id="")
        if position is None:
            return


def _follow(feed: Feed) -> asyncio.Task[None]:
    """Run the feed; if it fails by a mistake its streams end, instead of staying silent for ever."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("The open streams end: what follows the log failed.", exc_info=error)
            feed.end()

    task = asyncio.create_task(feed.run())
    task.add_done_callback(ended)
    return task


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _adopt(connection: sqlite3.Connection, log: OperationLog, rules: SyncRules) -> None:
    """Let the log go by `rules`, and fill it anew if it was filled by others."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'sync_config'").fetchone()
    generation, known = msgspec.json.decode(row[0], type=tuple[int, str]) if row else (0, "")
    print_of_rules = sync_config.fingerprint(rules)
    before = (log.rules, log.generation)
    try:
        if known == print_of_rules:
            log.adopt(rules, generation)
            return
        log.adopt(rules, generation + 1)
        oplog.rebuild(connection, log, _TABLES)
        value = msgspec.json.encode((generation + 1, print_of_rules)).decode()
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('sync_config', ?)", [value])
    except BaseException:
        log.adopt(*before)
        raise


async def _postgres(config: BackendConfig) -> RowDatabase:
    """Raises BackendError if PostgreSQL cannot be reached, or the driver is not installed."""
    assert config.postgres is not None
    try:
        from app.backend.data.postgres import PostgresDatabase
    except ImportError as error:
        raise BackendError(
            "PostgreSQL needs the extra postgres, which is not installed: pip install 'todo-tui[postgres]'."
        ) from error
    return await PostgresDatabase.open(config.postgres)


def _local_key(database: Path) -> SignInKey:
    try:
        return make_local_key(database)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BackendError(f"Cannot make the sign-in key beside {database}: {reason}; check its directory.") from error


def _load_identity(connection: sqlite3.Connection) -> tuple[uuid.UUID, RSAKey]:
    (backend_id,) = connection.execute("SELECT value FROM meta WHERE key = 'backend_id'").fetchone()
    return uuid.UUID(cast("str", backend_id)), auth.load_key(connection)


def version() -> str:
    """The version of the installed application, or "unknown" if it is not installed."""
    try:
        return metadata.version("todo-tui")
    except metadata.PackageNotFoundError:
        return "unknown"
