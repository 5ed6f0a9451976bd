"""Files that nobody but their owner may read, and that are whole: written to the disk before they are there.

Owns their mode and how they are written. Must not know what is in them. Everything here blocks, and is cheap to import.
"""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, text: str) -> None:
    """Write a file in place of the one that is there; after a crash it is the one or the other.

    Raises:
        OSError: it cannot be written; then all is as it was.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    _write(draft, text.encode(), os.O_TRUNC)
    try:
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def create_file(path: Path, content: bytes) -> None:
    """Write a new file.

    Raises:
        FileExistsError: there is one already.
        OSError: it cannot be written; then there is none.
    """
    _write(path, content, os.O_EXCL)


def _write(path: Path, content: bytes, flag: int) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | flag, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
