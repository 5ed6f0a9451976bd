"""The write side on PostgreSQL, and that it does what it does on the backend's own file.

Against a real server in a cluster of its own, which is also killed. Skipped, saying so, where PostgreSQL is not
installed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncGenerator, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.backend import BackendConfig, BackendError
from tests.kit.postgres import PostgresServer, programs

from .harness import User, delete, free_port, patch, put, running, signed_in

psycopg = pytest.importorskip("psycopg", reason="the extra postgres is not installed")
pytestmark = [
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed, or cannot be run as another user"),
    pytest.mark.xdist_group("postgres"),
]

ANN, BOB = "a0000000-0000-4000-8000-000000000001", "b0000000-0000-4000-8000-000000000002"
L1, L2 = (f"10000000-0000-4000-8000-00000000000{number}" for number in (1, 2))
T1, T2, T3 = (f"70000000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[PostgresServer]:
    # Not below pytest's own directory, into which the account that PostgreSQL runs as cannot look.
    directory = Path("/tmp") / f"todo-tui-postgres-{uuid.uuid4()}"
    server = PostgresServer(directory, free_port())
    try:
        server.start()
        yield server
    finally:
        server.stop()
        subprocess.run(["rm", "-rf", str(directory)], check=False)
    assert tmp_path_factory


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def run_backend(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", "backend", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def template(server: PostgresServer) -> str:
    """The name of a database with the tables, to make others of."""
    execute(server.url, "CREATE DATABASE template_todo")
    done = run_backend("--init-database", "--database", server.url.rpartition("/")[0] + "/template_todo")
    assert done.returncode == 0, done.stderr
    return "template_todo"


@pytest.fixture
def url(server: PostgresServer, template: str) -> str:
    """A database of its own, with the tables."""
    name = f"d{uuid.uuid4().hex}"
    execute(server.url, f"CREATE DATABASE {name} TEMPLATE {template}")
    return server.url.rpartition("/")[0] + f"/{name}"


@pytest.fixture(params=["postgres", "file"])
def rows_config(request: pytest.FixtureRequest, config: BackendConfig) -> BackendConfig:
    """A backend with its rows in PostgreSQL, and one with its rows in its file."""
    return replace(config, postgres=request.getfixturevalue("url")) if request.param == "postgres" else config


@pytest.fixture
async def backend(rows_config: BackendConfig) -> AsyncGenerator[str]:
    async with running(rows_config) as address:
        yield address


@pytest.fixture
async def ann(backend: str) -> AsyncGenerator[User]:
    async with signed_in(backend, ANN) as user:
        yield user


@pytest.fixture
async def bob(backend: str) -> AsyncGenerator[User]:
    async with signed_in(backend, BOB) as user:
        yield user


@pytest.fixture
async def on_postgres(config: BackendConfig, url: str) -> AsyncGenerator[User]:
    async with running(replace(config, postgres=url)) as address, signed_in(address, ANN) as user:
        yield user


def stored(config: BackendConfig) -> dict[str, list[tuple[Any, ...]]]:
    """The rows, as a client would see them."""
    if config.postgres is None:
        import sqlite3

        with sqlite3.connect(config.database) as connection:
            lists = connection.execute("SELECT id, name, owner_id FROM lists ORDER BY id").fetchall()
            todos = connection.execute(
                "SELECT id, list_id, description, coalesce(completed, 0) FROM todos ORDER BY id"
            ).fetchall()
        connection.close()
    else:
        lists = execute(config.postgres, "SELECT id::text, name, owner_id::text FROM lists ORDER BY id")
        todos = execute(
            config.postgres,
            "SELECT id::text, list_id::text, description, completed::int FROM todos ORDER BY id",
        )
    return {"lists": lists, "todos": todos}


# The same on both


async def test_rows_are_inserted_updated_and_deleted(ann: User, rows_config: BackendConfig):
    await ann.write(
        put("lists", L1, name="Home", owner_id=ANN, created_at="2026-03-14T09:26:53.123Z"),
        put("todos", T1, list_id=L1, description="Milk", completed=0, created_by=ANN),
        put("todos", T2, list_id=L1, description="Bread \U0001f35e", completed=True),
    )
    assert stored(rows_config) == {
        "lists": [(L1, "Home", ANN)],
        "todos": [(T1, L1, "Milk", 0), (T2, L1, "Bread \U0001f35e", 1)],
    }
    await ann.write(
        patch("todos", T1, completed=1, completed_at="2026-03-14T10:00:00Z", completed_by=ANN),
        patch("lists", L1, name="House"),
        delete("todos", T2),
        patch("todos", T3, description="gone"),
        delete("todos", T3),
    )
    assert stored(rows_config) == {"lists": [(L1, "House", ANN)], "todos": [(T1, L1, "Milk", 1)]}
    await ann.write(delete("lists", L1))
    assert stored(rows_config) == {"lists": [], "todos": []}


async def test_what_is_repeated_changes_nothing(ann: User, rows_config: BackendConfig):
    entries = [
        put("lists", L1, name="Home", owner_id=ANN),
        put("todos", T1, list_id=L1, description="Milk"),
        patch("todos", T1, description="Oat milk"),
        put("todos", T2, list_id=L1, description="Bread"),
        delete("todos", T2),
    ]
    await ann.write(*entries)
    before = stored(rows_config)
    await ann.write(*entries)
    assert stored(rows_config) == before


async def test_a_batch_is_applied_all_or_not_at_all(ann: User, rows_config: BackendConfig):
    answer = await ann.try_write(
        put("lists", L1, name="Home", owner_id=ANN), put("todos", T1, list_id=L2, description="Lost")
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "missing_list")
    assert stored(rows_config) == {"lists": [], "todos": []}


@pytest.mark.parametrize(
    ("entry", "status", "code"),
    [
        (put("list", L1, name="x"), 400, "unknown_table"),
        (put("lists", L1, name="x", colour="red"), 400, "unknown_column"),
        (put("lists", L1, name=1), 400, "wrong_type"),
        (put("lists", L1), 400, "missing_field"),
        (put("lists", "", name="x"), 400, "missing_field"),
        (put("lists", L1, name="x", created_at="yesterday"), 400, "wrong_type"),
        (put("todos", T1, list_id=L1, description="x", completed=2), 400, "wrong_type"),
        (put("lists", L1, name="x", owner_id=BOB), 403, "forbidden"),
        (put("todos", T1, list_id=L2, description="x"), 409, "missing_list"),
        ({"op": "DROP", "table": "lists", "id": L1}, 400, "invalid_request"),
        (put('lists"; DROP TABLE lists; --', L1, name="x"), 400, "unknown_table"),
        (put("lists", L1, **{"name": "x", 'name"; DROP TABLE lists; --': 1}), 400, "unknown_column"),
    ],
)
async def test_what_does_not_fit_is_refused_with_a_sentence(
    ann: User, rows_config: BackendConfig, entry: dict[str, Any], status: int, code: str
):
    answer = await ann.try_write(entry)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["description"].endswith(".")
    assert stored(rows_config) == {"lists": [], "todos": []}


async def test_what_belongs_to_another_user_stays(ann: User, bob: User, rows_config: BackendConfig):
    await ann.write(put("lists", L1, name="Home", owner_id=ANN), put("todos", T1, list_id=L1, description="Milk"))
    await bob.write(put("lists", L2, name="Bobs", owner_id=BOB))
    before = stored(rows_config)
    for entry in (
        patch("lists", L1, name="mine"),
        delete("lists", L1),
        put("lists", L1, name="mine", owner_id=BOB),
        patch("lists", L2, owner_id=ANN),
        patch("todos", T1, description="mine"),
        patch("todos", T1, list_id=L2),
        delete("todos", T1),
        put("todos", T2, list_id=L1, description="mine"),
    ):
        answer = await bob.try_write(entry)
        assert answer.status_code == 403, entry
    assert stored(rows_config) == before


async def test_transactions_have_a_verdict_each(ann: User, rows_config: BackendConfig):
    def crud(*entries: dict[str, Any]) -> dict[str, Any]:
        return {"crud": [{**entry, "op_data": entry.get("data")} for entry in entries]}

    answer = await ann.http.post(
        "/api/data",
        json={
            "transactions": [
                crud(put("lists", L1, name="Home", owner_id=ANN)),
                crud(put("todos", T1, list_id=L1, description="Milk"), put("todos", T2, list_id=L2, description="x")),
                crud(put("todos", T3, list_id=L1, description="Bread")),
            ]
        },
    )
    results = answer.json()["results"]
    assert [result["status"] for result in results] == ["success", "fatal_error", "not_attempted"]
    assert results[1]["failed_operation"]["operation_index"] == 1
    assert stored(rows_config) == {"lists": [(L1, "Home", ANN)], "todos": []}


async def test_write_checkpoints_count_up(ann: User):
    for expected in (1, 2):
        answer = await ann.http.put("/api/data/checkpoint", json={"user_id": ANN, "client_id": "c"})
        assert answer.json() == {"checkpoint": expected}


async def test_writers_in_each_others_way_all_succeed(ann: User, rows_config: BackendConfig):
    await ann.write(put("lists", L1, name="Home", owner_id=ANN))
    rows = [
        [put("todos", str(uuid.uuid4()), list_id=L1, description="x"), patch("lists", L1, name=f"{number}")]
        for number in range(20)
    ]
    answers = await asyncio.gather(*(ann.try_write(*entries) for entries in rows))
    while again := [index for index, answer in enumerate(answers) if answer.status_code != 200]:
        assert {answers[index].status_code for index in again} == {503}
        for index in again:
            answers[index] = await ann.try_write(*rows[index])
    assert len(stored(rows_config)["todos"]) == 20


# PostgreSQL alone


async def test_uuids_and_times_are_one_whatever_their_spelling(on_postgres: User, url: str):
    await on_postgres.write(put("lists", L1.upper(), name="Home", created_at="2026-03-14T10:26:53+01:00"))
    await on_postgres.write(put("lists", L1, name="Home", owner_id=ANN.upper(), created_at="2026-03-14T09:26:53Z"))
    assert execute(url, "SELECT id::text, created_at AT TIME ZONE 'UTC' FROM lists")[0][0] == L1
    assert execute(url, "SELECT count(*), max(extract(epoch FROM created_at))::bigint FROM lists") == [(1, 1773480413)]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (put("lists", "l1", name="x"), "lists.id must be a UUID."),
        (put("lists", L1, name="x\0y"), "lists.name contains a NUL character, which PostgreSQL cannot store."),
        (patch("todos", "'; DROP TABLE todos; --", description="x"), "todos.id must be a UUID."),
    ],
)
async def test_what_postgresql_cannot_store_is_refused(
    on_postgres: User, url: str, entry: dict[str, Any], sentence: str
):
    answer = await on_postgres.try_write(entry)
    assert answer.status_code == 400
    assert answer.json()["error"]["description"] == sentence
    assert execute(url, "SELECT count(*) FROM lists") == [(0,)]


async def test_the_sync_side_says_who_syncs_instead(config: BackendConfig, url: str):
    service = "https://powersync.example.com"
    async with (
        running(replace(config, postgres=url, powersync_url=service)) as address,
        signed_in(address, ANN) as user,
    ):
        asked = await user.http.get("/api/auth/token", params={"user_id": ANN}, headers={"Authorization": ""})
        token = asked.json()
        assert token["powersync_url"] == service
        assert (await user.http.get("/api/auth/keys")).json()["keys"][0]["kty"] == "RSA"
        for method, path in (("POST", "/sync/stream"), ("GET", "/write-checkpoint2.json")):
            answer = await user.http.request(method, path)
            assert answer.status_code == 404
            assert service in answer.json()["error"]["description"]
        assert (await user.http.get("/probes/readiness")).status_code == 200


async def test_trouble_of_postgresql_is_503_and_passes(
    on_postgres: User, server: PostgresServer, url: str, caplog: pytest.LogCaptureFixture
):
    """The server is killed amid writes: none that was acknowledged is lost, none is refused for good."""
    await on_postgres.write(put("lists", L1, name="Home", owner_id=ANN))
    acknowledged: set[str] = set()
    seen: set[int] = set()

    async def write(killed: asyncio.Event) -> None:
        after = 0
        while after < 20:
            row_id = str(uuid.uuid4())
            while True:
                answer = await on_postgres.try_write(put("todos", row_id, list_id=L1, description="x"))
                seen.add(answer.status_code)
                if answer.status_code == 200:
                    break
                await asyncio.sleep(0)
            acknowledged.add(row_id)
            after += killed.is_set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        killed = asyncio.Event()
        for _ in range(4):
            group.create_task(write(killed))
        while len(acknowledged) < 20:
            await asyncio.sleep(0.01)
        server.kill()
        while 503 not in seen:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.start)
        killed.set()
    assert seen == {200, 503}
    assert {row[0] for row in execute(url, "SELECT id::text FROM todos")} >= acknowledged
    assert "postgresql://" not in caplog.text


async def test_verdicts_tell_that_the_database_is_in_trouble(on_postgres: User, url: str):
    execute(url, "ALTER TABLE todos RENAME TO hidden")
    transactions = [
        {"crud": [{"op": "PUT", "table": "todos", "id": T1, "op_data": {"list_id": L1, "description": "x"}}]}
    ]
    answer = await on_postgres.http.post("/api/data", json={"transactions": transactions * 2})
    assert [result["status"] for result in answer.json()["results"]] == ["retryable_error", "not_attempted"]
    answer = await on_postgres.try_write(put("todos", T1, list_id=L1, description="x"))
    assert answer.status_code == 503
    execute(url, "ALTER TABLE hidden RENAME TO todos")
    answer = await on_postgres.try_write(put("todos", T1, list_id=L1, description="x"))
    assert answer.status_code == 409


async def test_a_locked_row_is_trouble_that_passes(on_postgres: User, url: str, monkeypatch: pytest.MonkeyPatch):
    from app.backend.data import postgres

    monkeypatch.setattr(postgres, "_STATEMENT_MILLISECONDS", 200)
    await on_postgres.write(put("lists", L1, name="Home", owner_id=ANN))
    with psycopg.connect(url) as other:
        other.execute("SELECT * FROM lists FOR UPDATE")
        execute(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'todo-tui%'")
        answer = await on_postgres.try_write(patch("lists", L1, name="House"))
        assert answer.status_code == 503
    answer = await on_postgres.try_write(patch("lists", L1, name="House"))
    assert answer.status_code == 200


def test_the_tables_and_the_publication_are_made_once_and_keep_what_is_there(url: str):
    execute(url, f"INSERT INTO lists (id, name, owner_id) VALUES ('{L1}', 'Home', '{ANN}')")
    done = run_backend("--init-database", TODO_TUI_DATABASE=url)
    assert (done.returncode, done.stdout) == (0, "")
    assert execute(url, "SELECT name FROM lists") == [("Home",)]
    published = "SELECT tablename FROM pg_publication_tables WHERE pubname = 'powersync' ORDER BY tablename"
    assert execute(url, published) == [("lists",), ("todos",)]


def test_what_is_wrong_with_the_address_is_told_without_the_password(server: PostgresServer, tmp_path: Path):
    address = f"127.0.0.1:{server.port}"
    for url, told in (
        (f"postgresql://nobody:s3cret@{address}/postgres", 'role "nobody" does not exist'),
        (f"postgresql://postgres:s3cret@{address}/missing", 'database "missing" does not exist'),
        (f"postgresql://postgres:s3cret@127.0.0.1:{free_port()}/x", "cannot be reached"),
    ):
        for arguments in (["--init-database"], ["--port", "0"]):
            done = run_backend(*arguments, "--database", url, TODO_TUI_DATA_DIR=str(tmp_path))
            assert done.returncode == 1
            assert told in done.stderr
            assert "s3cret" not in done.stderr
            assert "Traceback" not in done.stderr


def test_a_database_without_tables_is_refused_with_what_to_do(server: PostgresServer, tmp_path: Path):
    done = run_backend("--port", "0", "--database", server.url, TODO_TUI_DATA_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "create them with todo-tui backend --init-database" in done.stderr


async def test_opening_without_a_server_raises(config: BackendConfig):
    with pytest.raises(BackendError, match=r"^Cannot use the PostgreSQL database: "):
        async with running(replace(config, postgres=f"postgresql://postgres@127.0.0.1:{free_port()}/x")):
            pass
