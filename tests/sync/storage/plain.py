"""A file of the engine edited by a bare SQLite connection: what the triggers do where nothing of the engine runs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sync import Schema
from sync.sqlite.sql_connection import SqlConnection
from sync.storage.file import prepare


def make(path: str | Path, schema: Schema) -> None:
    """Bring a file to the schema, as opening it does."""
    with plain(path) as connection:
        bring(connection, schema)


def bring(connection: sqlite3.Connection, schema: Schema) -> None:
    """Bring a connection's database to the schema, in one transaction."""
    connection.row_factory = sqlite3.Row
    engine = SqlConnection(connection)
    engine.begin("IMMEDIATE")
    prepare(engine, schema)
    engine.commit()
    connection.set_authorizer(None)
    connection.row_factory = None


@contextmanager
def plain(path: str | Path = ":memory:") -> Generator[sqlite3.Connection]:
    """A connection with nothing registered, in autocommit."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def database_of(schema: Schema) -> Generator[sqlite3.Connection]:
    """A new database in memory."""
    with plain() as connection:
        bring(connection, schema)
        yield connection


def entries(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """The upload queue."""
    return [json.loads(data) for (data,) in connection.execute("SELECT data FROM ps_crud ORDER BY id")]


def transaction_ids(connection: sqlite3.Connection) -> list[int]:
    """The transaction id of each entry of the upload queue."""
    return [number for (number,) in connection.execute("SELECT tx_id FROM ps_crud ORDER BY id")]
