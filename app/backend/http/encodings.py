"""Content negotiation for streams: NDJSON or BSON, uncompressed, gzip or zstd, as requested by the client.

The choice is that of the PowerSync Service: BSON only if the client prefers it, and zstd over gzip if it accepts both.
Knows nothing about the content of the lines.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import zstandard

from app.backend.data.oplog import Operation
from app.backend.http import bson

NDJSON = "application/x-ndjson"
BSON = "application/vnd.powersync.bson-stream"

Encode = Callable[[Mapping[str, Any]], bytes]

# Each idle stream keeps a compressor in memory; a small window makes thousands of them affordable.
_WINDOW_LOG = 15
_ZSTD_LEVEL = 1
_GZIP_LEVEL = 5
_GZIP_MEMORY_LEVEL = 6


@dataclass(frozen=True)
class _Preference:
    """One entry of an Accept or Accept-Encoding header: its name, its weight, and its position."""

    name: str
    quality: float
    position: int

    def matches(self, name: str) -> int:
        """Return how specifically this entry matches `name`; 0 if it does not."""
        if self.name == name:
            return 3
        if self.name in {"*", "*/*"}:
            return 1
        return 2 if self.name.endswith("/*") and name.startswith(self.name[:-1]) else 0


def _preferences(header: str) -> list[_Preference]:
    found: list[_Preference] = []
    for position, part in enumerate(header.split(",")):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        if name:
            found.append(_Preference(name.lower(), quality, position))
    return found


def _rank(preferences: list[_Preference], name: str) -> tuple[float, int, int]:
    """Return weight, specificity and negative position of the entry for `name`; the highest rank is preferred."""
    matching = [(entry.matches(name), entry) for entry in preferences if entry.matches(name)]
    if not matching:
        return (0.0, 0, 0)
    specificity, best = max(matching, key=lambda pair: pair[0])
    return (best.quality, specificity, -best.position)


def media_type(accept: str | None) -> str:
    """Choose the media type for an Accept header: BSON if it is preferred, otherwise always NDJSON."""
    if accept is None:
        return NDJSON
    preferences = _preferences(accept)
    bson_rank, json_rank = _rank(preferences, BSON), _rank(preferences, NDJSON)
    return BSON if bson_rank[0] > 0 and bson_rank > json_rank else NDJSON


def content_encoding(accept_encoding: str | None) -> str | None:
    """Choose "zstd", "gzip" or None for an Accept-Encoding header: the highest weight wins, and zstd if equal."""
    if not accept_encoding:
        return None
    preferences = _preferences(accept_encoding)
    weights = {name: _rank(preferences, name)[0] for name in ("zstd", "gzip")}
    identity = _rank([entry for entry in preferences if entry.name != "*"], "identity")[0]
    best = max(weights, key=lambda name: weights[name])
    return best if weights[best] > 0 and weights[best] >= identity else None


def encoder(kind: str, *, raw_data: bool) -> Encode:
    """Return the function that encodes a line. Without `raw_data`, NDJSON (but not BSON) has rows as nested objects."""
    if kind == BSON:
        return bson.encode
    return _ndjson if raw_data else _legacy_ndjson


def _ndjson(line: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _legacy_ndjson(line: Mapping[str, Any]) -> bytes:
    data = line.get("data")
    if data is None:
        return _ndjson(line)
    return _ndjson({"data": {**data, "data": [_nested(operation) for operation in data["data"]]}})


def _nested(operation: Operation) -> Operation:
    if not isinstance(operation.data, str):
        return operation
    return msgspec.structs.replace(operation, data=msgspec.Raw(operation.data.encode()))


class Compressor(Protocol):
    """Compresses a stream chunk by chunk; each chunk can be decompressed as soon as it arrives."""

    def __call__(self, chunk: bytes) -> bytes:
        """Return the next chunk, compressed and flushed."""
        ...

    def end(self) -> bytes:
        """Return the bytes that end the stream."""
        ...


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + _WINDOW_LOG, _GZIP_MEMORY_LEVEL)

    def __call__(self, chunk: bytes) -> bytes:
        return self._stream.compress(chunk) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._stream.flush(zlib.Z_FINISH)


class _Zstd:
    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters(compression_level=_ZSTD_LEVEL, window_log=_WINDOW_LOG)
        self._stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def __call__(self, chunk: bytes) -> bytes:
        return self._stream.compress(chunk) + self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def end(self) -> bytes:
        return self._stream.flush()


class _Plain:
    def __call__(self, chunk: bytes) -> bytes:
        return chunk

    def end(self) -> bytes:
        return b""


def compressor(encoding: str | None) -> Compressor:
    """Return a new compressor for `encoding`, as returned by `content_encoding`."""
    if encoding == "zstd":
        return _Zstd()
    return _Gzip() if encoding == "gzip" else _Plain()
