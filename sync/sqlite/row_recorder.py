"""Which rows a commit changed: triggers → ids.

Owns the triggers that record them, and their records until they are reported. The triggers are TEMP ones of the writing
connection: they see every statement of this process, including those of other triggers, leave no trace in the file, and
disappear with the connection. Must not know who listens: `sync.watch.watched_queries` does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from sync.sqlite.sql_connection import SqlConnection
from sync.sqlite.sql_text import quoted, sql_string

ChangedRows = Mapping[str, frozenset[str] | None]
"""Names of tables with the ids of the rows that changed; None means any row of the table."""

_MOST_ROWS: Final = 1000
"""If more rows of a table change in one transaction, as in a first sync, they are not recorded individually."""

_EVENTS: Final = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}
_FUNCTION: Final = "powersync_note_row"


class RowRecorder:
    """The rows changed by the writing connection. Everything except `take` runs on its thread."""

    def __init__(self) -> None:
        self._noted: dict[str, set[str] | None] = {}
        self._committed: deque[dict[str, set[str] | None]] = deque()

    def record(self, connection: SqlConnection, tables: Iterable[tuple[str, str]]) -> None:
        """Record the changed rows of these tables from now on; call it outside a transaction.

        Args:
            connection: the writing connection.
            tables: names as reported, and as in the file.

        Raises:
            sqlite3.OperationalError: a table does not exist, or has no column `id`.
        """
        connection.set_function(_FUNCTION, 2, self._note)
        for reported, table in tables:
            connection.execute(f"SELECT id FROM main.{quoted(table)} LIMIT 0")
            for event, rows in _EVENTS.items():
                name = quoted(f"powersync_rows_{event.lower()}_{reported}")
                noting = " ".join(f"SELECT {_FUNCTION}({sql_string(reported)}, {row}.id);" for row in rows)
                connection.execute(
                    f"CREATE TEMP TRIGGER IF NOT EXISTS {name} AFTER {event} ON main.{quoted(table)} BEGIN {noting} END"
                )

    def committed(self) -> None:
        """The recorded changes were committed. Changes that were rolled back are reported too, which does no harm."""
        if self._noted:
            self._committed.append(self._noted)
            self._noted = {}

    def take(self) -> dict[str, set[str] | None]:
        """The rows changed by commits since the last call."""
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
    """Merge the rows changed by further commits into `to`."""
    for table, ids in more.items():
        known = to.setdefault(table, set())
        if known is not None:
            to[table] = None if ids is None else known | ids
