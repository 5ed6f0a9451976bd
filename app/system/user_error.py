"""The error whose message is all that a user needs to see."""

from __future__ import annotations


class UserError(Exception):
    """Something that todo-tui cannot do. The message says what, what was kept, and what to do."""
