"""Reading a database file that may be damaged, or in use, and getting out of it what can be read.

Owns read-only access that changes nothing, SQLite's own check, and the search for rows around damaged pages. Must not
know what the tables mean.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from sync.sqlite.connection_thread import set_up_rows
from sync.sqlite.sql_text import quoted

_TIMEOUT_SECONDS = 5.0
_SHOWN_PROBLEMS = 20

_PROBES = 20_000
"""How often a table without an index is asked for what lies between two damaged pages."""

_BEYOND = 5_000
"""How far behind the last readable row others are looked for, if nothing tells where the table ends."""


def connect_read_only(path: str) -> sqlite3.Connection:
    """A connection that changes nothing, also while others have the file open.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    uri = Path(path).absolute().as_uri()
    connection = _connect(f"{uri}?mode=ro")
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN:
            raise
        # In a directory that cannot be written to, SQLite has no place for the index of the write-ahead log.
        return _connect(f"{uri}?immutable=1")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=_TIMEOUT_SECONDS)
    set_up_rows(connection)
    return connection


def connect_alone(path: str) -> sqlite3.Connection:
    """A connection beside which SQLite lets nobody else open the file, whatever program they use.

    Raises:
        sqlite3.OperationalError: somebody has it open (`SQLITE_BUSY`), or it cannot be opened.
        sqlite3.DatabaseError: it is not a database.
    """
    connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True, timeout=_TIMEOUT_SECONDS)
    try:
        set_up_rows(connection)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file is damaged, or no database, rather than locked or out of reach."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def integrity_problems(connection: sqlite3.Connection, *, full: bool) -> tuple[str, ...]:
    """What SQLite's check finds wrong with the pages, and with `full` also with the indexes; empty if nothing."""
    check = "integrity_check" if full else "quick_check"
    rows = connection.execute(f"PRAGMA {check}({_SHOWN_PROBLEMS})").fetchall()
    return tuple(line for row in rows for line in str(row[0]).splitlines() if line != "ok")


class ReadableRows:
    """The rows of a table that can be read, one by one, in no certain order; damaged pages cost only what is on them.

    Args:
        connection: on the file, used by nobody else meanwhile.
        table: its name; it exists.
        columns: what to read.
        index: one over the whole table, which tells what rows there are.
        first: the smallest number that a row may have.
        last: the greatest, if that is known.

    More than five parameters: the table is described by four values that its one caller knows separately.

    Attributes:
        unread: once all were read, how many could not be; without a readable index the length of the gaps, that is at
            most so many.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        table: str,
        columns: Sequence[str],
        *,
        index: str | None = None,
        first: int = 1,
        last: int | None = None,
    ) -> None:
        self.unread: int = 0
        self._connection = connection
        self._table = quoted(table)
        self._columns = ", ".join(quoted(column) for column in columns)
        self._index = index
        self._first = first
        self._last = last

    def __iter__(self) -> Generator[tuple[Any, ...]]:
        first: int | None
        failed, last = yield from self._run(-(2**63), 2**63 - 1)
        if not failed:
            return
        low = self._first if last is None else last + 1
        _, first = yield from self._run(low, 2**63 - 1, descending=True)
        known = self._numbers_in_index()
        if known is not None:
            for number in sorted(known):
                if low <= number and (first is None or number < first):
                    _, found = yield from self._run(number, number)
                    self.unread += found is None
            return
        last = low + _BEYOND if self._last is None else self._last
        yield from self._between(low, max(low, last) if first is None else first - 1)

    def _between(self, low: int, high: int) -> Generator[tuple[Any, ...]]:
        """Halve a damaged stretch until what can be read of it is read; wide parts first."""
        pending = deque([(low, high)])
        probes = 0
        last: int | None
        first: int | None
        while pending:
            low, high = pending.popleft()
            if probes < _PROBES:
                probes += 1
                failed, last = yield from self._run(low, high)
                if not failed:
                    continue
                low = low if last is None else last + 1
                if low < high:
                    _, first = yield from self._run(low, high, descending=True)
                    high = high if first is None else first - 1
                if low < high:
                    middle = (low + high) // 2
                    pending += [(low, middle), (middle + 1, high)]
                    continue
            self.unread += max(0, high - low + 1)

    def _run(
        self, low: int, high: int, *, descending: bool = False
    ) -> Generator[tuple[Any, ...], None, tuple[bool, int | None]]:
        """Read rows by their numbers until a damaged page; returns whether there was one, and the last row's number."""
        last: int | None = None
        order = "DESC" if descending else "ASC"
        sql = f"SELECT rowid, {self._columns} FROM {self._table} WHERE rowid BETWEEN ? AND ? ORDER BY rowid {order}"
        # The module reads one row ahead, and an error there hides the row before it: that one is asked for by itself.
        for limit in ("", " LIMIT 1"):
            if last is not None and limit:
                low, high = (low, last - 1) if descending else (last + 1, high)
            try:
                for row in self._connection.execute(sql + limit, (low, high)):
                    number = row[0]
                    out_of_order = last is not None and (number >= last if descending else number <= last)
                    if out_of_order or not low <= number <= high:
                        return True, last
                    yield tuple(row)[1:]
                    last = number
            except sqlite3.DatabaseError:
                continue
            return bool(limit), last
        return True, last

    def _numbers_in_index(self) -> set[int] | None:
        if self._index is None:
            return None
        try:
            rows = self._connection.execute(f"SELECT rowid FROM {self._table} INDEXED BY {quoted(self._index)}")
            return {row[0] for row in rows}
        except sqlite3.DatabaseError:
            return None
