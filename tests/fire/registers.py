"""The registers that the workload reads and writes, and the events that tell of it.

A register is a to-do of one list; its value, an integer, stands in `description`. Values come from the machine's
monotonic clock and the number of the process, so they are unique, and later ones are greater. The backend keeps the
greatest.

An event is a JSON object on a line of its own. `t` is the machine's monotonic clock in microseconds, `process` who
tells it, `file` the process's database, `life` counts the starts of the process. By `type`:

- `invoke`: a transaction is about to write `value` to `keys`, having read `state`; `ok`: it has been committed; `fail`:
  it raised `error`, and must never be seen.
- `read`: a query found `state` (register to value), and the status `synced_at` (microseconds since the epoch, or null).
- `attempt`: transactions with the values `values` are about to be sent; `completed`: those of the attempt have left the
  queue.
- `closed`: the process ended in order; `leaked` lists what it left open. `crashed`: it ended by itself.
- `fault`, `healed`: what the run does to them. `final`: what a process shows at the end, or the backend, with
  `arrived`, the registers that it took each value for, and how often. `live`: whether all were in step in time.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

USER = "fire"
LIST = "registers"
KEYS = tuple(f"r{number:02}" for number in range(16))
READ = "SELECT id, description FROM todos WHERE list_id = 'registers'"
WRITE = "UPDATE todos SET description = ? WHERE id = ?"
KEYS_PER_WRITE = 4
WRITERS = 64
"""No more processes than this ever write at once: what makes values of the same microsecond differ."""

Event = dict[str, Any]


def microseconds() -> int:
    """The machine's monotonic clock, which all processes share and no jump of the wall clock changes."""
    return time.monotonic_ns() // 1000


def new_value(writer: int) -> int:
    """A value that nobody has written before, greater than all that were."""
    return microseconds() * WRITERS + writer


def encode(event: Event) -> bytes:
    """One line."""
    return msgspec.json.encode(event) + b"\n"


def load(path: Path) -> list[Event]:
    """The events of a history that was kept, in the order of time."""
    events = [msgspec.json.decode(line) for line in path.read_bytes().splitlines() if line]
    return sorted(events, key=lambda event: event["t"])
