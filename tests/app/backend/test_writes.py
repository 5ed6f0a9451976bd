"""What uploads do to the rows, and what is refused, with which words."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from app.backend import BackendConfig

from .harness import User, delete, patch, put

MEBIBYTE = 1024 * 1024
LIST = put("lists", "l", name="Groceries")
TODO = put("todos", "t", description="Milk", list_id="l")


def table_rows(config: BackendConfig, table: str) -> dict[str, dict[str, Any]]:
    with closing(sqlite3.connect(config.database)) as connection:
        connection.row_factory = sqlite3.Row
        return {row["id"]: dict(row) for row in connection.execute(f"SELECT * FROM {table}")}


async def last_op_id(user: User) -> int:
    return (await user.synced()).last_op_id


async def test_put_patch_and_delete(config: BackendConfig, ann: User) -> None:
    before = datetime.now(UTC)
    await ann.write(LIST, TODO)
    after = datetime.now(UTC)
    todo = table_rows(config, "todos")["t"]
    assert before <= datetime.fromisoformat(todo.pop("created_at")) <= after
    assert todo == {
        "id": "t",
        "completed_at": None,
        "description": "Milk",
        "completed": None,
        "created_by": None,
        "completed_by": None,
        "list_id": "l",
        "photo_id": None,
    }
    assert table_rows(config, "lists")["l"]["owner_id"] == "ann"
    await ann.write(patch("todos", "t", completed=True, completed_at="2026-01-02T03:04:05.678Z", completed_by="ann"))
    await ann.write(patch("lists", "l", name="Food"))
    todo = table_rows(config, "todos")["t"]
    assert (todo["completed"], todo["completed_at"], todo["description"]) == (1, "2026-01-02T03:04:05.678Z", "Milk")
    assert table_rows(config, "lists")["l"]["name"] == "Food"
    await ann.write(patch("todos", "t", completed=0, completed_at=None))
    todo = table_rows(config, "todos")["t"]
    assert (todo["completed"], todo["completed_at"]) == (0, None)
    await ann.write(delete("todos", "t"))
    assert table_rows(config, "todos") == {}


async def test_put_updates_what_it_names_and_keeps_the_rest(config: BackendConfig, ann: User) -> None:
    await ann.write(LIST, put("todos", "t", description="Milk", list_id="l", created_by="ann", created_at="2020-01-01"))
    await ann.write(put("todos", "t", description="Oat milk", list_id="l", completed=1))
    todo = table_rows(config, "todos")["t"]
    assert (todo["description"], todo["completed"]) == ("Oat milk", 1)
    assert (todo["created_by"], todo["created_at"]) == ("ann", "2020-01-01")


async def test_a_repeated_batch_changes_nothing_and_logs_nothing(config: BackendConfig, ann: User) -> None:
    batch = [LIST, TODO, patch("todos", "t", completed=True), delete("todos", "gone"), patch("lists", "gone", name="x")]
    await ann.write(*batch)
    rows, last = table_rows(config, "todos"), await last_op_id(ann)
    for _ in range(3):
        await ann.write(*batch)
    assert (table_rows(config, "todos"), await last_op_id(ann)) == (rows, last)
    for _ in range(2):
        await ann.write(delete("lists", "l"))
        assert await last_op_id(ann) == last + 3  # the list, that it is no one's any more, its to-do
    assert (table_rows(config, "lists"), table_rows(config, "todos")) == ({}, {})


async def test_a_batch_is_all_or_nothing(config: BackendConfig, ann: User) -> None:
    await ann.write(LIST)
    last = await last_op_id(ann)
    answer = await ann.try_write(patch("lists", "l", name="Changed"), TODO, delete("todos", "t"), put("todos", "u"))
    assert answer.status_code == 400
    assert table_rows(config, "lists")["l"]["name"] == "Groceries"
    assert table_rows(config, "todos") == {}
    assert await last_op_id(ann) == last
    await ann.write(TODO)
    assert await last_op_id(ann) == last + 1


async def test_missing_rows_and_empty_changes_are_success(config: BackendConfig, ann: User) -> None:
    await ann.write(LIST, patch("todos", "x", description="y"), delete("todos", "x"), delete("lists", "x"))
    await ann.write(patch("lists", "l"), {"op": "PATCH", "table": "lists", "id": "l"})
    assert set(table_rows(config, "lists")) == {"l"}
    assert table_rows(config, "todos") == {}
    assert await last_op_id(ann) == 2  # the list, and whose it is


async def test_one_row_requests(config: BackendConfig, ann: User) -> None:
    async def send(method: str, table: str, **data: Any) -> int:
        answer = await ann.http.request(method, "/api/data", json={"table": table, "data": data})
        return answer.status_code

    assert await send("PUT", "lists", id="l", name="Groceries") == 200
    assert await send("PATCH", "lists", id="l", name="Food") == 200
    assert table_rows(config, "lists")["l"]["name"] == "Food"
    assert await send("PATCH", "lists", name="No id") == 400
    assert await send("PUT", "lists", id="m") == 400
    assert await send("DELETE", "lists", id="l") == 200
    assert table_rows(config, "lists") == {}


async def test_a_todo_may_have_a_photo(ann: User) -> None:
    await ann.write(LIST, put("todos", "t", description="Milk", list_id="l", photo_id="p"))
    assert (await ann.synced("l")).rows("todos")["t"]["photo_id"] == "p"


@pytest.mark.parametrize(
    "entry",
    [
        put("todos", "late", description="Late", list_id="gone"),
        put("todos", "t", description="Changed", list_id="gone"),
        patch("todos", "t", list_id="gone", completed=True),
    ],
    ids=json.dumps,
)
async def test_a_todo_for_a_list_that_is_gone_is_refused(config: BackendConfig, ann: User, entry: Any) -> None:
    await ann.write(LIST, TODO)
    before = table_rows(config, "todos"), await last_op_id(ann)
    answer = await ann.try_write(delete("todos", "late"), delete("lists", "gone"), entry)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "missing_list")
    assert "'gone'" in answer.json()["error"]["description"]
    assert (table_rows(config, "todos"), await last_op_id(ann)) == before


async def test_a_list_and_its_todos_may_come_and_go_in_requests_that_are_repeated(
    config: BackendConfig, ann: User
) -> None:
    await ann.write(LIST, TODO)
    late, moved = put("todos", "late", description="Late", list_id="l"), patch("todos", "t", list_id="l")
    for _ in range(2):
        await ann.write(late, moved, delete("todos", "late"), delete("todos", "t"), delete("lists", "l"))
        await ann.write(late, delete("lists", "l"))
    assert (table_rows(config, "lists"), table_rows(config, "todos")) == ({}, {})


@pytest.mark.parametrize(
    "entry",
    [
        put("lists", "l", name="Mine now"),
        put("lists", "l", name="Mine now", owner_id="bob"),
        patch("lists", "l", name="Mine now"),
        patch("lists", "l", owner_id="bob"),
        delete("lists", "l"),
        put("todos", "t", description="Mine", list_id="l"),
        put("todos", "t", description="Mine", list_id="b"),
        put("todos", "t", description="Mine", list_id="gone"),
        put("todos", "new", description="Mine", list_id="l"),
        patch("todos", "t", completed=True),
        patch("todos", "t", list_id="b"),
        patch("todos", "bt", list_id="l"),
        delete("todos", "t"),
        put("lists", "new", name="N", owner_id="ann"),
        patch("lists", "b", owner_id="ann"),
    ],
    ids=json.dumps,
)
async def test_nobody_touches_the_rows_of_another(config: BackendConfig, ann: User, bob: User, entry: Any) -> None:
    await ann.write(LIST, TODO)
    await bob.write(put("lists", "b", name="Bob's"), put("todos", "bt", description="Tea", list_id="b"))
    before = table_rows(config, "lists"), table_rows(config, "todos"), await last_op_id(ann)
    answer = await bob.try_write(put("lists", "more", name="N"), entry)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "forbidden"
    assert (table_rows(config, "lists"), table_rows(config, "todos"), await last_op_id(ann)) == before


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (put("users", "u", name="N"), "unknown_table"),
        (put("sqlite_schema", "u", name="N"), "unknown_table"),
        (put("lists; DROP TABLE lists", "u", name="N"), "unknown_table"),
        (put("meta", "signing_key", value="N"), "unknown_table"),
        (delete("users", "u"), "unknown_table"),
        (put("lists", "l", name="N", colour="red"), "unknown_column"),
        (patch("lists", "gone", colour="red"), "unknown_column"),
        (patch("lists", "l", **{"name = 'x' --": "y"}), "unknown_column"),
        (put("todos", "t", description="D", list_id="l", video_id="v"), "unknown_column"),
        (put("lists", "l"), "missing_field"),
        (put("lists", "l", name=None), "missing_field"),
        (patch("lists", "l", name=None), "missing_field"),
        (patch("lists", "l", owner_id=None), "missing_field"),
        (put("todos", "t", description="D"), "missing_field"),
        (put("todos", "t", list_id="l"), "missing_field"),
        (put("lists", "", name="N"), "missing_field"),
        (put("lists", "l", name=5), "wrong_type"),
        (put("lists", "l", name=["N"]), "wrong_type"),
        (put("lists", "l", name={"N": 1}), "wrong_type"),
        (put("lists", "l", name="N", created_at=5), "wrong_type"),
        (put("lists", "l", name="N", created_at="yesterday"), "wrong_type"),
        (put("todos", "t", description="D", list_id="l", completed="yes"), "wrong_type"),
        (put("todos", "t", description="D", list_id="l", completed=2), "wrong_type"),
        (put("todos", "t", description="D", list_id="l", completed=1.0), "wrong_type"),
        ({"op": "PUT", "table": "lists", "id": "l", "data": {"id": "m", "name": "N"}}, "wrong_type"),
        ({"op": "DROP", "table": "lists", "id": "l"}, "invalid_request"),
        ({"op": "put", "table": "lists", "id": "l", "data": {"name": "N"}}, "invalid_request"),
        ({"op": "PUT", "table": "lists", "id": 5, "data": {"name": "N"}}, "invalid_request"),
        ({"op": "PUT", "table": "lists", "data": {"name": "N"}}, "invalid_request"),
        ({"op": "PUT", "table": "lists", "id": "l", "data": ["name"]}, "invalid_request"),
        ("PUT", "invalid_request"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
async def test_bad_entries_are_refused_in_one_sentence(config: BackendConfig, ann: User, entry: Any, code: str) -> None:
    await ann.write(LIST)
    before = table_rows(config, "lists"), await last_op_id(ann)
    answer = await ann.try_write(entry)
    error = answer.json()["error"]
    assert (answer.status_code, error["status"], error["code"]) == (400, 400, code)
    assert error["description"].endswith(".")
    assert "\n" not in error["description"]
    assert "Traceback" not in answer.text
    assert (table_rows(config, "lists"), await last_op_id(ann)) == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"batch"',
        b"{}",
        b'{"batch": null}',
        b'{"batch": {}}',
        b'{"batch": [null]}',
        b"\xff\xfe",
        b'{"batch": [{"op":"PUT","table":"lists","id":"\xff","data":{"name":"N"}}]}',
        b'{"batch": [{"op":"PUT","table":"lists","id":"\\ud800","data":{"name":"N"}}]}',
        b'{"batch": [{"op":"PUT","table":"lists","id":"l","data":{"name":NaN}}]}',
        b'{"batch": [{"op":"PUT","table":"lists","id":"l","data":{"name":1e999}}]}',
        b"[" * 100_000,
        b'{"batch":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
    ids=lambda value: repr(value[:30]),
)
async def test_bodies_that_are_no_batch_are_refused(ann: User, body: bytes) -> None:
    for path in ("/api/data", "/sync/checkpoint-request"):
        answer = await ann.http.post(path, content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] in ("invalid_json", "invalid_request")
    for method in ("PUT", "PATCH", "DELETE"):
        assert (await ann.http.request(method, "/api/data", content=body)).status_code == 400
    assert (await ann.http.put("/api/data/checkpoint", content=body)).status_code == 400
    assert (await ann.synced()).last_op_id == 0


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("/sync/stream", MEBIBYTE + 1),
        ("/sync/stream", 8 * MEBIBYTE),
        ("/sync/checkpoint-request", MEBIBYTE + 1),
        ("/api/data", 16 * MEBIBYTE + 1),
    ],
)
async def test_a_body_that_is_too_long_is_refused(ann: User, path: str, size: int) -> None:
    answer = await ann.http.post(path, content=b" " * size)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


async def test_a_body_of_sixteen_mebibytes_is_accepted(ann: User) -> None:
    batch = json.dumps({"batch": [LIST]}).encode()
    answer = await ann.http.post("/api/data", content=batch + b" " * (16 * MEBIBYTE - len(batch)))
    assert answer.status_code == 200
    assert set((await ann.synced()).rows("lists")) == {"l"}


@pytest.mark.parametrize(
    "text",
    [
        "'); DROP TABLE lists; --",
        "[bold red]x[/]\x1b[31m\r\n\t\x00end",
        "\u202e\u0000\u2028🧺 ﷽ e\u0301",
        '{"id":"other"}',
        "",
        "x" * 900_000,
    ],
    ids=lambda value: repr(value[:12]),
)
async def test_text_comes_back_exactly_as_it_was(config: BackendConfig, ann: User, text: str) -> None:
    row_id = text[:100] or "l"
    await ann.write(put("lists", row_id, name=text), put("todos", row_id, description="D", list_id=row_id))
    replica = await ann.synced(row_id)
    assert replica.rows("lists")[row_id]["name"] == text
    assert replica.rows("todos")[row_id]["list_id"] == row_id
    assert table_rows(config, "lists")[row_id]["name"] == text


async def test_a_locked_database_is_503_and_the_same_write_succeeds_later(config: BackendConfig, ann: User) -> None:
    with closing(sqlite3.connect(config.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answers = await asyncio.gather(
            ann.try_write(LIST), ann.http.get("/write-checkpoint2.json?client_id=c"), return_exceptions=False
        )
        assert [answer.status_code for answer in answers] == [503, 503]
        assert answers[0].json()["error"]["code"] == "unavailable"
        assert "retry-after" in answers[0].headers
        assert (await ann.synced()).rows("lists") == {}
        other.execute("ROLLBACK")
    await ann.write(LIST)
    assert set((await ann.synced()).rows("lists")) == {"l"}


async def test_concurrent_batches_all_arrive(ann: User) -> None:
    await ann.write(LIST)
    await asyncio.gather(*(ann.write(put("todos", f"t{number}", description="D", list_id="l")) for number in range(50)))
    assert len((await ann.synced("l")).rows("todos")) == 50


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/sync/stream", 405)])
async def test_unknown_routes_answer_in_json(ann: User, method: str, path: str, status: int) -> None:
    answer = await ann.http.request(method, path)
    assert answer.status_code == answer.json()["error"]["status"] == status
