"""Rescues of copies of one file, each killed one line later than the one before.

Run as `python -m tests.kit.killed_rescue TEMPLATE DIRECTORY`: copies the directory TEMPLATE, which has a `c.db`, to
`DIRECTORY/1`, `DIRECTORY/2` and so on, until a rescue ends by itself; says how many were killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import sync.api.rescue
from sync import rescue
from tests.kit.device_data import SCHEMA

TRACED = sync.api.rescue.__file__


def die_at(line: int) -> None:
    """Have this process kill itself before a line of the rescue: the one with this number among those that are run."""
    lines: set[int] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != TRACED:
            return None
        if event == "line":
            lines.add(frame.f_lineno)
            if len(lines) == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def main(template: Path, directory: Path) -> None:
    for number in count(1):
        copy = directory / str(number)
        shutil.copytree(template, copy)
        child = os.fork()
        if child == 0:
            die_at(number)
            rescue(copy / "c.db", SCHEMA)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            assert status == 0
            print(number - 1)
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
