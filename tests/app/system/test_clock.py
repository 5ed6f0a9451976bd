"""The clock of commands and interface: it can be stopped, and nothing else looks at the calendar."""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.system.clock import NOW_VARIABLE, local_now
from tests.app.cli.test_cli import Terminal
from tests.app.commands import PROGRAM, Run, data, out

ROOT = Path(__file__).parents[3]
CALENDAR = re.compile(r"\b(?:datetime|date)\.today\(|\bdatetime\.now\(\)|\butcnow\(|\btime\.(?:local|c|gm|strf)time\(")


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """The time zone of this process is that of Berlin."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("stopped", "expected", "offset"),
    [
        ("2027-02-28T23:59:59", datetime(2027, 2, 28, 22, 59, 59, tzinfo=UTC), 1),
        ("2027-03-28T01:59", datetime(2027, 3, 28, 0, 59, tzinfo=UTC), 1),
        ("2027-03-28T03:01", datetime(2027, 3, 28, 1, 1, tzinfo=UTC), 2),
        ("2027-12-31T23:30:00+00:00", datetime(2027, 12, 31, 23, 30, tzinfo=UTC), 1),
    ],
)
def test_a_stopped_clock(
    monkeypatch: pytest.MonkeyPatch, berlin: None, stopped: str, expected: datetime, offset: int
) -> None:
    monkeypatch.setenv(NOW_VARIABLE, stopped)
    assert local_now() == expected
    assert local_now().utcoffset() == timedelta(hours=offset)


def test_a_clock_that_is_not_stopped_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch, berlin: None) -> None:
    monkeypatch.delenv(NOW_VARIABLE, raising=False)
    before, now, after = datetime.now(UTC), local_now(), datetime.now(UTC)
    assert before <= now <= after
    assert now.utcoffset() in {timedelta(hours=1), timedelta(hours=2)}


@pytest.mark.parametrize(
    ("now", "zone", "tomorrow"),
    [
        ("2027-02-28T23:59", "UTC", "2027-03-01"),
        ("2028-02-28T12:00", "UTC", "2028-02-29"),
        ("2026-12-31T23:30:00+00:00", "Europe/Berlin", "2027-01-02"),
        ("2027-03-27T23:30:00+00:00", "Europe/Berlin", "2027-03-29"),
    ],
)
def test_commands_go_by_the_stopped_clock(run: Run, now: str, zone: str, tomorrow: str) -> None:
    clock = {NOW_VARIABLE: now, "TZ": zone}
    added = run("add", "Water the roses tom", **clock)
    assert added.stderr == "Added 1 to-do to To-dos: due tomorrow.\n"
    assert [todo["due"] for todo in data(run, "list", "--json")] == [tomorrow]
    assert out(run("list", "--upcoming", **clock)).endswith("Water the roses  To-dos  tomorrow")


def test_views_repetitions_and_the_interface_go_by_the_stopped_clock(
    run: Run, environment: dict[str, str], data_dir: Path
) -> None:
    clock = {NOW_VARIABLE: "2027-12-31T12:00"}
    out(run("add", "--plain", "Feed the cat due:2027-12-31 rec:1d", **clock))
    assert out(run("list", "--today", **clock)).endswith("Feed the cat  To-dos  ↻  today")
    out(run("done", "cat", **clock))
    assert out(run("list", "--upcoming", **clock)).endswith("Feed the cat  To-dos  ↻  tomorrow")
    terminal = Terminal({**environment, **clock, "TODO_TUI_DATA_DIR": str(data_dir)}, PROGRAM)
    try:
        terminal.read_until(b"tomorrow")
    finally:
        terminal.close()


def test_the_calendar_is_looked_at_in_one_place() -> None:
    files = [path for room in ("app", "sync", "tests") for path in (ROOT / room).rglob("*.py")]
    looking = {str(path.relative_to(ROOT)) for path in files if CALENDAR.search(path.read_text("utf-8"))}
    assert looking == {"app/system/clock.py"}
