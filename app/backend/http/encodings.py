"""How the lines of a stream become bytes: NDJSON or BSON, plain, gzip or zstd, as the request asks.

Chooses as the PowerSync Service does: BSON only where it is preferred, zstd before gzip where both are offered. Knows
nothing of what the lines say.
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

# Each idle stream keeps a compressor: a small window makes thousands of them affordable.
_WINDOW_LOG = 15
_ZSTD_LEVEL = 1
_GZIP_LEVEL = 5
_GZIP_MEMORY_LEVEL = 6


@dataclass(frozen=True)
class _Preference:
    """One alternative of a header: its name, its weight, and how exactly it names something."""

    name: str
    quality: float
    position: int

    def matches(self, name: str) -> int:
        """How exactly it names `name`; 0 if not at all."""
        if self.name == name:
            return 3
        if self.name in {"*", "*/*"}:
            return 1
        return 2 if self.name.endswith("/*") and name.startswith(self.name[:-1]) else 0


def _preferences(header: str) -> list[_Preference]:
    found: list[_Preference] = []
    for position, part in enumerate(header.split(",")):
        name, *parameters = (it.strip() for it in part.split(";"))
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


def _weigh(preferences: list[_Preference], name: str) -> tuple[float, int, int]:
    """Weight, exactness and negative position of what a header says of `name`: the greatest is preferred."""
    fitting = [(it.matches(name), it) for it in preferences if it.matches(name)]
    if not fitting:
        return (0.0, 0, 0)
    exactness, best = max(fitting, key=lambda pair: pair[0])
    return (best.quality, exactness, -best.position)


def media_type(accept: str | None) -> str:
    """What to answer with to a header Accept: BSON if it is preferred, else NDJSON, whatever else is asked for."""
    if accept is None:
        return NDJSON
    preferences = _preferences(accept)
    bson_weight, json_weight = _weigh(preferences, BSON), _weigh(preferences, NDJSON)
    return BSON if bson_weight[0] > 0 and bson_weight > json_weight else NDJSON


def content_encoding(accept_encoding: str | None) -> str | None:
    """ "zstd", "gzip" or None for a header Accept-Encoding: what has the greatest weight; of equals, zstd."""
    if not accept_encoding:
        return None
    preferences = _preferences(accept_encoding)
    weights = {name: _weigh(preferences, name)[0] for name in ("zstd", "gzip")}
    identity = _weigh([it for it in preferences if it.name != "*"], "identity")[0]
    best = max(weights, key=lambda name: weights[name])
    return best if weights[best] > 0 and weights[best] >= identity else None


def encoder(kind: str, *, raw_data: bool) -> Encode:
    """What makes bytes of a line. Without `raw_data`, NDJSON has rows as nested objects; BSON never has."""
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
    """Compresses a stream in pieces, each of which can be read when it arrives."""

    def __call__(self, chunk: bytes) -> bytes:
        """The next piece."""
        ...

    def end(self) -> bytes:
        """What closes the stream."""
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
    """A new compressor for an encoding that `content_encoding` chose."""
    if encoding == "zstd":
        return _Zstd()
    return _Gzip() if encoding == "gzip" else _Plain()
