"""The grammar of a to-do: what is typed, what is stored in its description, and what that means.

`understand` reads what a user types, `read` what is stored; the rest changes one part of a stored description. All of
it is pure: no clock, no database. Must not know where descriptions are kept, nor how anything is shown.

A description holds todo.txt-style words in its first line, notes in the lines after it:

    Pay rent due:2026-12-01T09:00 p1 #home rec:1m

What is not understood stays text. A word that only looks like one of these is kept plain by a backslash: `\\p1`.
"""

from app.todo_text.parts import Due, Recurrence
from app.todo_text.quick_add import Part, Understood, phrases_to_keep, understand
from app.todo_text.recurrence import next_description, next_due
from app.todo_text.stored import TodoText, add_tag, read, remove_tag, set_due, set_priority, set_recurrence, set_title

__all__ = [
    "Due",
    "Part",
    "Recurrence",
    "TodoText",
    "Understood",
    "add_tag",
    "next_description",
    "next_due",
    "phrases_to_keep",
    "read",
    "remove_tag",
    "set_due",
    "set_priority",
    "set_recurrence",
    "set_title",
    "understand",
]
