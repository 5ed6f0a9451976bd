"""The demo backend as a process of its own, with the one rule that the registers need: the greatest value wins.

Run as `python -m tests.fire.backend HOST PORT DATABASE SYNC_CONFIG TOKEN_SECONDS`. Everything but that rule is the
product's. The rule also notes, in the same transaction of the backend's file, which value arrived for which register.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from app.backend import BackendConfig, Limits, serve
from app.backend.data.rows import CrudEntry, RowWriter
from app.backend.rules.tables import TODOS, Row, Table

ARRIVALS = """CREATE TABLE IF NOT EXISTS fire_arrivals
    (value INTEGER, register TEXT, times INTEGER DEFAULT 1, UNIQUE (value, register))"""
_merge = RowWriter._merge


def _greatest_wins(writer: RowWriter, table: Table, entry: CrudEntry, before: Row | None, values: Row) -> Row | None:
    if table is TODOS and before is not None and values.get("description"):
        connection: Any = writer._rows._connection  # type: ignore[attr-defined]
        value = int(values["description"])
        connection.execute(ARRIVALS)
        connection.execute(
            "INSERT INTO fire_arrivals (value, register) VALUES (?, ?) ON CONFLICT DO UPDATE SET times = times + 1",
            [value, entry.id],
        )
        values["description"] = str(max(value, int(before["description"])))
    return _merge(writer, table, entry, before, values)


def main() -> None:
    host, port, database, sync_config, token_seconds = sys.argv[1:]
    replaced: Any = RowWriter
    replaced._merge = _greatest_wins
    config = BackendConfig(
        Path(database),
        host=host,
        port=int(port),
        keepalive_seconds=1.0,
        token_seconds=int(token_seconds),
        sync_config=Path(sync_config),
        compact_seconds=3.0,
        open_to_all=True,
        limits=Limits(refused_burst=10**9, request_burst=10**9),
    )
    asyncio.run(serve(config, on_ready=lambda url: print(url, flush=True)))


if __name__ == "__main__":
    main()
