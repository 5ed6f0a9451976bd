"""The pages of a SQLite file: which rows are on which, and how one is spoiled."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_INTERIOR, _LEAF = 5, 13


@dataclass(frozen=True)
class Leaf:
    """A page with rows: its place in the file, and the numbers (rowids) of its rows."""

    offset: int
    numbers: tuple[int, ...]


def page_size(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA page_size").fetchone()[0]


def leaves(path: Path, table: str) -> list[Leaf]:
    """The leaves of a table, in the order of its rows. Everything is moved from the log into the file before."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [table]).fetchone()
    return list(_leaves(path.read_bytes(), page_size(path), root))


def _leaves(file: bytes, size: int, number: int) -> Iterator[Leaf]:
    page = file[size * (number - 1) : size * number]
    kind, _, cells = struct.unpack_from(">BHH", page)
    pointers = struct.unpack_from(f">{cells}H", page, 12 if kind == _INTERIOR else 8)
    if kind == _INTERIOR:
        for pointer in pointers:
            yield from _leaves(file, size, struct.unpack_from(">I", page, pointer)[0])
        yield from _leaves(file, size, struct.unpack_from(">I", page, 8)[0])
    else:
        assert kind == _LEAF
        yield Leaf(size * (number - 1), tuple(_row_number(page, pointer) for pointer in pointers))


def _row_number(page: bytes, pointer: int) -> int:
    _, pointer = _varint(page, pointer)
    return _varint(page, pointer)[0]


def _varint(page: bytes, pointer: int) -> tuple[int, int]:
    value = 0
    while True:
        byte = page[pointer]
        pointer += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, pointer


def spoil(path: Path, *pages: Leaf) -> None:
    """Overwrite pages."""
    size = page_size(path)
    with path.open("r+b") as file:
        for page in pages:
            file.seek(page.offset)
            file.write(b"\xff" * size)
