"""Who gets in: tokens as they are issued, and every way in which one can be wrong."""

from __future__ import annotations

import base64
import hmac
import json
import sqlite3
import time
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from app.backend import BackendConfig

from .harness import User, delete, put, running, signed_in, subscription

PROTECTED = [
    ("POST", "/sync/stream", {}),
    ("GET", "/write-checkpoint2.json?client_id=c", None),
    ("POST", "/sync/checkpoint-request", {"client_id": "c", "checkpoint_request_id": "1"}),
    ("POST", "/api/data", {"batch": [put("lists", "l", name="N")]}),
    ("PUT", "/api/data", {"table": "lists", "data": {"id": "l", "name": "N"}}),
    ("PATCH", "/api/data", {"table": "lists", "data": {"id": "l", "name": "N"}}),
    ("DELETE", "/api/data", {"table": "lists", "data": {"id": "l"}}),
    ("PUT", "/api/data/checkpoint", {"user_id": "ann", "client_id": "c"}),
]


def signing_key(config: BackendConfig) -> RSAKey:
    connection = sqlite3.connect(config.database)
    try:
        (text,) = connection.execute("SELECT value FROM meta WHERE key = 'signing_key'").fetchone()
    finally:
        connection.close()
    return RSAKey.import_key(json.loads(text))


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


async def test_token_has_the_claims_and_verifies_with_the_published_keys(backend: str) -> None:
    before = int(time.time())
    async with signed_in(backend, "ann") as ann:
        keys = (await ann.http.get("/api/auth/keys")).json()
    after = int(time.time())
    assert all(set(key) == {"kty", "n", "e", "alg", "use", "kid"} for key in keys["keys"])
    token = jwt.decode(ann.token, KeySet.import_key_set(keys), algorithms=["RS256"])
    assert token.header["alg"] == "RS256"
    assert token.header["kid"] == keys["keys"][0]["kid"]
    assert token.claims["sub"] == "ann"
    assert token.claims["aud"]
    assert token.claims["exp"] - token.claims["iat"] == 300
    assert before <= token.claims["iat"] <= after


async def test_token_names_the_address_that_was_used(backend: str) -> None:
    async with httpx.AsyncClient(base_url=backend) as http:
        answer = await http.get("/api/auth/token", params={"user_id": "ann"})
    assert answer.json()["powersync_url"] == backend


@pytest.mark.parametrize("query", [{}, {"user_id": ""}, {"user_id": "x" * 256}])
async def test_a_token_needs_a_user(backend: str, query: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=backend) as http:
        assert (await http.get("/api/auth/token", params=query)).status_code == 400


@pytest.mark.parametrize("scheme", ["Token", "Bearer", "bearer", "TOKEN"])
async def test_both_schemes_are_accepted(ann: User, scheme: str) -> None:
    ann.http.headers["Authorization"] = f"{scheme} {ann.token}"
    await ann.write(put("lists", "l", name="N"))


@pytest.mark.parametrize(("method", "path", "body"), PROTECTED)
async def test_nothing_works_without_a_token(backend: str, method: str, path: str, body: Any) -> None:
    async with httpx.AsyncClient(base_url=backend) as http:
        answer = await http.request(method, path, json=body)
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert set(error) == {"code", "status", "description", "name"}
    assert (error["code"], error["status"], error["name"]) == ("PSYNC_S2106", 401, "AuthorizationError")


async def test_every_kind_of_wrong_token_is_refused_everywhere(config: BackendConfig, backend: str, ann: User) -> None:
    key = signing_key(config)
    now = int(time.time())
    header = {"alg": "RS256", "kid": key.kid}
    head, payload, signature = ann.token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))

    def signed(with_key: Any = key, *, kid: str | None = key.kid, **changes: Any) -> str:
        kept = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return jwt.encode({"alg": "RS256", "kid": kid}, kept, with_key, algorithms=["RS256"])

    foreign = RSAKey.generate_key(2048)
    confused = f"{encoded({'alg': 'HS256', 'kid': key.kid})}.{payload}"
    hmac_digest = hmac.digest(key.as_pem(private=False), confused.encode(), "sha256")
    confused += "." + base64.urlsafe_b64encode(hmac_digest).decode().rstrip("=")
    assert jwt.decode(signed(), key, algorithms=["RS256"]).header == {"typ": "JWT", **header}
    wrong = {
        "": "PSYNC_S2106",
        "Token": "PSYNC_S2106",
        f"Basic {ann.token}": "PSYNC_S2106",
        ann.token: "PSYNC_S2106",
        "Token x": "PSYNC_S2101",
        "Token a.b.c": "PSYNC_S2101",
        f"Token {head}.{payload}": "PSYNC_S2101",
        f"Token {encoded({'alg': 'none'})}.{payload}.": "PSYNC_S2101",
        f"Token {encoded({'alg': 'none', 'kid': key.kid})}.{payload}.{signature}": "PSYNC_S2101",
        **{
            f"Token {encoded(value)}.{payload}.{signature}": "PSYNC_S2101"
            for value in (["alg"], None, 5, "alg", {}, {"alg": None}, {"alg": ["RS256"]}, {"alg": "RS256", "crit": 5})
        },
        f"Token {encoded({'alg': 'RS256', 'kid': 5})}.{payload}.{signature}": "PSYNC_S2101",
        f"Token {confused}": "PSYNC_S2101",
        f"Token {signed(foreign)}": "PSYNC_S2102",
        f"Token {signed(foreign, kid='other')}": "PSYNC_S2102",
        f"Token {head}.{encoded({**claims, 'sub': 'bob'})}.{signature}": "PSYNC_S2102",
        f"Token {signed(exp=now - 61, iat=now - 100)}": "PSYNC_S2103",
        f"Token {signed(exp=now + 86_401, iat=now)}": "PSYNC_S2104",
        f"Token {signed(exp=now + 86_400, iat=now - 2)}": "PSYNC_S2104",
        f"Token {signed(iat=None)}": "PSYNC_S2101",
        f"Token {signed(iat=now + 300)}": "PSYNC_S2101",
        f"Token {signed(sub='')}": "PSYNC_S2101",
        f"Token {signed(aud='somebody else')}": "PSYNC_S2105",
        f"Token {signed(aud=None)}": "PSYNC_S2105",
        f"Token {signed(sub=None)}": "PSYNC_S2101",
        f"Token {signed(sub=5)}": "PSYNC_S2101",
        f"Token {signed(exp=None)}": "PSYNC_S2101",
        f"Token {signed(exp='tomorrow')}": "PSYNC_S2101",
        f"Token {signed(nbf=now + 120)}": "PSYNC_S2101",
    }
    async with httpx.AsyncClient(base_url=backend) as http:
        for authorization, code in wrong.items():
            for method, path, body in PROTECTED:
                answer = await http.request(method, path, json=body, headers={"Authorization": authorization})
                assert answer.status_code == 401, (authorization, path)
                error = answer.json()["error"]
                assert (error["code"], error["name"]) == (code, "AuthorizationError"), (authorization, path)
                assert ann.token not in answer.text
    assert (await ann.synced()).rows("lists") == {}


async def test_the_key_outlives_a_restart(config: BackendConfig) -> None:
    async with running(config) as url, signed_in(url, "ann") as ann:
        await ann.write(put("lists", "l", name="N"))
        token = ann.token
    async with running(config) as url, httpx.AsyncClient(base_url=url) as http:
        http.headers["Authorization"] = f"Bearer {token}"
        await User(http, "ann", token).write(delete("lists", "l"))


async def test_two_backends_share_neither_tokens_nor_buckets(config: BackendConfig, backend: str, ann: User) -> None:
    other_config = BackendConfig(config.database.with_name("other.db"), port=0, open_to_all=True)
    async with running(other_config) as url, signed_in(url, "ann") as other:
        ours, theirs = await ann.synced("l"), await other.synced("l")
        assert not set(ours.target) & set(theirs.target)
        other.http.headers["Authorization"] = f"Token {ann.token}"
        answer = await other.http.post("/sync/stream", json={"streams": {"subscriptions": [subscription("todos")]}})
        assert answer.json()["error"]["code"] == "PSYNC_S2102"
