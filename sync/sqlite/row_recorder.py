"""Which rows a commit changed: triggers → ids.

Owns the triggers that note them, and what they noted until it is told. The triggers are TEMP ones of the connection
that writes: they see every statement of this process, also those of other triggers, leave no mark in the file, and are
gone with the connection. Must not know who listens: `sync.watch.watched_queries` does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from sync.sqlite.sql_connection import SqlConnection
from sync.sqlite.sql_text import quoted, sql_string

ChangedRows = Mapping[str, frozenset[str] | None]
"""Names of tables with the ids of the rows that changed; None stands for any row of the table."""

_MOST_ROWS: Final = 1000
"""Of more rows of a table in one transaction, as in a first sync, each is not noted: any may have changed."""

_EVENTS: Final = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}
_FUNCTION: Final = "powersync_note_row"


class RowRecorder:
    """The rows that were changed by the connection that writes. All but `take` runs on its thread."""

    def __init__(self) -> None:
        self._noted: dict[str, set[str] | None] = {}
        self._committed: deque[dict[str, set[str] | None]] = deque()

    def record(self, connection: SqlConnection, tables: Iterable[tuple[str, str]]) -> None:
        """Note the rows of these tables from here on; outside a transaction.

        Args:
            statements: of the connection that writes.
            tables: names as they are told, and as they are in the file.

        Raises:
            sqlite3.OperationalError: a table is not there, or has no column `id`.
        """
        connection.set_function(_FUNCTION, 2, self._note)
        for told, table in tables:
            connection.execute(f"SELECT id FROM main.{quoted(table)} LIMIT 0")
            for event, rows in _EVENTS.items():
                name = quoted(f"powersync_rows_{event.lower()}_{told}")
                noting = " ".join(f"SELECT {_FUNCTION}({sql_string(told)}, {row}.id);" for row in rows)
                connection.execute(
                    f"CREATE TEMP TRIGGER IF NOT EXISTS {name} AFTER {event} ON main.{quoted(table)} BEGIN {noting} END"
                )

    def committed(self) -> None:
        """What was noted has been committed. What a rollback took back is told with it: that does no harm."""
        if self._noted:
            self._committed.append(self._noted)
            self._noted = {}

    def take(self) -> dict[str, set[str] | None]:
        """The rows of what was committed since the last call."""
        taken: dict[str, set[str] | None] = {}
        while self._committed:
            add_rows(taken, self._committed.popleft())
        return taken

    def _note(self, table: str, row_id: str) -> None:
        ids = self._noted.setdefault(table, set())
        if ids is not None:
            ids.add(row_id)
            if len(ids) > _MOST_ROWS:
                self._noted[table] = None


def add_rows(to: dict[str, set[str] | None], more: Mapping[str, set[str] | None]) -> None:
    """Add the rows of some commits to those of others."""
    for table, ids in more.items():
        known = to.setdefault(table, set())
        if known is not None:
            to[table] = None if ids is None else known | ids
