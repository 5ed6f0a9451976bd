"""Windows on long results: the total, and the rows of one range, which can be moved and stays up to date.

Owns the SQL around the app's query that counts, orders and slices. A window also reads its surroundings, as many rows
again before and after it, so that scrolling within them needs no query. Must not know when a query is run again:
`sync.watch.watched_queries` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from sync.sqlite.rows import row_reader
from sync.sqlite.sql_connection import Parameters, Row, SqlConnection
from sync.sqlite.sql_text import quoted
from sync.watch.row_diff import NO_ROWS, KeyedRows, keyed
from sync.watch.shared_reads import SharedReads
from sync.watch.watched_queries import Watch

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RowWindow(Generic[T]):
    """One range of a long result. A row that did not change is the same object as before.

    Attributes:
        rows: the rows of the window, in order; fewer than its size only if the result is shorter.
        offset: the position of the first of them in the whole result, counted from 0.
        total: how many rows the whole result has.
    """

    rows: list[T]
    offset: int
    total: int


@dataclass(frozen=True, slots=True)
class _Request:
    offset: int
    around: Any = None


@dataclass(frozen=True, slots=True)
class _State(Generic[T]):
    """What was read last: the rows from `start` on, more than the window shows."""

    start: int
    rows: KeyedRows[T]
    window: RowWindow[T]


class WindowWatch(Watch[RowWindow[T]]):
    """A window that stays up to date. Made by `PowerSyncDatabase.watch_window`; for one reader.

    Ends when it or the database is closed. May be dropped at any point; no cleanup is needed.
    """

    def __init__(
        self, reads: SharedReads, query: WindowQuery[T], throttle: float, tables: frozenset[str] | None
    ) -> None:
        super().__init__(reads, query, throttle, tables)
        self._window = query
        self._cut: tuple[_State[T], RowWindow[T]] | None = None
        self._looking = False

    def move(self, offset: int) -> None:
        """Show the rows from this position on; the next step delivers them. The window stops at either end."""
        self._go_to(_Request(max(0, offset)))

    def show_around(self, key: Any) -> None:
        """Show the row with this key, in the middle if possible, and follow it wherever it moves.

        If there is no such row (anymore), the window stays where it is.
        """
        self._go_to(_Request(self._window.request.offset, key))

    def _go_to(self, request: _Request) -> None:
        self._window.request = request
        self._not_before = 0.0
        self._cut = None
        state: _State[T] | None = self._state
        if state is not None and not self._window.recount and not self._looking:
            self._cut = self._window.cut_from(state, request)
        self._wake.set()

    def _outdated(self) -> None:
        self._cut = None
        self._window.recount = True
        super()._outdated()

    async def _look(self) -> tuple[Any, RowWindow[T]] | None:
        if self._cut is not None:
            cut, self._cut = self._cut, None
            return cut
        recount = self._window.counting = self._window.recount
        self._window.recount = False
        self._looking = True
        try:
            found = await super()._look()
        except BaseException:
            self._window.recount |= recount
            raise
        finally:
            self._looking = False
        if found is not None and self._state is not None and found[1] is self._state.window:
            self._state = found[0]  # only the surrounding rows changed, or were read
            return None
        return found


class WindowQuery(Generic[T]):
    """What a window runs. `order_by` are columns of `sql`, each alone or followed by ASC or DESC.

    More than five parameters: they are those of `PowerSyncDatabase.watch_window`.
    """

    def __init__(
        self,
        sql: str,
        parameters: Parameters,
        *,
        order_by: str | Sequence[str],
        size: int,
        key: str,
        row_type: type[T],
        offset: int,
        around: Any,
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}.")
        if isinstance(parameters, Mapping):
            raise TypeError("The query of a window takes positional parameters (?), not named ones.")
        self.sql = sql
        self._source = f"({sql}\n)"
        self.parameters: Parameters = parameters
        self._given = tuple(parameters)
        self.request = _Request(offset, around)
        self.counting = True
        self.recount = True
        self._size = size
        self._key = key
        self._make: Callable[[Row], T] = row_reader(row_type)
        self._order = [_term(term) for term in (order_by.split(",") if isinstance(order_by, str) else order_by)]
        if not self._order:
            raise ValueError("order_by must name at least one column.")

    def run(self, connection: SqlConnection, before: _State[T] | None) -> tuple[_State[T], RowWindow[T]]:
        request = self.request
        if before is None or self.counting:
            total: int = connection.value(f"SELECT count(*) FROM {self._source}", self.parameters)
        else:
            total = before.window.total
        position = None if request.around is None else self._position_of(connection, request.around)
        if position is not None:
            offset = position - self._size // 2
        else:
            offset = request.offset if request.around is None or before is None else before.window.offset
        offset = max(0, min(offset, total - self._size))
        start = max(0, offset - self._size)
        raw = connection.execute(
            f"SELECT * FROM {self._source} ORDER BY {self._ordering()} LIMIT ? OFFSET ?",
            self._with(offset + 2 * self._size - start, start),
        )
        rows = keyed(raw, self._key, self._make, NO_ROWS if before is None else before.rows)
        return self._state_of(before, start, rows, RowWindow(self._shown(rows, start, offset), offset, total))

    def cut_from(self, state: _State[T], request: _Request) -> tuple[_State[T], RowWindow[T]] | None:
        """The requested window, if all its rows have already been read."""
        offset = request.offset
        keys = list(state.rows.raw)
        if request.around is not None:
            if request.around not in state.rows.raw:
                return None
            offset = state.start + keys.index(request.around) - self._size // 2
        total = state.window.total
        offset = max(0, min(offset, total - self._size))
        if offset < state.start or min(offset + self._size, total) > state.start + len(keys):
            return None
        window = RowWindow(self._shown(state.rows, state.start, offset), offset, total)
        return _State(state.start, state.rows, window), window

    def _shown(self, rows: KeyedRows[T], start: int, offset: int) -> list[T]:
        return list(islice(rows.made.values(), offset - start, offset - start + self._size))

    def _state_of(
        self, before: _State[T] | None, start: int, rows: KeyedRows[T], window: RowWindow[T]
    ) -> tuple[_State[T], RowWindow[T]]:
        unchanged = (
            before is not None
            and (before.window.offset, before.window.total) == (window.offset, window.total)
            and len(before.window.rows) == len(window.rows)
            and all(old is new for old, new in zip(before.window.rows, window.rows, strict=True))
        )
        shown = before.window if unchanged and before is not None else window
        return _State(start, rows, shown), shown

    def _position_of(self, connection: SqlConnection, key: Any) -> int | None:
        """How many rows come before the one with this key.

        Rows whose first column sorts before its own are counted, which an index does; only equal ones are numbered.
        """
        column, descending = self._order[0]
        source = self._source
        found = connection.execute(f"SELECT {column} FROM {source} WHERE {quoted(self._key)} = ?", self._with(key))
        if not found:
            return None
        value = found[0][0]
        # In SQLite's order, NULL comes before every value.
        if value is None:
            before = [f"{column} IS NOT NULL"] if descending else []
        else:
            before = [f"{column} > :value"] if descending else [f"{column} < :value", f"{column} IS NULL"]
        position = 0
        for condition in before:
            condition = condition.replace(":value", "?")
            parameters = self._with(value) if "?" in condition else self.parameters
            position += connection.value(f"SELECT count(*) FROM {source} WHERE {condition}", parameters)
        position += connection.value(
            f"SELECT place FROM (SELECT {quoted(self._key)} AS key, row_number() OVER (ORDER BY {self._ordering()}) - 1"
            f" AS place FROM {source} WHERE {column} IS ?) WHERE key = ?",
            self._with(value, key),
        )
        return position

    def _with(self, *values: Any) -> Sequence[Any]:
        return (*self._given, *values)

    def _ordering(self) -> str:
        return ", ".join(f"{column} DESC" if descending else column for column, descending in self._order)


def _term(term: str) -> tuple[str, bool]:
    name, _, direction = term.strip().partition(" ")
    direction = direction.strip().upper()
    if not name or direction not in {"", "ASC", "DESC"}:
        raise ValueError(f"order_by takes columns, each alone or followed by ASC or DESC, not {term!r}.")
    return quoted(name), direction == "DESC"
