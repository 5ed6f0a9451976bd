"""Lines as NDJSON and BSON, plain and compressed: what is chosen, and that each line arrives at once."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from app.backend.http import bson, encodings
from tests.kit.bson_reader import decode

from .harness import WAIT_SECONDS, User, put, todos_of

BSON = "application/vnd.powersync.bson-stream"
NDJSON = "application/x-ndjson"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"a": "", "b": "é☃🧺\0x", "c": None, "d": True, "e": False},
        {"low": -(2**31), "high": 2**31 - 1, "checksum": 2**32 - 1, "below": -(2**31) - 1},
        {"list": [], "deep": [{"x": [1, [2]]}], "tuple": (1, "2")},
    ],
)
def test_bson_says_what_was_to_be_said(document: dict[str, Any]) -> None:
    assert json.loads(json.dumps(document)) == decode(bson.encode(document))


def test_bson_is_what_the_official_library_writes() -> None:
    # What serialize() of the npm package bson 6.10.4 made of the same object.
    document = {"data": {"checksum": 4294967295, "count": 7, "has_more": False, "after": "0", "list": ["a", None]}}
    assert bson.encode(document).hex() == (
        "5c0000000364617461005100000001636865636b73756d000000e0ffffffef4110636f756e740007000000086861735f6d6f7265000002"
        "616674657200020000003000"
        "046c69737400110000000230000200000061000a3100000000"
    )


def test_a_key_with_a_nul_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="NUL"):
        bson.encode({"a\0b": 1})


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, NDJSON),
        ("*/*", NDJSON),
        (NDJSON, NDJSON),
        (BSON, BSON),
        ("text/html", NDJSON),
        (f"{BSON};q=0.9,{NDJSON};q=0.8", BSON),
        (f"{BSON};q=0.8,{NDJSON};q=0.9", NDJSON),
        (f"{BSON}, {NDJSON}", BSON),
        (f"{NDJSON}, {BSON}", NDJSON),
        (f"{BSON};q=0, */*", NDJSON),
        ("application/*", NDJSON),
        (f"*/*;q=0.5, {BSON}", BSON),
        (f"{BSON};q=much", NDJSON),
    ],
)
def test_which_format_is_chosen(accept: str | None, chosen: str) -> None:
    assert encodings.media_type(accept) == chosen


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.5, gzip", "gzip"),
        ("zstd;q=0, gzip;q=0", None),
        ("br", None),
        ("*", "zstd"),
        ("gzip;q=0.5, identity", None),
    ],
)
def test_which_compression_is_chosen(accept: str | None, chosen: str | None) -> None:
    assert encodings.content_encoding(accept) == chosen


class Chunks:
    """What arrives of a stream, decompressed as it comes, cut into documents or lines."""

    def __init__(self, answer: Any) -> None:
        self._source = answer.aiter_raw()
        self._rest = b""
        encoding = answer.headers.get("content-encoding")
        self._decompress: Callable[[bytes], bytes] = {
            None: bytes,
            "gzip": zlib.decompressobj(31).decompress,
            "zstd": zstandard.ZstdDecompressor().decompressobj().decompress,
        }[encoding]
        self._is_bson = answer.headers["content-type"] == BSON

    async def next(self) -> dict[str, Any]:
        while True:
            end = struct.unpack_from("<i", self._rest)[0] if self._is_bson and len(self._rest) >= 4 else 0
            if not self._is_bson:
                end = self._rest.find(b"\n") + 1
            if 0 < end <= len(self._rest):
                line, self._rest = self._rest[:end], self._rest[end:]
                return decode(line) if self._is_bson else json.loads(line)
            async with asyncio.timeout(WAIT_SECONDS):
                self._rest += self._decompress(await anext(self._source))


@pytest.mark.parametrize("accept", [NDJSON, BSON])
@pytest.mark.parametrize("compression", ["identity", "gzip", "zstd"])
async def test_each_line_arrives_at_once_however_it_is_written(ann: User, accept: str, compression: str) -> None:
    await ann.write(put("lists", "l", name="é☃"), put("todos", "t", description="D", list_id="l", completed=1))
    # BSON has rows as text whatever is asked for, as the service has it.
    body = {
        "raw_data": accept == NDJSON,
        "client_id": "c",
        "streams": {"include_defaults": True, "subscriptions": todos_of("l")},
    }
    headers = {"Accept": accept, "Accept-Encoding": compression}
    async with ann.http.stream("POST", "/sync/stream", json=body, headers=headers) as answer:
        assert answer.headers["content-type"] == accept
        assert answer.headers.get("content-encoding", "identity") == compression
        assert answer.headers["x-accel-buffering"] == "no"
        chunks = Chunks(answer)
        first = (await chunks.next())["checkpoint"]
        assert [bucket["subscriptions"] for bucket in first["buckets"]] == [[{"default": 0}], [{"sub": 0}]]
        of_lists, of_todos = (await chunks.next())["data"], (await chunks.next())["data"]
        assert json.loads(of_lists["data"][0]["data"])["name"] == "é☃"
        assert (of_todos["after"], of_todos["has_more"]) == ("0", False)
        sums = [sum(op["checksum"] for op in data["data"]) for data in (of_lists, of_todos)]
        assert [int(it) & 0xFFFFFFFF for it in sums] == [it["checksum"] & 0xFFFFFFFF for it in first["buckets"]]
        assert await chunks.next() == {"checkpoint_complete": {"last_op_id": first["last_op_id"]}}
        for number in range(3):
            await ann.write(put("lists", "l", name=f"N{number}"))
            assert len((await chunks.next())["checkpoint_diff"]["updated_buckets"]) == 1
            assert json.loads((await chunks.next())["data"]["data"][0]["data"])["name"] == f"N{number}"
            assert "checkpoint_complete" in await chunks.next()
