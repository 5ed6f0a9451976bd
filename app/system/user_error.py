"""The error whose text is all that a user needs to see."""

from __future__ import annotations


class UserError(Exception):
    """Something that todo-tui cannot do; its text says what, what was kept, and what to do."""
