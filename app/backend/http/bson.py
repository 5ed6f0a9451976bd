"""BSON as the PowerSync Service writes it: each line of a stream is one document.

Supports only what such lines contain: documents, lists, strings, integers, booleans and null. Numbers are encoded as in
JavaScript, as 32-bit integers where they fit and as doubles otherwise, because clients expect that. Pure functions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec

from app.backend.data.oplog import Operation

_INT32 = range(-(2**31), 2**31)
_LENGTH = struct.Struct("<i")
_DOUBLE = struct.Struct("<d")

# The fields of an operation: type and name.
_OP_ID = b"\x02op_id\0"
_OP = b"\x02op\0"
_OBJECT_TYPE = b"\x02object_type\0"
_OBJECT_ID = b"\x02object_id\0"
_INT32_CHECKSUM = b"\x10checksum\0"
_CHECKSUM = b"\x01checksum\0"
_SUBKEY = b"\x02subkey\0"
_DATA = b"\x02data\0"
_NO_DATA = b"\x0adata\0"


def encode(document: Mapping[str, Any]) -> bytes:
    """Encode `document` as BSON. Raises TypeError for an unsupported type, ValueError for a key that contains NUL."""
    return _document(document.items())


def _document(items: Iterable[tuple[str, Any]]) -> bytes:
    body = b"".join([_element(key, value) for key, value in items])
    return _LENGTH.pack(len(body) + 5) + body + b"\0"


def _element(key: str, value: Any) -> bytes:
    name = key.encode()
    if b"\0" in name:
        raise ValueError("BSON keys must not contain NUL")
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
    if isinstance(value, list | tuple):
        elements = cast("list[Any] | tuple[Any, ...]", value)
        if elements and isinstance(elements[0], Operation):
            return b"\x04" + name + _operations(elements)
        return b"\x04" + name + _document((str(index), element) for index, element in enumerate(elements))
    raise TypeError(f"cannot encode {type(value).__name__} as BSON")


def _operations(operations: Sequence[Operation]) -> bytes:
    body = b"".join([b"\x03%d\0" % index + _operation(operation) for index, operation in enumerate(operations)])
    return _LENGTH.pack(len(body) + 5) + body + b"\0"


def _operation(operation: Operation) -> bytes:
    """Encode an operation as a document: a fast path, because a stream consists mostly of operations."""
    checksum = operation.checksum
    number = _INT32_CHECKSUM + _LENGTH.pack(checksum) if checksum in _INT32 else _CHECKSUM + _DOUBLE.pack(checksum)
    body = (
        _text(_OP_ID, operation.op_id)
        + _text(_OP, operation.op)
        + _text(_OBJECT_TYPE, operation.object_type)
        + _text(_OBJECT_ID, operation.object_id)
        + number
        + _text(_SUBKEY, operation.subkey)
        + (_NO_DATA if operation.data is None else _text(_DATA, operation.data))
    )
    return _LENGTH.pack(len(body) + 5) + body + b"\0"


def _text(name: bytes, value: str | msgspec.Raw | msgspec.UnsetType) -> bytes:
    if not isinstance(value, str):
        return b""
    text = value.encode()
    return name + _LENGTH.pack(len(text) + 1) + text + b"\0"
