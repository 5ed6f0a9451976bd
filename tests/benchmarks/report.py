"""The table of figures: each against its reference and its goal.

Owns the goals, how figures become ratios, and the page `docs/performance.md`. Measures nothing.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.measurements import Figures

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
BEGIN = "<!-- made by python -m tests.benchmarks --write -->"
END = "<!-- end of what was made -->"

Results = Mapping[str, Sequence[Figures]]
"""The figures of each contender, one value a round."""


@dataclass(frozen=True)
class Goal:
    """What a figure should be.

    Attributes:
        what: the figure, in words.
        name: of the figure.
        unit: of the figure.
        reference: the contender to compare with, or None.
        at_most: the greatest value that is wanted, in the unit.
        ratio: how many times the reference's value the figure may be at most.
    """

    what: str
    name: str
    unit: str
    reference: str | None = None
    at_most: float | None = None
    ratio: float | None = None

    def row(self, results: Results) -> str:
        """One line of the table."""
        own = [figures[self.name] for figures in results["engine"]]
        value = statistics.median(own)
        goals: list[str] = []
        reached: list[bool] = []
        if self.at_most is not None:
            goals.append(f"≤ {self.at_most:g} {self.unit}")
            reached.append(value <= self.at_most)
        compared = "–"
        if self.reference is not None and results.get(self.reference):
            others = [figures[self.name] for figures in results[self.reference]]
            other = statistics.median(others)
            times = _times(value / other) if self.unit != "MB" else f"{value / other:.2f} times"
            compared = f"{_spread(others, self.unit)} ({self.reference}), {times}"
            if self.ratio is not None:
                goals.append(_times(self.ratio, at_most=True))
                reached.append(value <= other * self.ratio)
        verdict = "–" if not reached else "yes" if all(reached) else "no"
        return f"| {self.what} | {_spread(own, self.unit)} | {compared} | {', '.join(goals) or '–'} | {verdict} |"


def first_sync_goals(rows: int, buckets: int) -> list[Goal]:
    """The goals of a first sync of so many rows."""
    what = f"first sync, {rows:,} rows in {buckets:,} bucket{'s' * (buckets > 1)}"
    quicker = 5.5 if rows >= 1_000_000 else 4 if buckets >= 1000 else 3.5
    return [
        Goal(f"{what}: stream opened → visible", "seconds", "s", "node", ratio=1 / quicker),
        Goal(f"{what}, against bare inserts", "seconds", "s", "bare", ratio=1.3),
        Goal(f"{what}: peak memory of the process", "memory_mb", "MB", "node", at_most=80),
        Goal(f"{what}: size of the file", "file_mb", "MB", "node", at_most=105 if rows == 100_000 else None),
        Goal(f"{what}: event loop kept from running at most", "block_ms", "ms", at_most=10),
    ]


LIVE = [
    Goal("one live change, on the wire → watched query, median", "p50", "ms", "node", at_most=1.5),
    Goal("the same, 95th percentile", "p95", "ms", "node", at_most=3),
    Goal("300 checkpoints in a burst → watched query", "burst", "ms", "node", at_most=250),
]
WRITES = [
    Goal("one local insert with its queue entry", "insert", "ms", "node", at_most=0.2),
    Goal("10,000 inserts in one transaction", "batch", "ms", "node", at_most=130),
    Goal("local write → watched query on 100,000 rows", "watched", "ms", "node", at_most=1),
]
FILES = [
    Goal("draining 10,000 queued transactions, one by one", "drain", "s", "node", at_most=1),
    Goal("opening a file of 100,000 rows → first query", "open", "ms", "node", at_most=30),
]


def _times(ratio: float, *, at_most: bool = False) -> str:
    if at_most:
        return f"≥ {1 / ratio:.2g} times as fast" if ratio < 1 else f"≤ {ratio:.2g} times"
    return f"{1 / ratio:.1f} times as fast" if ratio < 1 else f"{ratio:.2f} times"


def _spread(values: Sequence[float], unit: str) -> str:
    shown: Callable[[float], str] = lambda value: f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: E731
    return f"{shown(statistics.median(values))} {unit} ({shown(min(values))}–{shown(max(values))})"


def machine() -> str:
    """What the figures were measured on."""
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"load {os.getloadavg()[0]:.1f} at the end"
    )


def table(rows: Sequence[str]) -> str:
    """The table, in Markdown."""
    return "\n".join(("| what | here: median (spread) | reference | goal | reached |", "|---|---|---|---|---|", *rows))


def write_page(rows: Sequence[str]) -> None:
    """Put the table into the page, in place of the last one."""
    before, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n\nMeasured on {machine()}.\n\n{table(rows)}\n\n{END}{after}")
