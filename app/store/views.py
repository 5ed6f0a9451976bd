"""What can be looked at: one list, or to-dos across lists, and in which order.

Owns the statements that read lists and to-dos. What a due date or a priority is in a description is decided by
`app.todo_text`; the SQL here finds the same words, so that a hundred thousand descriptions need not be read for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Any, Final

from app.store.rows import Todo


class SmartView(Enum):
    """A view across all lists; the value is stable, for settings and scripts."""

    ALL = "all"
    TODAY = "today"
    UPCOMING = "upcoming"
    OVERDUE = "overdue"
    DONE = "done"


class Sort(Enum):
    """An order of to-dos; the value is stable."""

    MANUAL = "manual"
    DUE = "due"
    PRIORITY = "priority"
    NAME = "name"
    AGE = "age"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How the to-dos of a view are arranged.

    Attributes:
        sort: the order of the open ones.
        shows_done: whether completed ones follow at the end, the latest first.
    """

    sort: Sort = Sort.MANUAL
    shows_done: bool = True


@dataclass(frozen=True, slots=True)
class ViewCounts:
    """How many open to-dos there are in the views across lists; of `done`, how many completed ones."""

    all: int = 0
    today: int = 0
    upcoming: int = 0
    overdue: int = 0
    done: int = 0

    def of(self, view: SmartView) -> int:
        """The count of one view."""
        return int(getattr(self, view.value))


DEFAULT_ARRANGEMENTS: Final = {
    SmartView.ALL: Arrangement(Sort.AGE, shows_done=False),
    SmartView.TODAY: Arrangement(Sort.DUE, shows_done=False),
    SmartView.UPCOMING: Arrangement(Sort.DUE, shows_done=False),
    SmartView.OVERDUE: Arrangement(Sort.DUE, shows_done=False),
    SmartView.DONE: Arrangement(Sort.AGE),
}

LISTS: Final = """
    SELECT lists.id AS id, lists.name AS name, lists.created_at AS created_at,
           coalesce(counts.total, 0) - coalesce(counts.done, 0) AS open_count, coalesce(counts.done, 0) AS done_count
      FROM lists
      LEFT JOIN (SELECT list_id, count(*) AS total, sum(coalesce(completed, 0) <> 0) AS done
                   FROM todos GROUP BY list_id) AS counts ON counts.list_id = lists.id
     ORDER BY lists.created_at, lists.id"""

_OPEN: Final = "coalesce(todos.completed, 0) = 0"

# What is read of a row more than once stands in a step of its own: a view takes each column out of JSON whenever it is
# named. Tabs count as spaces; the word counts in the first line only.
_SPACED: Final = "' ' || replace(description, char(9), ' ')"
_START_OF_WORD: Final = f"instr({_SPACED}, ' due:')"
_WORD: Final = f"""
    CASE WHEN instr(description, 'due:') AND {_START_OF_WORD}
          AND instr(substr(description, 1, {_START_OF_WORD}), char(10)) = 0
          AND instr(substr(description, 1, {_START_OF_WORD}), char(13)) = 0
         THEN substr({_SPACED}, {_START_OF_WORD} + 5, 17)
    END"""
_DAY: Final = "substr(word, 1, 10)"
_AFTER_DAY: Final = "(' ', char(10), char(13), '')"
_DUE_DAY: Final = "substr(due, 1, 10)"
_DUE: Final = f"""
    CASE WHEN word IS NULL OR date({_DAY}, '+0 days') IS NOT {_DAY} THEN NULL
         WHEN substr(word, 11, 1) IN {_AFTER_DAY} THEN {_DAY}
         WHEN substr(word, 11, 6) GLOB 'T[0-2][0-9]:[0-5][0-9]' AND substr(word, 12, 2) < '24'
              AND substr(word, 17, 1) IN {_AFTER_DAY} THEN substr(word, 1, 16)
    END"""


def with_due(rows: str) -> str:
    """The rows of a query that has a `description`, with the day and time that each is due, as text, or NULL."""
    return f"""
        SELECT *, {_DUE} AS due
          FROM (WITH worded AS MATERIALIZED (SELECT *, {_WORD} AS word FROM ({rows})) SELECT * FROM worded)"""


_NOT_DUE: Final = "9999-99"
_NO_PRIORITY: Final = 5

_PRIORITY: Final = (
    "CASE "
    + " ".join(
        f"WHEN instr(' ' || lower(replace(replace(description, char(10), ' '), char(13), ' ')) || ' ', ' p{number} ')"
        f" THEN {number}"
        for number in (1, 2, 3, 4)
    )
    + f" ELSE {_NO_PRIORITY} END"
)

# A to-do that was moved by hand has a position between those of its neighbours; the others stand where they were made.
POSITION: Final = """
    coalesce(CASE WHEN EXISTS (SELECT 1 FROM todo_positions)
                  THEN (SELECT position FROM todo_positions WHERE todo_positions.id = todos.id) END,
             todos.created_at, '')"""

FOUND: Final = f"""
    SELECT todos.id AS id, todos.list_id AS list_id, todos.description AS description, NOT {_OPEN} AS completed,
           todos.created_at AS created_at, todos.completed_at AS completed_at,
           (SELECT name FROM lists WHERE lists.id = todos.list_id) AS list_name
      FROM todos
     WHERE substr(todos.id, 1, length(?)) = ?
       AND NOT EXISTS (SELECT 1 FROM json_each(?) WHERE instr(lower(todos.description), lower(value)) = 0)
     ORDER BY todos.created_at, todos.id
     LIMIT 100"""
"""The to-dos whose id begins with the first parameter, given twice, and that have all words of a JSON array."""

_COMPARED: Final = {SmartView.TODAY: "=", SmartView.UPCOMING: ">", SmartView.OVERDUE: "<"}

_KEYS: Final = {
    Sort.MANUAL: "position",
    Sort.DUE: f"coalesce(due, '{_NOT_DUE}')",
    Sort.PRIORITY: _PRIORITY,
    Sort.NAME: "coalesce(lower(description), '')",
    Sort.AGE: "coalesce(created_at, '')",
}

_MAY_BE_DUE: Final = (
    f"SELECT todos.description AS description FROM todos WHERE {_OPEN} AND instr(todos.description, 'due:')"
)

COUNTS: Final = f"""
    SELECT (SELECT count(*) FROM todos WHERE {_OPEN}) AS "all",
           count(*) FILTER (WHERE {_DUE_DAY} = :today) AS today,
           count(*) FILTER (WHERE {_DUE_DAY} > :today) AS upcoming,
           count(*) FILTER (WHERE {_DUE_DAY} < :today) AS overdue,
           (SELECT count(*) FROM todos WHERE NOT {_OPEN}) AS done
      FROM ({with_due(_MAY_BE_DUE)})"""


Order = tuple[Any, ...]
"""Where a to-do stands among the others of its view: the lesser first, as the statement has it."""


class _LatestFirst:
    """A time in the other direction."""

    __slots__ = ("_time",)

    def __init__(self, time: str) -> None:
        self._time = time

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LatestFirst) and other._time == self._time

    def __lt__(self, other: _LatestFirst) -> bool:
        return self._time > other._time

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def order_of(todo: Todo, sort_key: str | int) -> Order:
    """Where a to-do stands, given the `sort_key` of its row in `todos_query`. What is missing is an empty text."""
    if todo.completed:
        return (True, _LatestFirst(todo.completed_at or ""), todo.created_at or "", todo.id)
    return (False, sort_key, todo.created_at or "", todo.id)


def usual_sort_key(todo: Todo, sort: Sort) -> str | int:
    """The sort key that most to-dos have in this order: with very many to-dos it need not be kept for each."""
    match sort:
        case Sort.MANUAL | Sort.AGE:
            return todo.created_at or ""
        case Sort.DUE:
            return _NOT_DUE
        case Sort.PRIORITY:
            return _NO_PRIORITY
        case Sort.NAME:
            return (todo.description or "").lower()


def todos_query(
    view: SmartView | str, arrangement: Arrangement, today: date, *, only: bool = False
) -> tuple[str, dict[str, Any]]:
    """The statement and parameters that read the to-dos of a view in their order.

    Args:
        view: a view across lists, or the id of a list.
        arrangement: the order.
        today: the local day.
        only: whether only those are read whose ids are in the JSON array `:only`, one more parameter.
    """
    across = isinstance(view, SmartView)
    # The plus keeps SQLite from going through the whole list to find a few.
    among = ["1" if across else f"{'+' if only else ''}todos.list_id = :list"]
    if view is SmartView.DONE:
        among.append(f"NOT {_OPEN}")
    elif not arrangement.shows_done:
        among.append(_OPEN)
    if only:
        among.append("todos.id IN (SELECT value FROM json_each(:only))")
    compared = _COMPARED.get(view) if across else None
    if compared is not None:
        among.append("instr(todos.description, 'due:')")
    name = "(SELECT name FROM lists WHERE lists.id = todos.list_id)" if across else "NULL"
    position = POSITION if arrangement.sort is Sort.MANUAL else "NULL"
    rows = f"""
        SELECT todos.id AS id, todos.list_id AS list_id, todos.description AS description,
               NOT {_OPEN} AS completed, todos.created_at AS created_at, todos.completed_at AS completed_at,
               {name} AS list_name, {position} AS position
          FROM todos
         WHERE {" AND ".join(among)}"""
    if compared is not None or arrangement.sort is Sort.DUE:
        rows = with_due(rows)
    sql = f"""
        SELECT id, list_id, description, completed, created_at, completed_at, list_name,
               CASE WHEN NOT completed THEN {_KEYS[arrangement.sort]} END AS sort_key
          FROM ({rows})
         WHERE {f"{_DUE_DAY} {compared} :today" if compared else "1"}
         ORDER BY completed, sort_key, CASE WHEN completed THEN coalesce(completed_at, '') END DESC,
                  coalesce(created_at, ''), id"""
    return sql, {"today": today.isoformat()} if across else {"list": view}
