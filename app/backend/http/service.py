"""The running backend: the state that the routes share, from the settings to the database.

Owns opening and closing, and the background tasks: the feed for the streams, the compaction of the operation log, and
watching the sync config for changes. Contains no sync rules itself.
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
    """The objects that exist while the database is open."""

    database: Database
    tokens: auth.Tokens
    sign_in: SignIn
    rows: RowDatabase
    log: OperationLog
    feed: Feed
    backend_id: uuid.UUID


class Service:
    """One backend. It is safe to call `open` and `close` more than once.

    Attributes:
        config: the settings.
        changes: notifies streams of commits.
        streams: counts and limits the open streams.
        sync_port: the port of the sync API, if it has its own.
    """

    def __init__(self, config: BackendConfig) -> None:
        self.config = config
        self.changes = Changes()
        self.streams = OpenStreams(config.limits)
        self.sync_port: int | None = None
        self._opened: Opened | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._feed_task: asyncio.Task[None] | None = None

    @property
    def opened(self) -> Opened:
        """The open database and the objects that depend on it; available only between `open` and `close`."""
        assert self._opened is not None
        return self._opened

    def sync_url(self, base_url: URL) -> str:
        """Return the URL of the sync API for a client that reached the backend at `base_url`."""
        if self.config.powersync_url is not None:
            return self.config.powersync_url
        if self.sync_port is not None:
            base_url = base_url.replace(port=self.sync_port)
        return str(base_url).rstrip("/")

    async def open(self) -> None:
        """Open the database. Raises BackendError if it cannot be opened or the sync config is invalid."""
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
            await database.write(lambda connection: _apply_rules(connection, log, rules), user_id="")
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
        self._feed_task = _start_feed(feed)
        self._tasks = [asyncio.create_task(self._compact())]
        if self.config.sync_config is not None:
            self._tasks.append(asyncio.create_task(self._watch_sync_config(self.config.sync_config, seen)))

    async def close(self) -> None:
        """End the streams and close the database."""
        self.changes.close()
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.feed.end()
            tasks = [*self._tasks, *([self._feed_task] if self._feed_task else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await opened.rows.close()
            await opened.database.close()

    async def change_sync_config(self, rules: SyncRules) -> None:
        """Rebuild the buckets with `rules` and end all streams, so that clients reconnect and sync the new buckets.

        Raises sqlite3.Error if the database cannot be written; the previous rules then stay in effect.
        """
        opened = self.opened
        await opened.database.write(lambda connection: _apply_rules(connection, opened.log, rules), user_id="")
        feed = Feed(opened.database, opened.log, self.changes)
        await feed.start()
        if self._feed_task is not None:
            self._feed_task.cancel()
        self._feed_task = _start_feed(feed)
        self._opened = replace(opened, feed=feed)
        # Must come last: clients whose streams end here must find the new feed when they reconnect.
        opened.feed.end()

    async def _compact(self) -> None:
        """Keep the size of the operation log in proportion to the rows, in small transactions."""
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
                _log.warning("Failed to compact the operation log: %s", error)
                continue
            compacted_to = last_op_id

    async def _watch_sync_config(self, path: Path, seen: tuple[int, ...]) -> None:
        """Reload the sync config when its file changes; an invalid one is logged and ignored."""
        while True:
            await asyncio.sleep(_CONFIG_SECONDS)
            stamp = _stamp(path)
            if stamp == seen:
                continue
            try:
                rules = await asyncio.to_thread(sync_config.load, path, _TABLES)
                if rules != self.opened.log.rules:
                    await self.change_sync_config(rules)
                    _log.warning("The sync config %s has changed; the buckets were rebuilt.", path)
            except (BackendError, sqlite3.Error) as error:
                _log.warning("Failed to reload the sync config; the previous one stays in effect: %s", error)
                if isinstance(error, sqlite3.Error):
                    continue
            seen = stamp


async def compact(database: Database, *, forget_lookups_to: int) -> None:
    """Compact all buckets for which it is worthwhile, in small transactions, so that other writers are not held up.

    Raises sqlite3.Error if the database cannot be written. If cancelled, the rest is left for the next call.
    """
    await database.write(lambda connection: compaction.forget_lookups(connection, forget_lookups_to), user_id="")
    position: compaction.Position | None = None
    while True:
        work = partial(compaction.compact, position=position, seconds=_COMPACTING_SECONDS)
        position = await database.write(work, user_id="")
        if position is None:
            return


def _start_feed(feed: Feed) -> asyncio.Task[None]:
    """Start the feed; if it crashes, end its streams, which would otherwise never receive anything again."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("Closing all open sync streams: the feed crashed (internal error).", exc_info=error)
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


def _apply_rules(connection: sqlite3.Connection, log: OperationLog, rules: SyncRules) -> None:
    """Use `rules` for the log, and rebuild it if it was built with different rules."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'sync_config'").fetchone()
    generation, stored_fingerprint = msgspec.json.decode(row[0], type=tuple[int, str]) if row else (0, "")
    fingerprint = sync_config.fingerprint(rules)
    previous = (log.rules, log.generation)
    try:
        if stored_fingerprint == fingerprint:
            log.adopt(rules, generation)
            return
        log.adopt(rules, generation + 1)
        oplog.rebuild(connection, log, _TABLES)
        value = msgspec.json.encode((generation + 1, fingerprint)).decode()
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('sync_config', ?)", [value])
    except BaseException:
        log.adopt(*previous)
        raise


async def _postgres(config: BackendConfig) -> RowDatabase:
    """Raises BackendError if PostgreSQL cannot be reached or the driver is not installed."""
    assert config.postgres is not None
    try:
        from app.backend.data.postgres import PostgresDatabase
    except ImportError as error:
        raise BackendError(
            "PostgreSQL support is not installed; install it with: pip install 'todo-tui[postgres]'."
        ) from error
    return await PostgresDatabase.open(config.postgres)


def _local_key(database: Path) -> SignInKey:
    try:
        return make_local_key(database)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BackendError(
            f"Cannot create the sign-in key next to {database}: {reason}; check its directory."
        ) from error


def _load_identity(connection: sqlite3.Connection) -> tuple[uuid.UUID, RSAKey]:
    (backend_id,) = connection.execute("SELECT value FROM meta WHERE key = 'backend_id'").fetchone()
    return uuid.UUID(cast("str", backend_id)), auth.load_key(connection)


def version() -> str:
    """Return the version of the installed application, or "unknown" if it is not installed."""
    try:
        return metadata.version("todo-tui")
    except metadata.PackageNotFoundError:
        return "unknown"
