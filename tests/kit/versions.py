"""Files of old schema versions, as PowerSync's core made them (see `tests.interchange.versions`)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

VERSIONS = range(1, 14)
FIXTURES = Path(__file__).parents[1] / "fixtures" / "versions"


def fixture(version: int) -> Path:
    """Where the SQL of a version stands."""
    return FIXTURES / f"version-{version:02}.sql"


def restore(version: int, path: Path, journal_mode: str = "DELETE") -> None:
    """Make a file of an old version."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        connection.executescript(fixture(version).read_text())
