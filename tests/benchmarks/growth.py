"""How costs grow: `python -m tests.benchmarks.growth` measures series and draws them into docs/growth.svg.

Owns the series and the drawing. The figures are kept in docs/growth.json, so that one part can be measured anew
(`--part`), or none (`--draw`). It needs matplotlib, which the extra `plots` brings.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import measurements
from tests.benchmarks.measurements import Figures
from tests.benchmarks.report import machine
from tests.benchmarks.workload import Workload

DOCS = Path(__file__).parents[2] / "docs"

Measured = dict[str, dict[str, Figures]]
"""The medians of each contender, for each place on the axis below."""

_COLOURS = {"engine": "#2563eb", "node": "#d97706", "bare": "#6b7280"}
_MARKERS = {"engine": "o", "node": "s", "bare": "^"}
_NAMES = {"engine": "this engine", "node": "@powersync/node", "bare": "bare inserts"}


@dataclass(frozen=True)
class Series:
    """Something that grows.

    Attributes:
        places: how much of it there is.
        measure: takes a place and a number of rounds.
        once_from: from this place on one round is measured: it takes minutes.
    """

    places: tuple[int, ...]
    measure: Callable[[int, int], Mapping[str, list[Figures]]]
    once_from: int


def _rows(count: int, rounds: int) -> dict[str, list[Figures]]:
    return measurements.first_sync(Workload(count), measurements.contenders("bare"), rounds)


def _buckets(count: int, rounds: int) -> dict[str, list[Figures]]:
    return measurements.first_sync(Workload(100_000, count), measurements.contenders(), rounds)


SERIES = {
    "rows": Series((10_000, 100_000, 1_000_000), _rows, 1_000_000),
    "buckets": Series((1, 10, 100, 1000), _buckets, 10_000),
    "watchers": Series((1, 5, 10, 25, 50), measurements.watchers, 1000),
    "queue": Series((10, 100, 1000, 10_000, 100_000), measurements.drain, 100_000),
}


@dataclass(frozen=True)
class Plot:
    """One of the plots.

    Attributes:
        series: what grows.
        figure: what is shown of it.
        title: of the plot.
        below: what the axis below counts.
        from_zero: whether the axis at the left is linear.
    """

    series: str
    figure: str
    title: str
    below: str
    from_zero: bool = False


PLOTS = (
    Plot("rows", "seconds", "First sync, 10 buckets: seconds", "rows"),
    Plot("rows", "memory_mb", "First sync, 10 buckets: memory of the process, MB", "rows", from_zero=True),
    Plot("rows", "file_mb", "First sync, 10 buckets: size of the file, MB", "rows"),
    Plot("buckets", "seconds", "First sync, 100,000 rows: seconds", "buckets", from_zero=True),
    Plot("watchers", "watched", "Local write → all watched queries: ms", "watched queries"),
    Plot("queue", "drain", "Draining, one by one: seconds", "queued transactions"),
)


def draw(measured: Mapping[str, Measured], path: Path) -> None:
    """Draw all plots into one SVG, the same for the same figures."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    style = {"svg.fonttype": "none", "svg.hashsalt": "growth", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
    with mpl.rc_context(style):
        figure, axes = plt.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
        for plot, place in zip(PLOTS, axes.flat, strict=True):
            series = measured.get(plot.series, {})
            for kind, name in _NAMES.items():
                points = [
                    (int(count), figures[kind][plot.figure])
                    for count, figures in series.items()
                    if plot.figure in figures.get(kind, {})
                ]
                if points:
                    below, values = zip(*sorted(points), strict=True)
                    place.plot(below, values, marker=_MARKERS[kind], color=_COLOURS[kind], label=name)
            place.set(xscale="log", title=plot.title, xlabel=plot.below)
            place.xaxis.set_major_formatter("{x:,.0f}")
            if plot.from_zero:
                place.set_ylim(bottom=0)
            else:
                place.set_yscale("log")
                place.yaxis.set_major_formatter("{x:,g}")
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.patch.set_facecolor("white")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.growth")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=SERIES, action="append", help="only this series; may be given several times")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    options = parser.parse_args()
    kept = DOCS / "growth.json"
    measured: dict[str, Measured] = json.loads(kept.read_text()) if kept.exists() else {}
    for name in () if options.draw else options.part or SERIES:
        series = SERIES[name]
        measured[name] = {}
        for count in series.places:
            results = series.measure(count, 1 if count >= series.once_from else options.rounds)
            medians = {
                kind: {key: round(statistics.median([each[key] for each in figures]), 4) for key in figures[0]}
                for kind, figures in results.items()
            }
            measured[name][str(count)] = medians
            print(name, f"{count:,}", json.dumps(medians), flush=True)
            kept.write_text(json.dumps(measured, indent=1) + "\n")
    draw(measured, DOCS / "growth.svg")
    print(machine())


if __name__ == "__main__":
    main()
