"""What each upload interface sends, and how it reads the answers; the servers are real sockets with scripts."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.connection.connector import HttpConnector
from app.connection.upload_interfaces import UploadInterfaceName
from sync import PowerSyncDatabase, UploadHeldError, UploadRetryError
from tests.kit.service import Exchange, ScriptedService, scripted_service

INSERT = "INSERT INTO lists(id, name) VALUES (?, ?)"

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


@asynccontextmanager
async def backend(
    interface: UploadInterfaceName, answer: Callable[[Any], Answer]
) -> AsyncGenerator[tuple[HttpConnector, ScriptedService]]:
    async def handle(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(200, {"token": "a.b.c"})
        else:
            await exchange.answer(*answer(exchange))

    async with scripted_service(handle) as service:
        connector = HttpConnector(service.url, "user", interface=interface)
        try:
            yield connector, service
        finally:
            await connector.aclose()


def uploads(service: ScriptedService) -> list[tuple[str, str, Any]]:
    return [(each.method, each.path, each.json) for each in service.requests if each.method != "GET"]


async def waiting(database: PowerSyncDatabase) -> list[str]:
    return [entry.id async for transaction in database.crud_transactions() for entry in transaction.crud]


async def rejected(database: PowerSyncDatabase) -> list[tuple[str, str | None, int | None]]:
    return [(each.reason, each.code, each.operation_index) for each in await database.rejected_writes()]


def ids(exchange: Exchange) -> list[str]:
    return [operation["id"] for operation in exchange.json["batch"]]


# The official Node demo


async def test_several_transactions_travel_in_one_batch(database: PowerSyncDatabase) -> None:
    await database.execute(INSERT, ["a", "A"])
    await database.execute("UPDATE lists SET name = 'AA' WHERE id = 'a'")
    await database.execute("DELETE FROM lists WHERE id = 'a'")
    async with backend("batch", lambda _: (200, {"message": "Batch completed"})) as (connector, service):
        await connector.upload_data(database)
    assert uploads(service) == [
        (
            "POST",
            "/api/data",
            {
                "batch": [
                    {"op": "PUT", "table": "lists", "id": "a", "data": {"name": "A"}},
                    {"op": "PATCH", "table": "lists", "id": "a", "data": {"name": "AA"}},
                    {"op": "DELETE", "table": "lists", "id": "a"},
                ]
            },
        )
    ]
    assert service.requests[1].headers["authorization"] == "Bearer a.b.c"
    assert await waiting(database) == []


async def test_a_body_stays_below_the_node_demos_limit(database: PowerSyncDatabase) -> None:
    for number in range(30):
        await database.execute(INSERT, [f"{number:02}", "ü" * 4500])
    async with backend("batch", lambda _: (200, {})) as (connector, service):
        await connector.upload_data(database)
    assert max(len(each.body) for each in service.requests) <= 100_000
    sent = [each["id"] for _, _, body in uploads(service) for each in body["batch"]]
    assert sent == [f"{number:02}" for number in range(30)]
    assert len(uploads(service)) < 10


async def test_the_one_transaction_at_fault_is_found_and_the_others_arrive_once_in_order(
    database: PowerSyncDatabase,
) -> None:
    for number in range(100):
        await database.execute(INSERT, [f"{number:02}", "x"])
    arrived: list[str] = []

    def answer(exchange: Exchange) -> Answer:
        if "57" in ids(exchange):
            return 400, {"message": "Request failed: no"}
        arrived.extend(ids(exchange))
        return 200, {}

    async with backend("batch", answer) as (connector, service):
        for _ in range(2):
            with pytest.raises(UploadRetryError, match="Request failed: no"):
                await connector.upload_data(database)
        await connector.upload_data(database)
    assert arrived == [f"{number:02}" for number in range(100) if number != 57]
    [(reason, code, index)] = await rejected(database)
    assert (code, index) == ("400", None)
    assert "Request failed: no" in reason
    assert len(uploads(service)) < 40


async def test_an_update_of_nothing_is_not_sent(database: PowerSyncDatabase) -> None:
    await database.execute(INSERT, ["a", "A"])
    await database.execute("DELETE FROM ps_crud")
    await database.execute("UPDATE lists SET name = 'A' WHERE id = 'a'")
    assert await waiting(database) == ["a"]
    async with backend("batch", lambda _: (400, {})) as (connector, service):
        await connector.upload_data(database)
    assert uploads(service) == []
    assert await waiting(database) == []


async def test_the_backend_may_ask_for_time(database: PowerSyncDatabase) -> None:
    await database.execute(INSERT, ["a", "A"])
    async with backend("batch", lambda _: (429, {}, {"Retry-After": "7"})) as (connector, _):
        with pytest.raises(UploadRetryError) as caught:
            await connector.upload_data(database)
    assert caught.value.after == 7.0


async def test_trouble_that_even_an_empty_batch_meets_refuses_nothing(database: PowerSyncDatabase) -> None:
    for number in range(100):
        await database.execute(INSERT, [f"{number:02}", "x"])
    trouble = True

    def answer(_: Exchange) -> Answer:
        return (400, {"message": "Request failed: away"}) if trouble else (200, {})

    async with backend("batch", answer) as (connector, service):
        for _ in range(5):
            with pytest.raises(UploadRetryError, match="away"):
                await connector.upload_data(database)
        assert len(uploads(service)) == 10
        assert len(await waiting(database)) == 100
        trouble = False
        await connector.upload_data(database)
    assert (await waiting(database), await rejected(database)) == ([], [])


# The reference write API


async def test_transactions_keep_their_bounds_and_results_count_one_by_one(database: PowerSyncDatabase) -> None:
    async with database.write_transaction() as tx:
        await tx.execute(INSERT, ["a", "A"])
        await tx.execute(INSERT, ["b", "B"])
    for row in "cde":
        await database.execute(INSERT, [row, row])

    def answer(exchange: Exchange) -> Answer:
        results: list[dict[str, Any]] = []
        for transaction in exchange.json["transactions"]:
            if transaction["crud"][0]["id"] == "c":
                failed = {"error_code": "23502", "operation_index": 0}
                results.append({"status": "fatal_error", "message": "not null", "failed_operation": failed})
                results += [{"status": "not_attempted"}] * (len(exchange.json["transactions"]) - len(results))
                break
            results.append({"status": "success"})
        return 200, {"results": results}

    async with backend("transactions", answer) as (connector, service):
        await connector.upload_data(database)
    assert await waiting(database) == []
    assert await rejected(database) == [("The backend did not accept a change: not null", "23502", 0)]
    first, second = uploads(service)
    assert first[:2] == ("POST", "/api/data")
    assert [[each["id"] for each in transaction["crud"]] for transaction in first[2]["transactions"]] == [
        ["a", "b"],
        ["c"],
        ["d"],
        ["e"],
    ]
    assert first[2]["transactions"][0]["crud"][0] == {
        "id": "a",
        "op": "PUT",
        "table": "lists",
        "op_data": {"name": "A"},
    }
    assert [transaction["crud"][0]["id"] for transaction in second[2]["transactions"]] == ["d", "e"]


@pytest.mark.parametrize(
    ("answer", "sentence", "after"),
    [
        ({"results": [{"status": "retryable_error", "message": "busy", "retry_after_ms": 1500}]}, "busy", 1.5),
        ({"results": [{"status": "retryable_error"}]}, "could not carry out", None),
        ({"results": [{"status": "not_attempted"}]}, "did not attempt", None),
        ({"results": [{"status": "novel"}]}, "not known", None),
        ({"results": ["?"]}, "not known", None),
        ({"results": []}, "without results", None),
        ({"message": "Batch completed"}, "without results", None),
        ("?", "without results", None),
    ],
)
async def test_results_that_keep_the_transaction_waiting(
    database: PowerSyncDatabase, answer: Any, sentence: str, after: float | None
) -> None:
    await database.execute(INSERT, ["a", "A"])
    async with backend("transactions", lambda _: (200, answer)) as (connector, _):
        with pytest.raises(UploadRetryError, match=sentence) as caught:
            await connector.upload_data(database)
    assert caught.value.after == after
    assert await waiting(database) == ["a"]


# The official Django demo


async def test_rows_travel_one_by_one_and_whole(database: PowerSyncDatabase) -> None:
    async with database.write_transaction() as tx:
        await tx.execute("INSERT INTO lists(id, name, created_at) VALUES ('a', 'A', '2026')")
        await tx.execute("UPDATE lists SET name = 'AA' WHERE id = 'a'")
        await tx.execute("INSERT INTO todos(id, description, completed, completed_at) VALUES ('t', 'T', 1, '2026')")
        await tx.execute("UPDATE todos SET description = NULL WHERE id = 't'")
        await tx.execute("DELETE FROM todos WHERE id = 't'")
    async with backend("rows", lambda _: (200, {})) as (connector, service):
        await connector.upload_data(database)
    assert service.requests[0].target == "/api/get_powersync_token/?user_id=user"
    done = {"completed": 1, "completed_at": "2026"}
    rows = [
        ("PUT", "lists", {"name": "A", "created_at": "2026"}),
        ("PATCH", "lists", {"name": "A", "created_at": "2026"}),
        ("PATCH", "lists", {"name": "AA", "created_at": "2026", "owner_id": None}),
        ("PUT", "todos", {"description": "T", **done}),
        ("PATCH", "todos", {**done, "completed_by": None}),
        ("PATCH", "todos", {"description": None}),
        ("DELETE", "todos", {}),
    ]
    assert uploads(service) == [
        (method, "/api/upload_data/", {"table": table, "data": {**data, "id": "a" if table == "lists" else "t"}})
        for method, table, data in rows
    ]
    assert await waiting(database) == []


async def test_a_list_is_not_erased_where_the_rest_of_its_row_is_not_known(database: PowerSyncDatabase) -> None:
    await database.execute(INSERT, ["a", "A"])
    await database.execute("DELETE FROM ps_crud")
    await database.execute("UPDATE lists SET name = 'AA' WHERE id = 'a'")
    # As queued before the table tracked what its rows held.
    await database.execute("UPDATE ps_crud SET data = json_remove(data, '$.old')")
    async with backend("rows", lambda _: (200, {})) as (connector, service):
        await connector.upload_data(database)
    assert uploads(service) == []
    [(reason, code, index)] = await rejected(database)
    assert (code, index) == ("unknown_values", 0)
    assert "would erase created_at, owner_id of the list" in reason


@pytest.mark.parametrize("interface", ["batch", "transactions", "rows"])
@pytest.mark.parametrize("operation", ["INSERT INTO lists(id) VALUES ('a')", "DELETE FROM lists WHERE id = 'a'"])
async def test_a_404_that_names_no_change_keeps_everything_waiting(
    database: PowerSyncDatabase, interface: UploadInterfaceName, operation: str
) -> None:
    await database.execute(INSERT, ["a", "A"] if operation.startswith("DELETE") else ["b", "B"])
    await database.execute("DELETE FROM ps_crud")
    await database.execute(operation)
    async with backend(interface, lambda _: (404, {})) as (connector, _):
        for _ in range(4):
            with pytest.raises(UploadHeldError, match="check upload_interface"):
                await connector.upload_data(database)
    assert await waiting(database) == ["a"]
    assert await rejected(database) == []


async def test_a_missing_row_refuses_an_update_unless_it_is_deleted_later_in_the_queue(
    database: PowerSyncDatabase,
) -> None:
    for row in "ab":
        await database.execute(INSERT, [row, row])
    await database.execute("DELETE FROM ps_crud")
    for row in "ab":
        await database.execute("UPDATE lists SET name = 'new' WHERE id = ?", [row])
    await database.execute("DELETE FROM lists WHERE id = 'b'")

    async def handle(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(200, {"token": "a.b.c"})
        elif exchange.method == "DELETE":
            await exchange.answer_bytes(404, b"message", "text/html")
        else:
            page = (
                b"DoesNotExist at /api/upload_data/\nLists matching query does not exist.\n\nHTTP_AUTHORIZATION = a.b.c"
            )
            await exchange.answer_bytes(500, page, "text/plain")

    async with scripted_service(handle) as service:
        connector = HttpConnector(service.url, "user", interface="rows")
        for _ in range(2):
            with pytest.raises(UploadRetryError, match="does not exist"):
                await connector.upload_data(database)
        await connector.upload_data(database)
        await connector.aclose()
    assert await waiting(database) == []
    [refused] = await database.rejected_writes()
    assert [entry.id for entry in refused.crud] == ["a"]
    assert "a.b.c" not in refused.reason


async def test_the_row_at_fault_is_named_and_its_transaction_kept_apart_whole(database: PowerSyncDatabase) -> None:
    async with database.write_transaction() as tx:
        await tx.execute(INSERT, ["a", "A"])
        await tx.execute(INSERT, ["b", "B"])
    await database.execute(INSERT, ["c", "C"])
    arrived: list[str] = []

    def answer(exchange: Exchange) -> Answer:
        row = json.loads(exchange.body)["data"]["id"]
        if row == "b":
            return 422, {"message": "no"}
        arrived.append(row)
        return 200, {}

    async with backend("rows", answer) as (connector, _):
        for _ in range(2):
            with pytest.raises(UploadRetryError):
                await connector.upload_data(database)
        await connector.upload_data(database)
    assert arrived == ["a", "a", "a", "c"]
    assert await rejected(database) == [("The backend did not accept a change: no (HTTP 422).", "422", 1)]
