"""BSON as the PowerSync Service writes it: the lines of a stream, one document each.

Only what such lines hold: documents, lists, texts, whole numbers, booleans and null. A number is what JavaScript makes
of it, 32-bit where it fits and a double elsewhere, because clients are used to that. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from app.backend.oplog import Operation

_INT32 = range(-(2**31), 2**31)
_LENGTH = struct.Struct("<i")
_DOUBLE = struct.Struct("<d")


def encode(document: Mapping[str, Any]) -> bytes:
    """`document` as BSON. Raises TypeError for a value of another kind, ValueError for a key with a NUL in it."""
    return _document(document.items())


def _document(items: Iterable[tuple[str, Any]]) -> bytes:
    body = b"".join([_element(key, value) for key, value in items])
    return _LENGTH.pack(len(body) + 5) + body + b"\0"


def _element(key: str, value: Any) -> bytes:
    name = key.encode()
    if b"\0" in name:
        raise ValueError("a key in BSON cannot contain NUL")
    name += b"\0"
    if isinstance(value, str):
        text = value.encode()
        return b"\x02" + name + _LENGTH.pack(len(text) + 1) + text + b"\0"
    if value is None:
        return b"\x0a" + name
    if isinstance(value, bool):
        return b"\x08" + name + (b"\1" if value else b"\0")
    if isinstance(value, int):
        return b"\x10" + name + _LENGTH.pack(value) if value in _INT32 else b"\x01" + name + _DOUBLE.pack(value)
    if isinstance(value, Mapping):
        return b"\x03" + name + _document(cast("Mapping[str, Any]", value).items())
    if isinstance(value, Operation):
        return b"\x03" + name + _document(_fields(value))
    if isinstance(value, list | tuple):
        elements = cast("list[Any] | tuple[Any, ...]", value)
        return b"\x04" + name + _document((str(index), element) for index, element in enumerate(elements))
    raise TypeError(f"a {type(value).__name__} has no place in a line of a stream")


def _fields(operation: Operation) -> Iterable[tuple[str, Any]]:
    for name in operation.__struct_fields__:
        value = getattr(operation, name)
        if value is not msgspec.UNSET:
            yield name, value
