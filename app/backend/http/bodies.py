"""Request bodies: read with a size limit and a deadline, and decoded into typed values.

The only module that reads a request body. Knows nothing about what the bodies mean.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar, cast

import msgspec
from starlette.requests import ClientDisconnect, Request

from app.backend.errors import RequestError

MEBIBYTE = 1024 * 1024
_DRAINED_BYTES = 32 * MEBIBYTE
_BODY_SECONDS = 30.0

T = TypeVar("T")


async def read_body(request: Request, limit: int = MEBIBYTE) -> bytes:
    """Return the request body, of at most `limit` bytes, which must be a whole number of mebibytes.

    Raises RequestError 413 if the body is larger, 408 if it takes longer than 30 seconds, and 400 if
    the client disconnects before it is complete.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    chunks.append(chunk)
                elif size > _DRAINED_BYTES:
                    break
    except TimeoutError:
        raise RequestError(408, "too_slow", "The request body was not received within 30 seconds.") from None
    except ClientDisconnect:
        raise RequestError(
            400, "disconnected", "The client disconnected before the request body was complete."
        ) from None
    # A client that is still sending would see a broken connection instead of the response, so a
    # body that is only moderately too large is read to the end first.
    if size > limit:
        description = f"The request body is larger than {limit // MEBIBYTE} MiB; send it in smaller parts."
        raise RequestError(413, "too_large", description)
    return b"".join(chunks)


def parse_json(body: bytes) -> Any:
    """Decode `body`. Raises RequestError 400 if it is not valid JSON in UTF-8."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, "invalid_json", "The request body is not valid JSON.") from error


def convert(value: Any, shape: type[T]) -> T:
    """Convert `value` to `shape`. Raises RequestError 400 with the location of the first mismatch."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise RequestError(400, "invalid_request", f"Invalid request body: {error}.") from error


async def read_json(request: Request, shape: type[T], limit: int = MEBIBYTE) -> T:
    """Return the JSON body of `request` as `shape`. Raises RequestError 400, 408 or 413 like the functions above."""
    return convert(parse_json(await read_body(request, limit)), shape)


async def read_json_object_or_empty(request: Request, shape: type[T]) -> T:
    """Like `read_json`, but treat a body that is not a JSON object, or not application/json, as `{}`.

    The PowerSync Service treats the body of a stream request in the same way.
    """
    body = await read_body(request)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    value: Any = {}
    if media_type == "application/json":
        try:
            decoded = parse_json(body)
        except RequestError:
            decoded = None
        if isinstance(decoded, dict):
            value = cast("dict[str, Any]", decoded)
    return convert(value, shape)
