"""Private files: their mode, and what is there when they cannot be written."""

from __future__ import annotations

import errno
import resource
import signal
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.system.private_file import create_file, replace_file


@contextmanager
def no_room() -> Generator[None]:
    """The system refuses files of more than 10 bytes, as a full disk would."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("old")
    file.chmod(0o644)
    replace_file(file, "näu")
    assert file.read_text("utf-8") == "näu"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_replaced_stays(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("old")
    with no_room(), pytest.raises(OSError) as raised:  # noqa: PT011 -- its number is looked at
        replace_file(file, "new" * 10)
    assert raised.value.errno == errno.EFBIG
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "directory", "new")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_is_new_or_not_written(tmp_path: Path) -> None:
    file = tmp_path / "f"
    create_file(file, b"one")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        create_file(file, b"two")
    assert file.read_bytes() == b"one"
    with no_room(), pytest.raises(OSError) as raised:  # noqa: PT011 -- its number is looked at
        create_file(tmp_path / "g", b"three" * 10)
    assert raised.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == [file]
