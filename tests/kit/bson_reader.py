"""BSON read by its specification, not by what the backend makes of it."""

from __future__ import annotations

import struct
from typing import Any


def decode(data: bytes, *, is_list: bool = False) -> Any:
    """One document."""
    (size,) = struct.unpack_from("<i", data)
    assert size == len(data)
    assert data[-1] == 0
    found: dict[str, Any] = {}
    at = 4
    while at < size - 1:
        kind = data[at]
        end = data.index(b"\0", at)
        key, at = data[at + 1 : end].decode(), end + 1
        if kind == 0x02:
            (length,) = struct.unpack_from("<i", data, at)
            found[key], at = data[at + 4 : at + 3 + length].decode(), at + 4 + length
            assert data[at - 1] == 0
        elif kind in (0x03, 0x04):
            (length,) = struct.unpack_from("<i", data, at)
            found[key], at = decode(data[at : at + length], is_list=kind == 0x04), at + length
        elif kind == 0x10:
            found[key], at = struct.unpack_from("<i", data, at)[0], at + 4
        elif kind == 0x01:
            found[key], at = struct.unpack_from("<d", data, at)[0], at + 8
        elif kind == 0x08:
            found[key], at = bool(data[at]), at + 1
        else:
            assert kind == 0x0A
            found[key] = None
    if is_list:
        assert list(found) == [str(index) for index in range(len(found))]
        return list(found.values())
    return found
