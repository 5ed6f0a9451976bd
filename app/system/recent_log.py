"""The last lines of the log, for the sync screen.

Owns how many are kept, and the format of a line there. The log file is `app.cli.run`'s.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

KEPT_LINES: Final = 100


class RecentLog(logging.Handler):
    """Keeps the last lines in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Called by the logging module, from any thread."""
        try:
            self._lines.append(self.format(record))
        except Exception:  # noqa: BLE001 -- a line that cannot be formatted is no reason to fail
            self.handleError(record)

    def lines(self) -> list[str]:
        """The last lines, the newest first: any text."""
        return list(reversed(self._lines))
