"""The opened backend: what the routes share, from the settings to the database.

Opens and closes; holds no rules of its own.
"""

from __future__ import annotations

import sqlite3
import uuid
from dataclasses import dataclass
from importlib import metadata
from typing import cast

from joserfc.jwk import RSAKey

from app.backend import auth
from app.backend.changes import Changes
from app.backend.config import BackendConfig
from app.backend.database import Database
from app.backend.oplog import OperationLog


@dataclass(frozen=True)
class Opened:
    """What exists while the database is open."""

    database: Database
    tokens: auth.Tokens
    log: OperationLog
    backend_id: uuid.UUID

    @property
    def bucket_prefix(self) -> str:
        """What the names of this backend's buckets start with; no other backend's do."""
        return self.backend_id.hex[:16]


class Service:
    """One backend; `open` and `close` may each be called again."""

    def __init__(self, config: BackendConfig) -> None:
        self.config = config
        self.changes = Changes()
        self._opened: Opened | None = None

    @property
    def opened(self) -> Opened:
        """The open database and what belongs to it; only between `open` and `close`."""
        assert self._opened is not None
        return self._opened

    async def open(self) -> None:
        """Open the database. Raises BackendError if it cannot be opened."""
        if self._opened is not None:
            return
        database = await Database.open(self.config.database, self.changes)
        try:
            backend_id, key = await database.write(_load_identity, user_id="")
        except BaseException:
            await database.close()
            raise
        tokens = auth.Tokens(key, valid_seconds=self.config.token_seconds)
        self._opened = Opened(database, tokens, OperationLog(backend_id), backend_id)

    async def close(self) -> None:
        """End the streams and close the database."""
        self.changes.close()
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.database.close()


def _load_identity(connection: sqlite3.Connection) -> tuple[uuid.UUID, RSAKey]:
    (backend_id,) = connection.execute("SELECT value FROM meta WHERE key = 'backend_id'").fetchone()
    return uuid.UUID(cast("str", backend_id)), auth.load_key(connection)


def version() -> str:
    """The version of the installed application, or "unknown" if it is not installed."""
    try:
        return metadata.version("todo-tui")
    except metadata.PackageNotFoundError:
        return "unknown"
