"""The lists and to-dos of one user: read through watched queries, written in transactions that can be undone.

The only place with SQL about to-dos. Knows the public face of the engine, and the words of a to-do (`app.todo_text`);
must not know how anything is shown.
"""

from app.store.editing import SAMPLE_NAME, SAMPLE_TODOS
from app.store.following import ViewRead
from app.store.journal import Undone
from app.store.rows import Todo, TodoList, first_line
from app.store.store import SUBSCRIPTION_TTL, Store
from app.store.views import Arrangement, SmartView, Sort, ViewCounts

__all__ = [
    "SAMPLE_NAME",
    "SAMPLE_TODOS",
    "SUBSCRIPTION_TTL",
    "Arrangement",
    "SmartView",
    "Sort",
    "Store",
    "Todo",
    "TodoList",
    "Undone",
    "ViewCounts",
    "ViewRead",
    "first_line",
]
