"""The reference write API: several transactions in one request, and a result for each."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from app.backend import BackendConfig
from app.connection.connector import HttpConnector
from app.store.schema import APP_SCHEMA
from sync import PowerSyncDatabase

from .harness import User, delete, patch, put, signed_in

USER = "7c1f8c5e-61f7-4b0a-8f0e-2d4d8f0b6a11"
NOT_ATTEMPTED = {"status": "not_attempted"}
SUCCESS = {"status": "success"}


def transaction(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    crud: list[dict[str, Any]] = []
    for entry in entries:
        operation = {key: value for key, value in entry.items() if key != "data"}
        crud.append(operation | ({"op_data": entry["data"]} if "data" in entry else {}))
    return {"crud": crud, **more}


async def results(user: User, *transactions: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await user.http.post("/api/data", json={"transactions": list(transactions)})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


async def names(user: User) -> dict[str, str]:
    return {row_id: row["name"] for row_id, row in (await user.synced()).rows("lists").items()}


async def test_each_transaction_is_applied_in_order(ann: User) -> None:
    first = transaction(put("lists", "l", name="Food"), put("todos", "t", description="Milk", list_id="l"))
    second = transaction(patch("lists", "l", name="Drink"), transaction_id=7)
    second["crud"][0] |= {"previous_values": {"name": "Food"}, "metadata": "by hand"}
    for _ in range(2):
        assert await results(ann, first, second, transaction(delete("todos", "t")), transaction()) == [SUCCESS] * 4
    replica = await ann.synced("l")
    assert replica.rows("todos") == {}
    assert await names(ann) == {"l": "Drink"}
    assert await results(ann) == []


async def test_a_refused_transaction_is_undone_whole_and_what_follows_is_not_attempted(ann: User) -> None:
    bad = put("todos", "t", description="Milk", list_id="gone")
    answered = await results(
        ann,
        transaction(put("lists", "a", name="A")),
        transaction(put("lists", "b", name="B"), patch("lists", "a", name="AA"), bad),
        transaction(put("lists", "c", name="C")),
        transaction(put("lists", "d")),
    )
    description = "The list 'gone' of a to-do does not exist; it may have been deleted."
    fatal = {
        "status": "fatal_error",
        "requires_client_handling": True,
        "message": description,
        "failed_operation": {
            "operation_index": 2,
            "op": "PUT",
            "table": "todos",
            "id": "t",
            "error_code": "missing_list",
            "message": description,
        },
    }
    assert answered == [SUCCESS, fatal, NOT_ATTEMPTED, NOT_ATTEMPTED]
    assert await names(ann) == {"a": "A"}


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (put("lists", "l", name=None), "missing_field"),
        (put("lists", "l", name="N", colour="red"), "unknown_column"),
        (put("users", "u", name="N"), "unknown_table"),
        (put("lists", "l", name="N", owner_id="bob"), "forbidden"),
    ],
)
async def test_refusals_have_the_codes_of_other_uploads(ann: User, entry: dict[str, Any], code: str) -> None:
    [result] = await results(ann, transaction(entry))
    assert (result["status"], result["failed_operation"]["error_code"]) == ("fatal_error", code)


async def test_trouble_of_the_database_keeps_nothing_and_can_be_retried(config: BackendConfig, ann: User) -> None:
    transactions = [transaction(put("lists", row, name=row)) for row in "ab"]
    with closing(sqlite3.connect(config.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        first, *rest = await results(ann, *transactions)
        assert (first["status"], first["retry_after_ms"]) == ("retryable_error", 1000)
        assert rest == [NOT_ATTEMPTED]
        assert await names(ann) == {}
    assert await results(ann, *transactions) == [SUCCESS] * 2
    assert await names(ann) == {"a": "a", "b": "b"}


@pytest.mark.parametrize(
    "body",
    [
        {"transactions": None},
        {"transactions": [None]},
        {"transactions": [{"crud": [{"op": "DROP", "table": "lists", "id": "l"}]}]},
        {"transactions": [{"crud": [{"op": "PUT", "table": "lists", "id": 5}]}]},
        {"transactions": [{}]},
    ],
)
async def test_a_request_of_another_form_is_refused_as_a_whole(ann: User, body: Any) -> None:
    answer = await ann.http.post("/api/data", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


async def test_what_a_repeated_request_deletes_later_is_not_refused(ann: User) -> None:
    await ann.write(put("lists", "l", name="L"))
    requests = [
        transaction(put("todos", "t", description="T", list_id="l")),
        transaction(delete("todos", "t"), delete("lists", "l")),
    ]
    for _ in range(2):
        assert await results(ann, *requests) == [SUCCESS] * 2
    assert (await results(ann, *reversed(requests)))[1]["status"] == "fatal_error"


@pytest.mark.parametrize("interface", ["batch", "transactions"])
async def test_a_todo_that_came_too_late_is_kept_among_the_rejected_writes(
    backend: str, tmp_path: Any, interface: Any
) -> None:
    connector = HttpConnector(backend, USER, interface=interface)
    connector.attempts = 1
    async with PowerSyncDatabase(tmp_path / "todo.db", APP_SCHEMA) as database, signed_in(backend, USER) as elsewhere:
        await database.execute("INSERT INTO lists(id, name, owner_id) VALUES ('l', 'L', ?)", [USER])
        await connector.upload_data(database)
        await elsewhere.write(delete("lists", "l"))
        await database.execute("INSERT INTO todos(id, list_id, description) VALUES ('t', 'l', 'Late')")
        await database.execute("INSERT INTO lists(id, name, owner_id) VALUES ('m', 'M', ?)", [USER])
        await connector.upload_data(database)
        [rejected] = await database.rejected_writes()
        assert [entry.data for entry in rejected.crud] == [{"list_id": "l", "description": "Late"}]
        assert "does not exist; it may have been deleted" in rejected.reason
        assert await names(elsewhere) == {"m": "M"}
    await connector.aclose()
