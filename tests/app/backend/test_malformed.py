"""Thousands of requests that are not what they should be, to a backend of its own: each is answered, none does harm.

`MALFORMED=10000` sends as many; the everyday number is small. The same seed sends the same requests.
"""

from __future__ import annotations

import gc
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.backend import BackendConfig, Limits

from .harness import User, put, running, signed_in

COUNT = int(os.environ.get("MALFORMED", "400"))
SEED = int(os.environ.get("SEED", "7"))

ANN, BOB = "ann", "bob"
SQL = [
    "'; DROP TABLE lists; --",
    'x" OR "1"="1',
    "lists; DELETE FROM todos",
    "id) VALUES (1); --",
    "ROWID",
    "sqlite_schema",
]
STRINGS = ["", " ", "\0", "a" * 70_000, "\U0001f468\u200d\U0001f469", "\u202e", "../../etc/passwd", "%00", *SQL]
COLUMNS = ["name", "description", "list_id", "owner_id", "completed", "created_at"]
VALUES: list[Any] = [None, True, 0, -1, 2**63, 2**70, 1e308, 0.1, [], {}, [[]], {"a": {"b": []}}, *STRINGS]


def value(chance: random.Random, depth: int = 0) -> Any:
    if depth < 3 and chance.random() < 0.2:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if depth < 3 and chance.random() < 0.2:
        return {chance.choice(STRINGS)[:50]: value(chance, depth + 1) for _ in range(chance.randrange(4))}
    return chance.choice(VALUES)


def entry(chance: random.Random) -> Any:
    """A write of bob's with something wrong about it, most of the time; some are aimed at ann's rows."""
    made: dict[str, Any] = {
        "op": chance.choice(["PUT", "PATCH", "DELETE"]),
        "table": chance.choice(["lists", "todos", *SQL]),
        "id": chance.choice(["bob-list", "ann-list", "ann-todo", *SQL]),
        "data": {
            chance.choice(["name", "description", "list_id", "owner_id", "completed", "created_at", *SQL]): value(
                chance
            )
            for _ in range(chance.randrange(4))
        },
    }
    for _ in range(chance.randrange(2)):
        made[chance.choice([*made, "extra"])] = value(chance)
    if chance.random() < 0.2:
        made.pop(chance.choice(list(made)))
    return made if chance.random() < 0.9 else value(chance)


def stream_request(chance: random.Random) -> Any:
    made: dict[str, Any] = {
        "buckets": [{"name": chance.choice(STRINGS), "after": chance.choice(["0", "-1", "x", 1, None, "9" * 30])}],
        "include_checksum": True,
        "raw_data": chance.choice([True, False, "yes"]),
        "client_id": chance.choice(["c", *STRINGS]),
        "streams": {"include_defaults": False, "subscriptions": [value(chance)]},
        "parameters": value(chance),
    }
    for _ in range(1 + chance.randrange(3)):
        made[chance.choice(list(made))] = value(chance)
    return made


def body(chance: random.Random, path: str) -> bytes:
    if path == "/sync/stream":
        made: Any = stream_request(chance)
    elif path == "/api/data":
        made = chance.choice(
            [
                {"batch": [entry(chance) for _ in range(chance.randrange(4))]},
                {"transactions": [{"crud": [entry(chance) for _ in range(chance.randrange(3))]} for _ in range(2)]},
                {"table": chance.choice(["lists", "todos", *SQL]), "data": value(chance)},
                value(chance),
            ]
        )
    else:
        made = {"user_id": chance.choice([BOB, ANN, *STRINGS]), "client_id": value(chance), "request_id": value(chance)}
    raw = json.dumps(made, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass")
    match chance.randrange(6):
        case 0:
            return raw[: chance.randrange(len(raw) + 1)]
        case 1:
            place = chance.randrange(len(raw) + 1)
            return raw[:place] + chance.randbytes(chance.randrange(1, 5)) + raw[place:]
        case 2 if chance.random() < 0.3:
            return b"[" * 20_000
        case _:
            return raw


def headers(chance: random.Random, token: str) -> dict[str, str]:
    made = {"Authorization": f"Token {token}", "Content-Type": "application/json"}
    if chance.random() < 0.2:
        head, claims, signature = token.split(".")
        wrong = ["", "Token", "Token x", "Bearer a.b.c", f"Key {BOB}:{SQL[0]}", "Basic e30=", "Token " + "x" * 5_000]
        made["Authorization"] = chance.choice([*wrong, f"Token {head}.{claims}.{signature[::-1]}", f"Token {claims}"])
    if chance.random() < 0.2:
        made["Content-Type"] = chance.choice(["", "text/plain", "application/x-www-form-urlencoded", "x" * 300])
    if chance.random() < 0.2:
        made["Accept"] = chance.choice(["", "*/*", "application/vnd.powersync.bson-stream", "x/y;q=9", "," * 200])
    if chance.random() < 0.2:
        made["Accept-Encoding"] = chance.choice(["gzip;q=0", "zstd", "br", ";;,=", "x" * 300])
    return made


PATHS = [
    ("POST", "/api/data"),
    *[(method, "/api/data") for method in ("PUT", "PATCH", "DELETE")],
    ("PUT", "/api/data/checkpoint"),
    ("POST", "/sync/stream"),
    ("POST", "/sync/checkpoint-request"),
    ("GET", "/write-checkpoint2.json"),
    ("GET", "/api/auth/token"),
    ("POST", "/nowhere"),
    ("TRACE", "/api/data"),
]


async def send(user: User, chance: random.Random) -> httpx.Response:
    method, path = chance.choices(PATHS, weights=[6, 1, 1, 1, 1, 3, 1, 1, 1, 1, 1])[0]
    parameters = {chance.choice(["client_id", "user_id", *SQL]): chance.choice(STRINGS)[:2_000]}
    request = user.http.build_request(
        method,
        path,
        params=parameters if chance.random() < 0.3 else None,
        content=body(chance, path),
        headers=headers(chance, user.token),
    )
    answer = await user.http.send(request, stream=True)
    if answer.is_success and path == "/sync/stream":
        await answer.aclose()  # it was a valid request after all
    else:
        await answer.aread()
    return answer


def measures() -> tuple[int, int]:
    """Kilobytes of memory and open handles of this process, in which the backend runs."""
    gc.collect()
    process = Path("/proc/self")
    (line,) = [line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]), len(list((process / "fd").iterdir()))


async def rows_of(user: User) -> list[dict[str, Any]]:
    replica = await user.synced("ann-list")
    return [replica.rows(table) for table in ("lists", "todos")]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="measures a process by /proc")
@pytest.mark.timeout(600)
async def test_no_malformed_request_does_harm(config: BackendConfig) -> None:
    chance = random.Random(SEED)
    # All come from one address, as fast as they can.
    limits = Limits(refused_burst=10**9, request_burst=10**9)
    async with (
        running(replace(config, limits=limits)) as url,
        signed_in(url, ANN) as ann,
        signed_in(url, BOB) as bob,
    ):
        await ann.write(
            put("lists", "ann-list", name="Ann's"), put("todos", "ann-todo", list_id="ann-list", description="Hers")
        )
        await bob.write(put("lists", "bob-list", name="Bob's"))
        before = await rows_of(ann)
        seen: dict[int, int] = {}
        start: tuple[int, int] | None = None
        for number in range(COUNT):
            answer = await send(bob, chance)
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
            assert answer.status_code < 500, (number, answer.request.method, answer.request.url, answer.text[:300])
            if answer.status_code >= 400 and answer.request.method != "TRACE":
                error = answer.json()["error"]
                assert error["status"] == answer.status_code
                assert error["description"].strip()
                assert "Traceback" not in answer.text
                assert "Hers" not in answer.text
            if number == COUNT // 4:
                start = measures()
        assert start is not None
        memory, handles = measures()
        assert memory - start[0] < 40_000, (start, memory)
        assert handles - start[1] <= 8, (start, handles)
        assert await rows_of(ann) == before
        await bob.write(put("lists", "bob-list", name="Still there"))
        more = f"{memory - start[0]} kB and {handles - start[1]} handles more"
        print(f"{COUNT} requests by seed {SEED}: {dict(sorted(seen.items()))}; {more}")
