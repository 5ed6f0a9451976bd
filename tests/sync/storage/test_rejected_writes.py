"""Writes that the backend refused: kept apart with its reason, and retried, edited or discarded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sync import (
    Accepted,
    ConnectorError,
    CrudTransaction,
    Hold,
    PowerSyncCredentials,
    PowerSyncDatabase,
    Rejected,
    Retry,
    Schema,
    Table,
    TransactionConnector,
    UploadHeldError,
    UploadRetryError,
    Verdict,
    verdict_for_status,
)
from sync.storage import oplog, publish, rejected_writes, upload_queue
from sync.storage.rejected_writes import Rejection
from tests.kit import inside
from tests.sync.rig import rows, within

INSERT = "INSERT INTO lists(id, name) VALUES (?, ?)"


class Connector(TransactionConnector):
    """Answers by a function of the test."""

    def __init__(self, answer: Callable[[Sequence[CrudTransaction]], Sequence[Verdict]]) -> None:
        self.answer = answer

    async def fetch_credentials(self) -> PowerSyncCredentials:
        raise AssertionError("no credentials were to be fetched")

    async def upload_transactions(self, transactions: Sequence[CrudTransaction]) -> Sequence[Verdict]:
        return self.answer(transactions)


def names(transactions: Sequence[CrudTransaction]) -> list[str]:
    return [transaction.crud[0].id for transaction in transactions]


async def waiting(database: PowerSyncDatabase) -> list[str]:
    return [transaction.crud[0].id async for transaction in database.crud_transactions()]


async def test_a_rejected_transaction_moves_whole_and_the_others_stay(database: PowerSyncDatabase) -> None:
    await database.execute(INSERT, ["a", "A"])
    async with database.write_transaction() as tx:
        await tx.execute(INSERT, ["b", "B"])
        await tx.execute("UPDATE lists SET name = 'BB' WHERE id = 'b'")
    await database.execute(INSERT, ["c", "C"])
    before = await rows(database, "SELECT id, data, tx_id FROM ps_crud ORDER BY id")

    transaction = (await database.crud_transaction_batch())[1]
    await transaction.reject("no such thing", code="X1", operation_index=1)

    assert await waiting(database) == ["a", "c"]
    assert await rows(database, "SELECT id, data, tx_id FROM ps_rejected_crud ORDER BY id") == before[1:3]
    [rejected] = await database.rejected_writes()
    assert rejected.crud == transaction.crud
    assert (rejected.reason, rejected.code, rejected.operation_index) == ("no such thing", "X1", 1)
    assert rejected.attempts == 1
    assert json.loads(json.dumps(rejected.export()))["crud"][1]["data"] == {"name": "BB"}


async def test_a_transaction_is_rejected_only_once(database: PowerSyncDatabase) -> None:
    await database.execute(INSERT, ["a", "A"])
    transaction = await database.next_crud_transaction()
    assert transaction is not None
    await transaction.reject("no")
    await transaction.reject("no")
    assert len(await database.rejected_writes()) == 1
    await transaction.complete()
    assert len(await database.rejected_writes()) == 1


async def test_the_row_shows_the_servers_value_again_once_all_is_uploaded(database: PowerSyncDatabase) -> None:
    await published(database, "a", {"name": "server's"})
    await database.execute("UPDATE lists SET name = 'mine' WHERE id = 'a'")
    await database.execute(INSERT, ["b", "B"])
    transaction = await database.next_crud_transaction()
    assert transaction is not None
    await transaction.reject("no")
    [rejected] = await database.rejected_writes()
    assert rejected.server_rows == ({"name": "server's"},)
    assert await rows(database, "SELECT name FROM lists WHERE id = 'a'") == [["mine"]]

    await (await database.crud_transaction_batch())[0].complete()
    await acknowledged(database)
    assert await rows(database, "SELECT id, name FROM lists ORDER BY id") == [["a", "server's"]]


@pytest.mark.parametrize("op_ids", [(1, 2), (2, 1)])
async def test_of_a_row_in_two_buckets_the_newest_is_kept_as_the_servers(
    database: PowerSyncDatabase, op_ids: tuple[int, int]
) -> None:
    for bucket, op_id in enumerate(op_ids, start=1):
        await published(database, "a", {"name": f"server's {op_id}"}, bucket=bucket, op_id=op_id)
    await database.execute("UPDATE lists SET name = 'mine' WHERE id = 'a'")
    transaction = await database.next_crud_transaction()
    assert transaction is not None
    await transaction.reject("no")
    [rejected] = await database.rejected_writes()
    assert rejected.server_rows == ({"name": "server's 2"},)


async def test_a_retry_queues_the_same_once_more_and_shows_it_again(database: PowerSyncDatabase) -> None:
    await published(database, "a", {"name": "server's"})
    async with database.write_transaction() as tx:
        await tx.execute("UPDATE lists SET name = 'mine' WHERE id = 'a'")
        await tx.execute(INSERT, ["b", "B"])
        await tx.execute(INSERT, ["c", "C"])
        await tx.execute("DELETE FROM lists WHERE id = 'c'")
    transaction = await database.next_crud_transaction()
    assert transaction is not None
    await transaction.reject("no")
    await acknowledged(database)
    assert await rows(database, "SELECT id, name FROM lists") == [["a", "server's"]]

    [rejected] = await database.rejected_writes()
    assert await rejected.retry()
    assert not await rejected.retry()
    assert not await rejected.discard()
    again = await database.next_crud_transaction()
    assert again is not None
    assert again.transaction_id != transaction.transaction_id
    assert [entry.data for entry in again.crud] == [entry.data for entry in transaction.crud]
    assert await rows(database, "SELECT id, name FROM lists ORDER BY id") == [["a", "mine"], ["b", "B"]]
    assert await database.rejected_writes() == []
    # The gate is closed again: an older checkpoint must not take the retried write back.
    assert not await inside.read(database, upload_queue.is_gate_open)

    await again.reject("still no")
    [rejected] = await database.rejected_writes()
    assert rejected.attempts == 2
    await acknowledged(database)
    assert await rows(database, "SELECT id, name FROM lists") == [["a", "server's"]]


async def test_a_retry_forgets_older_checkpoints_as_a_write_does(database: PowerSyncDatabase) -> None:
    """A service that counts from the start again may give a number that the old one had reached long ago."""
    await database.execute(INSERT, ["a", "A"])
    transaction = await database.next_crud_transaction()
    assert transaction is not None
    await transaction.reject("no")
    await database.execute("INSERT INTO ps_kv(key, value) VALUES ('last_seen_checkpoint_request_id', 57)")
    [rejected] = await database.rejected_writes()
    await rejected.retry()
    again = await database.next_crud_transaction()
    assert again is not None
    await again.complete(7)
    assert not await inside.read(database, upload_queue.is_gate_open)


async def test_a_retry_of_an_insert_only_write_stores_nothing_and_holds_nothing_back(tmp_path: Path) -> None:
    async with PowerSyncDatabase(tmp_path / "log.db", Schema([Table("log", [], insert_only=True)])) as database:
        await database.execute("INSERT INTO log(id) VALUES ('a')")
        transaction = await database.next_crud_transaction()
        assert transaction is not None
        await transaction.reject("no")
        [rejected] = await database.rejected_writes()
        assert await rejected.retry()
        again = await database.next_crud_transaction()
        assert again is not None
        assert await rows(database, "SELECT * FROM log") == []
        assert not await inside.read(database, upload_queue.is_gate_open)
        await again.complete()
        assert await inside.read(database, upload_queue.is_gate_open)
        assert await rows(database, "SELECT * FROM ps_updated_rows") == []


async def test_retried_with_other_values(database: PowerSyncDatabase) -> None:
    await database.execute(INSERT, ["a", "too long"])
    transaction = await database.next_crud_transaction()
    assert transaction is not None
    await transaction.reject("too long")
    [rejected] = await database.rejected_writes()
    with pytest.raises(ValueError, match="discard"):
        await rejected.retry_with([])
    edited = msgspec.structs.replace(rejected.crud[0], data={"name": "short", "owner_id": None})
    assert await rejected.retry_with([edited])
    again = await database.next_crud_transaction()
    assert again is not None
    assert again.crud[0].data == {"name": "short", "owner_id": None}
    assert await rows(database, "SELECT id, name FROM lists") == [["a", "short"]]


async def test_discarded_writes_are_gone(database: PowerSyncDatabase) -> None:
    await database.execute(INSERT, ["a", "A"])
    transaction = await database.next_crud_transaction()
    assert transaction is not None
    await transaction.reject("no")
    [rejected] = await database.rejected_writes()
    assert await rejected.discard()
    assert await database.rejected_writes() == []
    assert await waiting(database) == []
    assert await rows(database, "SELECT count(*) FROM ps_rejected_crud") == [[0]]


async def test_values_survive_the_way_there_and_back(database: PowerSyncDatabase) -> None:
    values = {"name": "ünï\u2028 \"'%", "created_at": "2⁵³", "owner_id": '{"a":[1]}'}
    await database.execute(
        "INSERT INTO lists(id, name, created_at, owner_id) VALUES ('a', ?, ?, ?)", [*values.values()]
    )
    before = await rows(database, "SELECT data FROM ps_crud")
    transaction = await database.next_crud_transaction()
    assert transaction is not None
    await transaction.reject("no")
    [rejected] = await database.rejected_writes()
    await rejected.retry()
    assert await rows(database, "SELECT data FROM ps_crud") == before


async def test_rejected_writes_can_be_watched(database: PowerSyncDatabase) -> None:
    watch = database.watch_rejected_writes()
    assert await within(10, anext(watch)) == []
    await database.execute(INSERT, ["a", "A"])
    transaction = await database.next_crud_transaction()
    assert transaction is not None
    await transaction.reject("no")
    [rejected] = await within(10, anext(watch))
    assert rejected.reason == "no"
    await rejected.discard()
    assert await within(10, anext(watch)) == []


async def test_they_outlive_the_program_and_stay_with_another_schema(database: PowerSyncDatabase) -> None:
    await database.execute(INSERT, ["a", "A"])
    transaction = await database.next_crud_transaction()
    assert transaction is not None
    await transaction.reject("no")
    [before] = await database.rejected_writes()
    await database.close()
    async with PowerSyncDatabase(database.path, database.schema) as again:
        assert await again.rejected_writes() == [before]


# Verdicts


async def test_accepted_prefixes_leave_the_queue_and_rejected_ones_move(database: PowerSyncDatabase) -> None:
    for name in "abcdef":
        await database.execute(INSERT, [name, name])

    def answer(transactions: Sequence[CrudTransaction]) -> list[Verdict]:
        return [Rejected("no c") if name == "c" else Accepted() for name in names(transactions)]

    await Connector(answer).upload_data(database)
    assert await waiting(database) == []
    assert [rejected.crud[0].id for rejected in await database.rejected_writes()] == ["c"]


async def test_a_retry_stops_the_queue_and_keeps_what_is_behind(database: PowerSyncDatabase) -> None:
    for name in "abc":
        await database.execute(INSERT, [name, name])
    connector = Connector(lambda _: [Accepted(), Retry("busy", after=3.0), Accepted()])
    with pytest.raises(UploadRetryError, match="busy") as raised:
        await connector.upload_data(database)
    assert raised.value.after == 3.0
    assert await waiting(database) == ["b", "c"]


async def test_a_held_transaction_waits(database: PowerSyncDatabase) -> None:
    await database.execute(INSERT, ["a", "A"])
    with pytest.raises(UploadHeldError, match="sign in"):
        await Connector(lambda _: [Hold("sign in first")]).upload_data(database)
    assert await waiting(database) == ["a"]


async def test_a_rejection_that_may_pass_is_tried_a_few_times_first(database: PowerSyncDatabase) -> None:
    for name in "ab":
        await database.execute(INSERT, [name, name])
    tried: list[str] = []

    def answer(transactions: Sequence[CrudTransaction]) -> list[Verdict]:
        tried.append(names(transactions)[0])
        return [Rejected("hm", final=False)]

    connector = Connector(answer)
    for _ in range(2):
        with pytest.raises(UploadRetryError, match="hm"):
            await connector.upload_data(database)
    with pytest.raises(UploadRetryError, match="hm"):
        await connector.upload_data(database)  # the third time it is rejected, and the next one begins
    assert tried == ["a", "a", "a", "b"]
    assert [rejected.crud[0].id for rejected in await database.rejected_writes()] == ["a"]
    assert await waiting(database) == ["b"]


async def test_a_shorter_answer_brings_the_rest_again(database: PowerSyncDatabase) -> None:
    for name in "abc":
        await database.execute(INSERT, [name, name])
    asked: list[list[str]] = []

    def answer(transactions: Sequence[CrudTransaction]) -> list[Verdict]:
        asked.append(names(transactions))
        return [Accepted()]

    await Connector(answer).upload_data(database)
    assert asked == [["a", "b", "c"], ["b", "c"], ["c"]]


@pytest.mark.parametrize("verdicts", [[], [Accepted(), Accepted()]])
async def test_too_many_verdicts_or_none_are_the_connectors_mistake(
    database: PowerSyncDatabase, verdicts: list[Verdict]
) -> None:
    await database.execute(INSERT, ["a", "A"])
    with pytest.raises(ConnectorError, match="verdicts for 1 transactions"):
        await Connector(lambda _: verdicts).upload_data(database)
    assert await waiting(database) == ["a"]


async def test_a_custom_checkpoint_of_the_last_accepted_one_counts(database: PowerSyncDatabase) -> None:
    await database.execute(INSERT, ["a", "A"])
    await Connector(lambda _: [Accepted(checkpoint=7)]).upload_data(database)
    assert await inside.read(database, upload_queue.target) == 7


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Accepted()),
        (204, Accepted()),
        (302, Retry("why", 2.0)),
        (400, Rejected("why", "400", 1, final=False)),
        (401, Retry("why", 2.0, renew_credentials=True)),
        (403, Rejected("why", "403", 1, final=False)),
        (404, Rejected("why", "404", 1, final=False)),
        (408, Retry("why", 2.0)),
        (409, Rejected("why", "409", 1, final=False)),
        (413, Rejected("why", "413", 1, final=False)),
        (422, Rejected("why", "422", 1, final=False)),
        (425, Retry("why", 2.0)),
        (429, Retry("why", 2.0)),
        (500, Retry("why", 2.0)),
        (503, Retry("why", 2.0)),
    ],
)
def test_how_http_answers_are_read(status: int, expected: Verdict) -> None:
    assert verdict_for_status(status, "why", operation_index=1, retry_after=2.0) == expected
    assert verdict_for_status(422, code="23502") == Rejected(
        "The backend answered HTTP 422.", "23502", None, final=False
    )


# What the service would do


async def published(
    database: PowerSyncDatabase, row_id: str, data: dict[str, Any], *, bucket: int = 1, op_id: int = 1
) -> None:
    """A row that the service has sent."""

    def take(statements) -> None:
        statements.execute(
            "INSERT INTO ps_buckets(id, name, last_op, last_applied_op, op_checksum) VALUES (?, ?, ?, ?, 5)",
            (bucket, f"b{bucket}", op_id, op_id),
        )
        statements.execute(
            "INSERT INTO ps_oplog(bucket, op_id, row_type, row_id, key, data, hash)"
            " VALUES (?, ?, 'lists', ?, 'k', ?, 5)",
            (bucket, op_id, row_id, json.dumps(data)),
        )
        statements.execute("INSERT OR REPLACE INTO ps_data__lists(id, data) VALUES (?, ?)", (row_id, json.dumps(data)))

    await inside.write(database, take)


async def acknowledged(database: PowerSyncDatabase) -> None:
    """A complete checkpoint that includes all uploads."""
    from sync.protocol.checkpoints import TrackedCheckpoint
    from sync.protocol.lines import BucketChecksum

    def take(statements) -> None:
        last_ever = upload_queue.queue_state(statements).last_ever
        request = upload_queue.next_checkpoint_request_id(statements)
        assert upload_queue.set_target(statements, request, last_ever)
        present = oplog.bucket_positions(statements)
        buckets = {name: BucketChecksum(name, 5) for name in present}
        result = publish.publish(statements, TrackedCheckpoint(1, request, buckets, ()), None)
        assert result.outcome is publish.Outcome.PUBLISHED

    await inside.write(database, take)


async def test_a_rejection_of_what_no_longer_waits_changes_nothing(database: PowerSyncDatabase) -> None:
    def nothing(statements):
        return rejected_writes.reject(statements, 1, 5, Rejection("no"))

    assert await inside.write(database, nothing) is None
    assert await database.rejected_writes() == []
