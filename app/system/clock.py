"""The time by which the commands, the interface and the store go.

Owns what day it is for the user: due dates, the views that depend on the day, and when something was made. Must not be
asked for deadlines, nor for the ages of tokens and of what the engine has stored: those go by the system's clock.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import Final

NOW_VARIABLE: Final = "TODO_TUI_NOW"
"""The environment variable that stops the clock. It is no setting: it exists for tests, which must not depend on the
day on which they run."""


def local_now() -> datetime:
    """The current time, aware, in the time zone of this machine.

    Tests set the environment variable `TODO_TUI_NOW` to a date and time in ISO 8601, local if it has no offset; then it
    is always that time.

    Raises:
        ValueError: the variable is not a date and time.
    """
    if fixed := os.environ.get(NOW_VARIABLE):
        return datetime.fromisoformat(fixed).astimezone()
    return datetime.now().astimezone()
