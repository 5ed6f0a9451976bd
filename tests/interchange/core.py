"""PowerSync's core extension, loaded into a SQLite of its own and driven as the official SDKs drive it.

Owns finding and loading it, and nothing of the engine. `POWERSYNC_NODE` names the directory of the npm package
`@powersync/node`, in which the extension ships; `.ci/run` sets it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sync import Schema, Table

_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "aarch64", "arm64": "aarch64"}


def missing() -> str | None:
    """Why the core extension cannot be loaded here; None if it can."""
    package = os.environ.get("POWERSYNC_NODE")
    if not package:
        return "POWERSYNC_NODE does not name the directory of the npm package @powersync/node"
    if not _library(Path(package)).exists():
        return f"{_library(Path(package))} does not exist"
    try:
        import apsw
    except ImportError:
        return "the Python package apsw is not installed"
    return None if apsw.sqlite_lib_version() >= "3.44" else "apsw brings a SQLite older than 3.44"


def _library(package: Path) -> Path:
    machine = _MACHINES.get(platform.machine().lower(), platform.machine().lower())
    kind = "macos.dylib" if sys.platform == "darwin" else "linux.so"
    return package / "lib" / f"libpowersync_{machine}.{kind}"


class Core:
    """A database file, opened with the core extension."""

    def __init__(self, path: Path | str) -> None:
        import apsw

        self.connection = apsw.Connection(str(path))
        self.connection.set_busy_timeout(10_000)
        self.connection.enable_load_extension(True)
        self.connection.load_extension(str(_library(Path(os.environ["POWERSYNC_NODE"]))), "sqlite3_powersync_init")

    def execute(self, sql: str, parameters: Iterable[Any] = ()) -> list[list[Any]]:
        return [list(row) for row in self.connection.execute(sql, tuple(parameters))]

    def refuses(self, sql: str, parameters: Iterable[Any] = ()) -> bool:
        """Run a statement; whether it was refused."""
        import apsw

        try:
            self.execute(sql, parameters)
        except apsw.Error:
            return True
        return False

    def value(self, sql: str, parameters: Iterable[Any] = ()) -> Any:
        rows = self.execute(sql, parameters)
        return rows[0][0] if rows else None

    @contextmanager
    def transaction(self) -> Generator[None]:
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self.connection.in_transaction:
                self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    def open(self, schema: Schema) -> None:
        """What an SDK does when it opens a file."""
        self.execute("PRAGMA journal_mode = WAL")
        with self.transaction():
            self.execute("SELECT powersync_init()")
        with self.transaction():
            self.execute("SELECT powersync_replace_schema(?)", [json.dumps(schema_json(schema))])

    def migrate_to(self, version: int) -> None:
        with self.transaction():
            self.execute("SELECT powersync_test_migration(?)", [version])

    def control(self, operation: str, payload: Any = None) -> list[dict[str, Any]]:
        """One call of the sync client inside the core; returns its instructions."""
        with self.transaction():
            answer = self.value("SELECT powersync_control(?, ?)", [operation, payload])
        return json.loads(answer) if isinstance(answer, str) else []

    def subscribe(self, stream: str, parameters: dict[str, Any] | None, ttl: int, priority: int | None) -> None:
        key = {"name": stream, "params": parameters}
        self.control("subscriptions", _compact({"subscribe": {"stream": key, "ttl": ttl, "priority": priority}}))

    def start(self, *, include_defaults: bool = True) -> dict[str, Any]:
        """Begin a sync iteration; returns the request that the SDK would send."""
        instructions = self.control("start", _compact({"include_defaults": include_defaults, "active_streams": []}))
        (request,) = (step["EstablishSyncStream"]["request"] for step in instructions if "EstablishSyncStream" in step)
        self.control("connection", "established")
        return request

    def lines(self, lines: Iterable[str]) -> list[dict[str, Any]]:
        return [step for line in lines for step in self.control("line_text", line)]

    def complete_upload(self, target: int) -> None:
        """The queue has been uploaded, and the service has named `target` as the checkpoint that includes it."""
        with self.transaction():
            self.execute("DELETE FROM ps_crud")
            self.execute("SELECT powersync_control('target_checkpoint_request_id', ?)", [target])
        self.control("completed_upload")

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _compact(value: Any) -> str:
    """JSON as JavaScript writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def schema_json(schema: Schema) -> dict[str, Any]:
    """A schema as SDKs give it to the core."""
    return {"tables": [_table_json(table) for table in schema.tables]}


def _table_json(table: Table) -> dict[str, Any]:
    types = {column.name: column.type for column in table.columns}
    return {
        "name": table.name,
        "view_name": table.view_name,
        "local_only": table.local_only,
        "insert_only": table.insert_only,
        "include_metadata": table.track_metadata,
        "ignore_empty_update": table.ignore_empty_updates,
        **_previous_values(table),
        "columns": [{"name": column.name, "type": column.type} for column in table.columns],
        "indexes": [
            {
                "name": index.name,
                "columns": [
                    {"name": column.name, "ascending": column.is_ascending, "type": types[column.name]}
                    for column in index.columns
                ],
            }
            for index in table.indexes
        ],
    }


def _previous_values(table: Table) -> dict[str, Any]:
    tracked = table.track_previous_values
    if tracked is None:
        return {}
    columns = True if tracked.columns is None else list(tracked.columns)
    return {"include_old": columns, "include_old_only_when_changed": tracked.only_when_changed}
