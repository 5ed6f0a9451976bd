"""How the state of synchronization and distances in time are put into words.

Owns wording only: pure functions of a status and a moment. Where and in which colour they stand is the widgets' affair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from app.store.change_words import counted
from app.system.display_text import sanitized
from sync import SyncStatus

StateName = Literal["connected", "connecting", "offline", "paused", "elsewhere"]

_GLYPHS: Final[dict[StateName, str]] = {
    "connected": "●",
    "connecting": "◌",
    "offline": "○",
    "paused": "‖",
    "elsewhere": "◆",
}
_STATES: Final[dict[StateName, tuple[str, str]]] = {
    "connected": ("Connected", "Connected"),
    "connecting": ("Connecting…", "Connecting…"),
    "offline": ("Offline", "Offline"),
    "paused": ("Paused", "Paused"),
    "elsewhere": ("Syncing in another window", "In another window"),
}

_LONGEST_REASON: Final = 500
_LONGEST_STAMP: Final = 40
_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_RATE_SECONDS: Final = 5.0
_LEAST_SECONDS: Final = 0.2
_BAR_CELLS: Final = 10


@dataclass(frozen=True, slots=True)
class StatusWords:
    """A status in words.

    Attributes:
        state: the name of the state, also a CSS class with a dash before it.
        glyph: one cell that stands for the state without colour.
        left: the state and what waits, longest wording first.
        right: the last sync, longest wording first.
        reason: why it does not sync, any text; with what comes between it and the state, or empty.
    """

    state: StateName
    glyph: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    reason: str = ""


def state_of(status: SyncStatus) -> StateName:
    """The one state, of those that the user sees, that a status amounts to.

    An attempt that follows a failed one still counts as offline, so that the line does not flicker with each attempt.
    """
    if status.connected:
        return "connected"
    if status.syncing_elsewhere:
        return "elsewhere"
    if not status.wanted:
        return "paused"
    if status.download_error is None:
        return "connecting"
    return "offline"


def status_words(status: SyncStatus, now: datetime, problem: str | None = None, rejected: int = 0) -> StatusWords:
    """Put a status into words, in several lengths.

    Args:
        status: the status.
        now: the moment, for the age of the last sync.
        problem: a reason that goes before those of the status.
        rejected: how many writes the backend refused for good.
    """
    state = state_of(status)
    long, short = _STATES[state]
    progress = status.download_progress
    if state == "connected" and progress is not None and not status.has_synced:
        done = round(_BAR_CELLS * progress.downloaded_fraction)
        short = f"Downloading {progress.downloaded_fraction:.0%}"
        long = f"{short} {'▰' * done}{'▱' * (_BAR_CELLS - done)}"
    waiting = status.upload_queue_count
    if waiting:
        changes = counted(waiting)
        if status.uploading and status.upload_error is None:
            tails = (f"uploading {changes}", f"uploading {waiting:,}")
        else:
            tails = (f"{changes} waiting", f"{waiting:,} waiting")
        left = (f"{long} · {tails[0]}", *(f"{short} · {tail}" for tail in tails))
    elif state == "connected" and status.has_synced and not rejected:
        left = (f"{long} · all changes synced", long)
    else:
        left = (long, short)
    if rejected:
        left = tuple(f"{words} · {rejected:,} rejected" for words in left)
    if status.last_synced_at is None:
        right = ("not synced yet",)
    else:
        right = (f"last sync {ago(status.last_synced_at, now)}", ago(status.last_synced_at, now))
    if retry := _retry_words(status, state, now):
        right = (f"{retry} · {right[0]}", *right)
    return StatusWords(state, _GLYPHS[state], left, right, _reason(status, state, problem))


def _reason(status: SyncStatus, state: StateName, problem: str | None) -> str:
    if problem is not None:
        return f" · {_sentence(problem)}"
    if state == "offline" and status.download_error is not None:
        return f" · {_sentence(str(status.download_error) or type(status.download_error).__name__)}"
    if state == "connected" and status.upload_error is not None and status.upload_queue_count:
        return f": {_sentence(str(status.upload_error) or type(status.upload_error).__name__)}"
    return ""


def _retry_words(status: SyncStatus, state: StateName, now: datetime) -> str:
    """When the next attempt is; empty while nothing has failed or an attempt is under way."""
    at = status.next_retry_at
    if at is None or state not in {"offline", "connected"} or status.connecting or status.uploading:
        return ""
    return f"retrying in {max(1, math.ceil((at - now).total_seconds()))} s"


def _sentence(text: str) -> str:
    """The beginning of a text of any length, on one line and without the full stop."""
    return " ".join(text[:_LONGEST_REASON].split()).removesuffix(".")


def ago(moment: datetime, now: datetime) -> str:
    """How long ago a moment was; a moment in the future counts as now (clocks differ)."""
    seconds = int((now - moment).total_seconds())
    if seconds < _MINUTE:
        return "just now"
    if seconds < _HOUR:
        return _count(seconds // _MINUTE, "minute")
    if seconds < _DAY:
        return _count(seconds // _HOUR, "hour")
    if seconds < 14 * _DAY:
        return _count(seconds // _DAY, "day")
    return f"on {moment.astimezone(now.tzinfo):%Y-%m-%d}"


def moment(stamp: str | None, now: datetime) -> str:
    """When something happened, by its time stamp: how long ago, and the local date and time.

    What is not an ISO 8601 time stamp is returned as it is, shortened and on one line; None becomes empty.
    """
    try:
        at = datetime.fromisoformat(stamp or "")
    except ValueError:
        return sanitized((stamp or "")[:_LONGEST_STAMP])
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    age = ago(at, now)
    date = f"{at.astimezone(now.tzinfo):%Y-%m-%d %H:%M}"
    return date if age.startswith("on ") else f"{age} ({date})"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'} ago"


class DownloadRate:
    """How fast a download is, and how long it may still take: from the statuses of the last seconds."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []
        self._total = 0

    def add(self, status: SyncStatus, at: float) -> None:
        """Add a status, seen at a moment in seconds."""
        progress = status.download_progress
        if progress is None:
            self._seen.clear()
            return
        self._total = progress.total_operations
        self._seen = [each for each in self._seen if at - each[0] < _RATE_SECONDS]
        self._seen.append((at, progress.downloaded_operations))

    def describe(self) -> str:
        """The progress in a sentence; empty while nothing is being downloaded."""
        if not self._seen:
            return ""
        (first_at, first), (last_at, last) = self._seen[0], self._seen[-1]
        words = f"{last:,} of {self._total:,} changes downloaded"
        if last_at - first_at < _LEAST_SECONDS or last <= first:
            return f"{words}."
        rate = (last - first) / (last_at - first_at)
        left = math.ceil((self._total - last) / rate)
        return f"{words} ({rate:,.0f} per second, about {left:,} s left)."
