"""A small share of what `python -m tests.fuzz` does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync import ProtocolError
from sync.client.service import _retry_after
from sync.protocol import DataLine, decode_line
from tests.fuzz.__main__ import run
from tests.fuzz.engine_targets import Client
from tests.fuzz.targets import TARGETS


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("TODO_TUI_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_does_harm(name: str, tmp_path: Path) -> None:
    assert run(name, 300, 7, tmp_path) == []


# What it found


@pytest.mark.parametrize("line", [b'{"checkpoint_complemple\xd1e":{}}', b'{"check\xff_cohplete":1}'])
def test_a_line_of_a_kind_that_is_no_text_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_line(line)


def test_an_operation_from_before_a_checkpoint_is_not_taken_after_it(tmp_path: Path) -> None:
    """It was, and could be published with no later checkpoint: now it comes again as the checksums demand."""
    client = Client(tmp_path)
    chunk = [_checkpoint(1, 10), _data(1, 10), _complete(1), _checkpoint(82, 10), _complete(82)]
    client.take([chunk, [_checkpoint(83, 30), _data(23, 20), _complete(83)]])
    assert client.published == 1
    assert [row_id for _, row_id, _ in client.rows()] == ["1"]
    client.take([[_checkpoint(83, 30), _complete(83)]])
    client.take([[_checkpoint(83, 30), _data(1, 10), _data(23, 20), _complete(83)]])
    assert [row_id for _, row_id, _ in client.rows()] == ["1", "23"]
    client.close()


def test_a_row_that_is_no_json_is_a_protocol_error_and_comes_again(tmp_path: Path) -> None:
    """It made SQLite fail in the index, with every new connection."""
    client = Client(tmp_path)
    good = _data(1, 10).replace(b'"lists"', b'"todos"')
    bad = good.replace(b'{\\"name', b'{{\\"name')
    assert isinstance(decode_line(bad), DataLine)
    assert bad != good
    client.take([[_checkpoint(1, 10), bad, _complete(1)]])
    assert isinstance(client.refused, ProtocolError)
    assert client.rows() == []
    client.take([[_checkpoint(1, 10), good, _complete(1)]])
    assert [row_id for _, row_id, _ in client.rows()] == ["1"]
    client.close()


def test_a_date_beyond_all_dates_to_retry_after_is_as_none() -> None:
    assert _retry_after(httpx.Response(503, headers={"Retry-After": f"Fri, 31 Dec {'9' * 40} 23:59:59 GMT"})) is None


def _checkpoint(last: int, checksum: int) -> bytes:
    buckets = [{"bucket": "b", "checksum": checksum, "count": 1, "priority": 3, "subscriptions": []}]
    return _line(checkpoint={"last_op_id": str(last), "buckets": buckets, "streams": []})


def _data(op_id: int, checksum: int) -> bytes:
    row = {"op_id": str(op_id), "op": "PUT", "object_type": "lists", "object_id": str(op_id), "checksum": checksum}
    operations = [row | {"subkey": "s", "data": json.dumps({"name": "x"})}]
    return _line(data={"bucket": "b", "after": "0", "has_more": False, "data": operations})


def _line(**parts: Any) -> bytes:
    return json.dumps(parts).encode()


def _complete(last: int) -> bytes:
    return _line(checkpoint_complete={"last_op_id": str(last)})
