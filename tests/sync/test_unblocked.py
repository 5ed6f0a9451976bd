"""Nothing holds the event loop up while 100,000 rows are synced and watched: no blocking call, no import.

How long its longest pause is depends on the machine: `python -m tests.benchmarks` prints it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.service import write_body
from tests.benchmarks.workload import Workload

ROWS = 100_000


def test_a_first_sync_with_three_watchers_blocks_nothing(tmp_path: Path) -> None:
    body = tmp_path / "body"
    write_body(body, Workload(ROWS, row_bytes=200).lines())
    serve = [sys.executable, "-m", "tests.benchmarks.service", str(body)]
    with subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        assert service.stdin is not None
        port = service.stdout.readline().strip()
        program = [sys.executable, "-W", "error", "-m", "tests.sync.unblocked_first_sync", port, str(tmp_path)]
        done = subprocess.run([*program, str(ROWS)], capture_output=True, text=True, timeout=50)
        service.stdin.close()
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    (total,), newest, by_state = printed["results"]
    assert total == [ROWS]
    assert len(newest) == 100
    assert sorted(by_state) == [[0, ROWS // 2], [1, ROWS // 2]]
    assert printed["imported"] == []
