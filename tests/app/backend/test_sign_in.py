"""Who gets a token: keys, their proofs, and the machine's own key; limits, the second port, probes, the access log."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from app.backend import BackendConfig, Limits
from app.backend.data import users
from app.connection.backend_check import BackendCheck
from app.connection.connector import BackendRefusedError, HttpConnector, user_of_key
from app.system import sign_in_keys
from app.system.sign_in_keys import (
    ANSWER_HEADER,
    SignInKey,
    is_answered,
    key_of,
    local_key_path,
    prove,
    read_local_key,
)

from .harness import User, free_port, put, running, signed_in

ANN, BOB = "3f3c4c1e-0000-4000-8000-00000000000a", "3f3c4c1e-0000-4000-8000-00000000000b"
LIST = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def keyed(tmp_path: Path) -> BackendConfig:
    return BackendConfig(tmp_path / "data" / "backend.db", port=0, limits=Limits(refused_burst=1000))


def add_user(config: BackendConfig, name: str, user_id: str) -> str:
    secret = sign_in_keys.new_secret()
    with closing(sqlite3.connect(config.database)) as connection, connection:
        users.add(connection, name, user_id, secret)
    return f"{name}:{secret}"


async def token(url: str, user_id: str = "", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url) as http:
        return await http.get("/api/auth/token", params={"user_id": user_id} if user_id else {}, headers=headers)


async def proven(url: str, key: SignInKey, user_id: str = "", *, now: float | None = None) -> httpx.Response:
    shown = prove(key, user_id, url.removeprefix("http://"), time.time() if now is None else now)
    return await token(url, user_id, Authorization=shown.header)


async def test_without_a_key_nobody_gets_a_token(keyed: BackendConfig) -> None:
    async with running(keyed) as url:
        for headers in (
            {},
            {"Authorization": "Key x"},
            {"Authorization": "Key nobody:x"},
            {"Authorization": "Proof x"},
        ):
            refused = await token(url, ANN, **headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "sign_in")
        assert "todo-tui backend user add" in (await token(url, ANN)).json()["error"]["description"]


async def test_a_key_opens_the_lists_of_its_user_and_no_others(keyed: BackendConfig) -> None:
    async with running(keyed) as url:
        written = add_user(keyed, "ann", ANN)
        key = sign_in_keys.parse_key(written)
        assert key is not None
        assert await user_of_key(url, key) == ANN
        for answer in (await proven(url, key, ANN), await token(url, Authorization=f"Key {written}")):
            claims = answer.json()["token"].split(".")[1]
            assert ANN in base64.urlsafe_b64decode(claims + "==").decode()
        other = await proven(url, key, BOB)
        assert (other.status_code, other.json()["error"]["code"]) == (403, "forbidden")
        assert written.partition(":")[2] not in keyed.database.read_bytes().decode("latin-1")
        with closing(sqlite3.connect(keyed.database)) as connection, connection:
            assert [(user.name, user.user_id) for user in users.listed(connection)] == [("ann", ANN)]
            assert users.remove(connection, "ann")
            assert not users.remove(connection, "ann")
        assert (await proven(url, key, ANN)).status_code == 401


async def test_a_proof_is_good_once_here_and_now(keyed: BackendConfig) -> None:
    async with running(keyed) as url:
        key = sign_in_keys.parse_key(add_user(keyed, "ann", ANN))
        assert key is not None
        shown = prove(key, ANN, url.removeprefix("http://"), time.time())
        assert (await token(url, ANN, Authorization=shown.header)).status_code == 200
        again = await token(url, ANN, Authorization=shown.header)
        assert (again.status_code, "already been used" in again.text) == (401, True)
        late = await proven(url, key, ANN, now=time.time() - 1000)
        assert late.status_code == 401
        assert "clocks of the two machines differ" in late.json()["error"]["description"]
        elsewhere = prove(key, ANN, "example.org", time.time())
        assert (await token(url, ANN, Authorization=elsewhere.header)).status_code == 401
        for_another = prove(key, "", url.removeprefix("http://"), time.time())
        assert (await token(url, ANN, Authorization=for_another.header)).status_code == 401
        wrong = SignInKey("ann", key_of("guess"))
        assert (await proven(url, wrong, ANN)).status_code == 401


async def test_the_key_of_the_machine_signs_in_as_anybody_and_only_at_the_own_port(keyed: BackendConfig) -> None:
    async with running(keyed) as url:
        path = local_key_path(keyed.database)
        assert path.stat().st_mode & 0o777 == 0o600
        key = read_local_key(keyed.database)
        assert key is not None
        answer = await proven(url, key, BOB)
        assert answer.status_code == 200
        # Handed on by whoever has taken another port, a proof is of no use here.
        shown = prove(key, BOB, "127.0.0.1:9", time.time())
        async with httpx.AsyncClient(base_url=url) as http:
            headers = {"Authorization": shown.header, "Host": "127.0.0.1:9"}
            refused = await http.get("/api/auth/token", params={"user_id": BOB}, headers=headers)
        assert (refused.status_code, "own port" in refused.text) == (401, True)
        secret = path.read_text()
        assert (await token(url, BOB, Authorization=f"Key {sign_in_keys.LOCAL_NAME}:{secret}")).status_code == 401
    async with running(keyed):
        assert path.read_text() == secret


async def test_what_answers_without_knowing_the_key_is_found_out(keyed: BackendConfig) -> None:
    """A program that has taken the address, and gives tokens to everybody."""
    check = BackendCheck(SignInKey(sign_in_keys.LOCAL_NAME, key_of("the right one")))
    async with running(replace(keyed, open_to_all=True)) as url:
        token_of_a_stranger = (await token(url, ANN)).json()
    answered = json.dumps(token_of_a_stranger).encode()
    asked: list[bytes] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(answered) + answered)
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    connector = HttpConnector(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", ANN, check=check)
    try:
        with pytest.raises(BackendRefusedError, match="does not know the sign-in key"):
            await connector.fetch_credentials()
    finally:
        await connector.aclose()
        server.close()
        await server.wait_closed()
    assert len(asked) == 1
    assert b"the right one" not in asked[0]


async def test_the_proof_of_the_answer_is_about_its_token(keyed: BackendConfig) -> None:
    async with running(keyed) as url:
        key = sign_in_keys.parse_key(add_user(keyed, "ann", ANN))
        assert key is not None
        shown = prove(key, ANN, url.removeprefix("http://"), time.time())
        answer = await token(url, ANN, Authorization=shown.header)
        given = answer.json()["token"]
        assert is_answered(key, shown, given, answer.headers[ANSWER_HEADER])
        assert not is_answered(key, shown, given + "x", answer.headers[ANSWER_HEADER])


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 41, "ä", sign_in_keys.LOCAL_NAME])
def test_names_that_cannot_be(keyed: BackendConfig, name: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        users.create_table(connection)
        with pytest.raises(ValueError, match="A name must have 1 to 40"):
            users.add(connection, name, ANN, "x")
        users.add(connection, "ann", ANN, "x")
        with pytest.raises(ValueError, match="already exists"):
            users.add(connection, "ann", BOB, "y")


async def test_tokens_of_a_shared_secret_are_taken_where_it_is_set(keyed: BackendConfig) -> None:
    secret = b"a secret of thirty-two bytes....."
    now = int(time.time())
    claims = {"sub": ANN, "aud": "mine", "iat": now, "exp": now + 60}
    shared = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(secret), algorithms=["HS256"])
    for config, status in ((keyed, 401), (replace(keyed, audience="mine", shared_secret=secret), 200)):
        async with running(config) as url, httpx.AsyncClient(base_url=url) as http:
            http.headers["Authorization"] = f"Bearer {shared}"
            answer = await http.post("/api/data", json={"batch": []})
            assert answer.status_code == status, answer.text


async def test_too_many_requests_and_guesses_are_slowed_down(keyed: BackendConfig) -> None:
    guessing = replace(keyed, limits=Limits(refused_per_second=0.01, refused_burst=3))
    async with running(guessing) as url:
        assert [(await token(url, ANN)).status_code for _ in range(3)] == [401] * 3
        answer = await token(url, ANN)
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= 100
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/probes/liveness")).status_code == 200
    asking = replace(keyed, limits=Limits(requests_per_second=0.01, request_burst=5))
    async with running(asking) as url, httpx.AsyncClient(base_url=url) as http:
        statuses = [(await http.get("/api/auth/keys")).status_code for _ in range(6)]
        assert statuses == [200] * 5 + [429]


async def test_the_number_of_streams_is_limited(keyed: BackendConfig) -> None:
    few = replace(keyed, open_to_all=True, limits=Limits(streams=2, streams_per_user=1))
    async with running(few) as url, signed_in(url, "ann") as ann, ann.stream() as lines:
        await lines.checkpoint()
        second = await ann.http.post("/sync/stream", json={})
        assert (second.status_code, second.json()["error"]["code"]) == (429, "PSYNC_S2304")
        assert second.headers["Retry-After"] == "10"
        async with signed_in(url, "bob") as bob, bob.stream() as others, signed_in(url, "eve") as eve:
            await others.checkpoint()
            assert (await eve.http.post("/sync/stream", json={})).status_code == 429


async def test_the_sync_side_may_have_a_port_of_its_own(keyed: BackendConfig) -> None:
    sync_port = free_port()
    two = replace(keyed, open_to_all=True, sync_port=sync_port)
    async with running(two) as url, signed_in(url, "ann") as ann:
        assert (await token(url, ANN)).json()["powersync_url"] == f"http://127.0.0.1:{sync_port}"
        await ann.write(put("lists", LIST, name="Home"))
        assert (await ann.http.post("/sync/stream", json={})).status_code == 404
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{sync_port}", headers=dict(ann.http.headers)) as http:
            assert (await http.post("/api/data", json={"batch": []})).status_code == 404
            assert (await http.get("/probes/liveness")).status_code == 200
            assert [*(await User(http, "ann", ann.token).synced()).rows("lists")] == [LIST]


async def test_probes(keyed: BackendConfig) -> None:
    async with running(keyed) as url, httpx.AsyncClient(base_url=url) as http:
        for path in ("liveness", "readiness", "startup"):
            answer = await http.get(f"/probes/{path}")
            assert (answer.status_code, answer.json()["ready"]) == (200, True)


async def test_the_access_log_tells_each_request_and_no_secret(
    keyed: BackendConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="app.backend.access")
    async with running(replace(keyed, access_log=True)) as url:
        written = add_user(keyed, "ann", ANN)
        given = (await token(url, "", Authorization=f"Key {written}")).json()["token"]
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Token {given}"}) as http:
            await http.post("/api/data?secret=1", json={"batch": []})
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "app.backend.access"]
    told = [(line["method"], line["path"], line["status"]) for line in lines]
    assert told == [("GET", "/api/auth/token", 200), ("POST", "/api/data", 200)]
    assert all(line["ms"] >= 0 and line["bytes"] > 0 for line in lines)
    for secret in (written, given, "secret=1"):
        assert secret not in caplog.text
