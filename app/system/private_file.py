"""Files that only their owner may read (mode 0600), and that are never seen half written.

Owns their mode and how they are written. Must not know what is in them. Everything here blocks, and is cheap to import.
"""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a file in place of the one that is there, if any.

    Args:
        path: the file.
        text: its new content.
        durable: wait for the disk, so that after a power failure there is the old content or the new. Without it the
            call returns sooner, and the file may be empty then.

    Raises:
        OSError: it cannot be written; nothing has changed then.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    _write(draft, text.encode(), os.O_TRUNC, durable=durable)
    try:
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def create_file(path: Path, content: bytes) -> None:
    """Write a new file, and wait until it is on the disk.

    Raises:
        FileExistsError: there is one already.
        OSError: it cannot be written; then there is none.
    """
    _write(path, content, os.O_EXCL, durable=True)


def _write(path: Path, content: bytes, flag: int, *, durable: bool) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | flag, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
