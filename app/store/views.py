"""What can be looked at: one list, or to-dos across lists, and in which order.

Owns the statements that read lists and to-dos. What a due date or a priority is in a description is decided by
`app.todo_text`; the SQL here finds the same words, so that a hundred thousand descriptions need not be read for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Any, Final


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

# The first line between spaces, with other white space as spaces, so that each of its words stands between two.
_TRANSLATED: Final = (
    "replace(substr(todos.description, 1, min(instr(todos.description || char(10), char(10)), "
    "instr(todos.description || char(13), char(13))) - 1), char(9), ' ')"
)
_WORDS: Final = f"(' ' || {_TRANSLATED} || ' ')"
_DUE_TEXT: Final = f"substr({_WORDS}, instr({_WORDS}, ' due:') + 5, 16)"

DUE: Final = f"""
    CASE WHEN instr(todos.description, 'due:') AND instr({_WORDS}, ' due:') THEN
        CASE WHEN date(substr({_DUE_TEXT}, 1, 10), '+0 days') IS NOT substr({_DUE_TEXT}, 1, 10) THEN NULL
             WHEN substr({_DUE_TEXT}, 11, 1) = ' ' OR length({_DUE_TEXT}) = 10 THEN substr({_DUE_TEXT}, 1, 10)
             WHEN {_DUE_TEXT} GLOB '*T[0-2][0-9]:[0-5][0-9]' AND substr({_DUE_TEXT}, 12, 2) < '24' THEN {_DUE_TEXT}
        END
    END"""
"""When a to-do is due, as `2026-12-01` or `2026-12-01T09:00`, or NULL."""

_PRIORITY: Final = (
    "CASE "
    + " ".join(f"WHEN instr(lower({_WORDS}), ' p{number} ') THEN {number}" for number in (1, 2, 3, 4))
    + " ELSE 5 END"
)

# A to-do that was moved by hand has a position between those of its neighbours; the others stand where they were made.
PLACE: Final = """
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

_KEYS: Final = {
    Sort.MANUAL: PLACE,
    Sort.DUE: f"coalesce({DUE}, '9999-99')",
    Sort.PRIORITY: _PRIORITY,
    Sort.NAME: "lower(todos.description)",
    Sort.AGE: "todos.created_at",
}

COUNTS: Final = f"""
    SELECT count(*) FILTER (WHERE open) AS "all",
           count(*) FILTER (WHERE open AND day = :today) AS today,
           count(*) FILTER (WHERE open AND day > :today) AS upcoming,
           count(*) FILTER (WHERE open AND day < :today) AS overdue,
           count(*) FILTER (WHERE NOT open) AS done
      FROM (SELECT {_OPEN} AS open, CASE WHEN {_OPEN} THEN substr({DUE}, 1, 10) END AS day FROM todos)"""


def todos_query(view: SmartView | str, arrangement: Arrangement, today: date) -> tuple[str, dict[str, Any]]:
    """The statement and parameters that read the to-dos of a view in their order.

    Args:
        view: a view across lists, or the id of a list.
        arrangement: the order.
        today: the local day.
    """
    day = f"substr({DUE}, 1, 10)"
    match view:
        case SmartView.ALL:
            where = "1"
        case SmartView.TODAY:
            where = f"{day} = :today"
        case SmartView.UPCOMING:
            where = f"{day} > :today"
        case SmartView.OVERDUE:
            where = f"{day} < :today"
        case SmartView.DONE:
            where = f"NOT {_OPEN}"
        case _:
            where = "todos.list_id = :list"
    if view is not SmartView.DONE and not arrangement.shows_done:
        where += f" AND {_OPEN}"
    across = isinstance(view, SmartView)
    name = "(SELECT name FROM lists WHERE lists.id = todos.list_id)" if across else "NULL"
    sql = f"""
        SELECT todos.id AS id, todos.list_id AS list_id, todos.description AS description,
               NOT {_OPEN} AS completed, todos.created_at AS created_at, todos.completed_at AS completed_at,
               {name} AS list_name
          FROM todos
         WHERE {where}
         ORDER BY NOT {_OPEN},
                  CASE WHEN {_OPEN} THEN {_KEYS[arrangement.sort]} END,
                  CASE WHEN NOT {_OPEN} THEN todos.completed_at END DESC,
                  todos.created_at, todos.id"""
    return sql, {"today": today.isoformat()} if across else {"list": view}
