"""The connector against the real backend over loopback, and against answers that other backends may give."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app.backend import BackendConfig
from app.connection.backend_check import BackendCheck
from app.connection.connector import BackendRefusedError, BackendUnreachableError, HttpConnector
from sync import PowerSyncDatabase, UploadRetryError
from sync.client.credentials import credentials_expiry
from tests.app.backend.harness import Replica, free_port, running, signed_in

USER = "7c1f8c5e-61f7-4b0a-8f0e-2d4d8f0b6a11"
LIST = "11111111-1111-4111-8111-111111111111"
TODO = "22222222-2222-4222-8222-222222222222"


@asynccontextmanager
async def connector_to(
    url: str, service_url: str | None = None, timeout: float = 10.0
) -> AsyncGenerator[HttpConnector]:
    connector = HttpConnector(url, USER, service_url, timeout=timeout)
    try:
        yield connector
    finally:
        await connector.aclose()


@asynccontextmanager
async def answering(*answers: bytes | None) -> AsyncGenerator[str]:
    """A server that gives one answer per request and then hangs up; None never answers. Gives its URL."""
    waiting = list(answers)
    release = asyncio.Event()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        answer = waiting.pop(0)
        if answer is None:
            await release.wait()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        release.set()
        server.close()
        await server.wait_closed()


def answer(status: str, body: object) -> bytes:
    text = body if isinstance(body, str) else json.dumps(body)
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{text}".encode()


def token(claims: object) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims)]
    return ".".join([*parts, "signature"])


def free_url() -> str:
    return f"http://127.0.0.1:{free_port()}"


async def insert_list(database: PowerSyncDatabase, list_id: str = LIST, name: str | None = "Home") -> None:
    await database.execute("INSERT INTO lists (id, name, owner_id) VALUES (?, ?, ?)", [list_id, name, USER])


async def waiting(database: PowerSyncDatabase) -> list[str]:
    return [entry.id async for transaction in database.crud_transactions() for entry in transaction.crud]


async def on_the_backend(url: str, lists: Sequence[str] = ()) -> Replica:
    async with signed_in(url, USER) as user:
        return await user.synced(*lists)


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncGenerator[str]:
    async with running(BackendConfig(tmp_path / "backend.db", port=0, token_seconds=300, open_to_all=True)) as url:
        yield url


async def test_credentials_name_the_service_and_know_their_end(backend: str) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    async with connector_to(backend + "/") as connector:
        credentials = await connector.fetch_credentials()
    after = datetime.now(UTC)
    assert credentials.endpoint == backend
    expires_at = credentials_expiry(credentials)
    assert expires_at is not None
    assert before <= expires_at - timedelta(seconds=300) <= after


@pytest.mark.parametrize(
    ("said", "configured", "expected"),
    [
        ("https://service.example/", None, "https://service.example"),
        ("todo-tui", None, None),
        ("powersync://x", None, None),
        ("http://[broken", None, None),
        (7, None, None),
        ("todo-tui", "https://own.example", "https://own.example"),
        ("http://localhost:8080", "https://own.example", "https://own.example"),
    ],
)
async def test_the_endpoint(said: object, configured: str | None, expected: str | None) -> None:
    async with (
        answering(answer("200 OK", {"token": token({}), "powersync_url": said})) as url,
        connector_to(url, configured) as connector,
    ):
        assert (await connector.fetch_credentials()).endpoint == (expected or url)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (token({"exp": 1_800_000_000}), datetime(2027, 1, 15, 8, 0, tzinfo=UTC)),
        (token({}), None),
        (token({"exp": "soon"}), None),
        (token({"exp": 1e300}), None),
        (token([]), None),
        ("opaque", None),
        ("a.%%%.b", None),
    ],
)
async def test_the_end_of_a_token_is_read_from_it(made: str, expected: datetime | None) -> None:
    async with answering(answer("200 OK", {"token": made})) as url, connector_to(url) as connector:
        credentials = await connector.fetch_credentials()
    assert (credentials.token, credentials_expiry(credentials)) == (made, expected)


@pytest.mark.parametrize("body", [{}, [], "hello", {"token": ""}, {"token": 7}, {"token": "a\r\nX: y"}])
async def test_an_answer_without_a_token_is_refused(body: object) -> None:
    async with answering(answer("200 OK", body)) as url, connector_to(url) as connector:
        with pytest.raises(BackendRefusedError, match="answered without a token; it may not be a to-do backend"):
            await connector.fetch_credentials()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"error": {"description": "No such\nuser."}}, "No such user (HTTP 403)."),
        ({"message": "Request failed"}, "Request failed (HTTP 403)."),
        ({"error": "not you"}, "not you (HTTP 403)."),
        ({"error": ["?"]}, "Forbidden (HTTP 403)."),
        ("<html>", "Forbidden (HTTP 403)."),
        ({"message": "x" * 1000}, "x" * 300 + " (HTTP 403)."),
    ],
)
async def test_the_servers_sentence_is_passed_on(body: object, sentence: str) -> None:
    async with answering(answer("403 Forbidden", body)) as url, connector_to(url) as connector:
        with pytest.raises(BackendRefusedError) as caught:
            await connector.fetch_credentials()
    assert str(caught.value) == f"The backend issued no token: {sentence}"
    assert caught.value.status == 403


async def test_a_token_of_another_user_is_not_used() -> None:
    async with answering(answer("200 OK", {"token": token({"sub": "1"})})) as url, connector_to(url) as connector:
        with pytest.raises(BackendRefusedError, match="signs everybody in as user '1'; set user_id to that"):
            await connector.fetch_credentials()


async def test_a_redirection_is_not_followed() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with answering(moved) as url, connector_to(url) as connector:
        with pytest.raises(BackendRefusedError, match="HTTP 302"):
            await connector.fetch_credentials()


async def test_a_backend_that_cannot_be_reached_or_keeps_silent_or_hangs_up() -> None:
    async with connector_to(free_url()) as connector:
        with pytest.raises(BackendUnreachableError, match=r"The backend http://127.* cannot be reached"):
            await connector.fetch_credentials()
    async with answering(None) as url, connector_to(url, timeout=0.2) as connector:
        with pytest.raises(BackendUnreachableError, match="did not answer in time"):
            await connector.fetch_credentials()
    async with answering(b"") as url, connector_to(url) as connector:
        with pytest.raises(BackendUnreachableError, match="cannot be reached"):
            await connector.fetch_credentials()


async def test_a_token_is_used_only_if_the_backend_is_verified_before_and_after(backend: str) -> None:
    calls: list[str] = []
    verdicts: list[Exception | None] = [None, RuntimeError("another one"), None, None]

    class Verifying(BackendCheck):
        async def verify(self) -> None:
            calls.append("verify")
            if (verdict := verdicts.pop(0)) is not None:
                raise verdict

    connector = HttpConnector(backend, USER, check=Verifying())
    try:
        with pytest.raises(RuntimeError, match="another one"):
            await connector.fetch_credentials()
        assert (await connector.fetch_credentials()).endpoint == backend
    finally:
        await connector.aclose()
    assert len(calls) == 4


async def test_a_token_is_used_only_if_the_lists_could_be_claimed_for_its_backend(backend: str) -> None:
    claims: list[str] = []

    class Claiming(BackendCheck):
        claims_backend = True

        async def claim(self, backend_id: str | None) -> None:
            claims.append(backend_id or "")
            if len(claims) == 1:
                raise RuntimeError("the lists belong to another")

    absent = HttpConnector(free_url(), USER, check=Claiming())
    connector = HttpConnector(backend, USER, check=Claiming())
    try:
        with pytest.raises(BackendUnreachableError):
            await absent.fetch_credentials()
        assert claims == [], "an address at which nobody answers claims nothing"
        with pytest.raises(RuntimeError, match="belong to another"):
            await connector.fetch_credentials()
        assert (await connector.fetch_credentials()).endpoint == backend
        async with httpx.AsyncClient() as client:
            told = (await client.get(f"{backend}/probes/liveness")).json()["backend_id"]
        assert claims == [told, told]
    finally:
        await absent.aclose()
        await connector.aclose()


async def test_an_answer_that_is_nested_too_deeply_is_refused() -> None:
    async with answering(answer("200 OK", "[" * 60_000)) as url, connector_to(url) as connector:
        with pytest.raises(BackendRefusedError, match="answered without a token"):
            await connector.fetch_credentials()


async def test_a_proxy_is_not_asked_for_this_machine(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, free_url())
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with connector_to(backend) as connector:
        assert (await connector.fetch_credentials()).endpoint == backend


async def test_uploads_arrive_in_order_and_leave_the_queue(backend: str, database: PowerSyncDatabase) -> None:
    await insert_list(database)
    async with database.write_transaction() as transaction:
        await transaction.execute(
            "INSERT INTO todos (id, list_id, description, completed) VALUES (?, ?, ?, 0)", [TODO, LIST, "Milk"]
        )
        await transaction.execute("INSERT INTO todos (id, list_id, description) VALUES ('gone', ?, 'x')", [LIST])
    await database.execute("UPDATE todos SET description = ?, completed = NULL WHERE id = ?", ["Oat milk", TODO])
    await database.execute("DELETE FROM todos WHERE id = 'gone'")

    async with connector_to(backend) as connector:
        await connector.upload_data(database)
    assert await waiting(database) == []
    replica = await on_the_backend(backend, [LIST])
    assert {row_id: row["name"] for row_id, row in replica.rows("lists").items()} == {LIST: "Home"}
    todos = replica.rows("todos")
    assert list(todos) == [TODO]
    assert (todos[TODO]["description"], todos[TODO]["completed"]) == ("Oat milk", None)


async def test_a_refused_transaction_is_tried_again_and_then_kept_apart_while_the_queue_goes_on(
    backend: str, database: PowerSyncDatabase
) -> None:
    last = "33333333-3333-4333-8333-333333333333"
    await insert_list(database)
    await insert_list(database, TODO, name=None)
    await insert_list(database, last)
    async with connector_to(backend) as connector:
        for _ in range(2):
            with pytest.raises(UploadRetryError, match=r"The backend did not accept a change: .*name.*\(HTTP 4\d\d"):
                await connector.upload_data(database)
            assert await waiting(database) == [TODO, last]
            assert list((await on_the_backend(backend)).rows("lists")) == [LIST]
        await connector.upload_data(database)
    assert await waiting(database) == []
    assert list((await on_the_backend(backend)).rows("lists")) == [LIST, last]
    [rejected] = await database.rejected_writes()
    assert [entry.id for entry in rejected.crud] == [TODO]
    assert "name" in rejected.reason


async def test_an_upload_whose_answer_is_lost_stays_in_the_queue(database: PowerSyncDatabase) -> None:
    await insert_list(database)
    async with answering(answer("200 OK", {"token": token({})}), b"") as url, connector_to(url) as connector:
        with pytest.raises(BackendUnreachableError):
            await connector.upload_data(database)
    assert await waiting(database) == [LIST]


@pytest.mark.parametrize("status", ["302 Found", "400 Bad Request", "408 Timeout", "500 Oops", "503 Busy"])
async def test_only_a_2xx_completes_a_transaction(database: PowerSyncDatabase, status: str) -> None:
    await insert_list(database)
    async with (
        answering(answer("200 OK", {"token": token({})}), answer(status, {}), answer("200 OK", {})) as url,
        connector_to(url) as connector,
    ):
        with pytest.raises(UploadRetryError, match=f"HTTP {status[:3]}"):
            await connector.upload_data(database)
    assert await waiting(database) == [LIST]


async def test_a_token_that_became_void_is_replaced_once(tmp_path: Path, database: PowerSyncDatabase) -> None:
    url = free_url()
    port = int(url.rsplit(":", 1)[1])
    await insert_list(database)
    async with connector_to(url) as connector:
        async with running(BackendConfig(tmp_path / "first.db", port=port, open_to_all=True)):
            await connector.fetch_credentials()
        async with running(BackendConfig(tmp_path / "second.db", port=port, open_to_all=True)):
            await connector.upload_data(database)
            assert list((await on_the_backend(url)).rows("lists")) == [LIST]
    assert await waiting(database) == []


async def test_a_token_that_is_refused_twice_is_an_error(tmp_path: Path, database: PowerSyncDatabase) -> None:
    await insert_list(database)
    async with (
        running(BackendConfig(tmp_path / "backend.db", port=0, token_seconds=-60, open_to_all=True)) as url,
        connector_to(url) as connector,
    ):
        with pytest.raises(UploadRetryError, match="token has expired") as caught:
            await connector.upload_data(database)
    assert caught.value.renew_credentials
    assert await waiting(database) == [LIST]


async def test_no_token_reaches_the_log(
    backend: str, database: PowerSyncDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await insert_list(database)
    async with connector_to(backend) as connector:
        credentials = await connector.fetch_credentials()
        await connector.upload_data(database)
        assert repr(connector).find(credentials.token) == -1
    assert credentials.token not in caplog.text
    assert credentials.token not in repr(credentials)
