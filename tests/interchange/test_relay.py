"""One file that goes from client to client, with local writes waiting in it each time.

Beside it stands a file that only PowerSync's core ever touched, and to which the same happened: after every step both
must hold the same.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest

from sync import PowerSyncDatabase, Schema, SyncOptions
from tests.interchange.core import Core
from tests.interchange.rig import Transcript, checkpoint_after, feed, prepare, prepare_core, query_of, until_same
from tests.kit.contents import contents
from tests.sync.rig import SCHEMA, ServiceConnector, rows, within

ONLY_LISTS = Schema([table for table in SCHEMA.tables if table.name == "lists"])

RELAYED = ["lifecycle", "priorities", "removed-buckets", "cascade-delete"]

OPTIONS = {"crud_throttle": 0, "retry_delay": 60, "max_retry_delay": 60}


class Leg:
    """What happens while one client has the file: local writes, a checkpoint, the upload, the next checkpoint."""

    def __init__(self, transcript: Transcript, number: int) -> None:
        self.number = number
        begin = transcript.complete_stops[number - 1] if number else 0
        self.held_back = transcript.lines[begin : transcript.complete_stops[number]]
        if number:
            self.held_back.insert(0, json.dumps({"checkpoint": checkpoint_after(transcript.lines[:begin])}))
        now = checkpoint_after(transcript.lines[: transcript.complete_stops[number]])
        # The service has seen the upload: the same checkpoint again, with the id of the request for it.
        acknowledged = {"last_op_id": now["last_op_id"], "updated_buckets": [], "removed_buckets": []}
        self.published = [
            json.dumps({"checkpoint_diff": {**acknowledged, "write_checkpoint": str(self.checkpoint_request)}}),
            json.dumps({"checkpoint_complete": {"last_op_id": now["last_op_id"]}}),
        ]
        # Ids that the transcript has are changed as well as new ones.
        self.writes = [
            [
                (f"INSERT INTO lists(id, name) VALUES ('{number}', 'It''s {number} ☃')", ()),
                ("UPDATE lists SET name = name || ?, owner_id = NULL", (f" {number}",)),
            ],
            [("DELETE FROM todos WHERE id = (SELECT min(id) FROM todos)", ())],
            [
                ("INSERT INTO todos(id, list_id, completed) VALUES (?, ?, ?)", (f"t{number}", "1", 2**62 + number)),
                ("UPDATE todos SET description = ? WHERE completed = 0", ('{"json": [1.50]}',)),
            ],
        ]

    @property
    def checkpoint_request(self) -> int:
        return self.number + 1

    async def of_engine(self, path: Path, control: Core, transcript: Transcript) -> None:
        """Run the leg on this engine, and the same on the control."""
        async with PowerSyncDatabase(path, SCHEMA) as database, feed() as source:
            await until_same(path, contents(control.execute))
            if self.number == 0:
                await prepare(database, transcript)
            for statements in self.writes:
                async with database.write_transaction() as transaction:
                    for sql, parameters in statements:
                        await transaction.execute(sql, parameters)
            answered = asyncio.Event()

            async def upload(database: PowerSyncDatabase) -> None:
                await answered.wait()
                async for transaction in database.crud_transactions():
                    await transaction.complete(self.checkpoint_request)

            control_steps = self.steps_of_core(control, transcript)
            next(control_steps)
            options = SyncOptions(**OPTIONS, include_default_streams=transcript.include_defaults)
            await until_same(path, contents(control.execute))
            await database.connect(ServiceConnector(source.url, upload), options)
            next(control_steps)
            await source.send(self.held_back)
            await until_same(path, contents(control.execute))
            next(control_steps)
            answered.set()
            await until_same(path, contents(control.execute))
            next(control_steps)
            await source.send(self.published)
            await until_same(path, contents(control.execute))
            for name in ("lists", "todos"):
                assert await rows(database, f"SELECT * FROM {name} ORDER BY id") == control.execute(
                    f"SELECT * FROM {name} ORDER BY id"
                )
            await database.disconnect()
            next(control_steps, None)

    def steps_of_core(self, core: Core, transcript: Transcript):
        """Run the leg on a core, one step at a time."""
        if self.number == 0:
            prepare_core(core, transcript)
        for statements in self.writes:
            with core.transaction():
                for sql, parameters in statements:
                    core.execute(sql, parameters)
        yield
        core.start(include_defaults=transcript.include_defaults)
        core.lines(self.held_back)
        yield
        core.complete_upload(self.checkpoint_request)
        yield
        core.lines(self.published)
        yield
        core.control("stop")

    async def of_core(self, path: Path, control: Core, transcript: Transcript) -> None:
        """Run the leg on the core, and the same on the control."""
        with Core(path) as core:
            core.open(SCHEMA)
            assert contents(core.execute) == contents(control.execute)
            control_steps = self.steps_of_core(control, transcript)
            for _ in self.steps_of_core(core, transcript):
                next(control_steps)
                assert contents(core.execute) == contents(control.execute)
            next(control_steps, None)


@pytest.mark.parametrize("begins", ["engine", "core"])
@pytest.mark.parametrize("name", RELAYED)
async def test_a_file_goes_to_and_fro(name: str, begins: str, tmp_path: Path) -> None:
    transcript = Transcript.load(name)
    path = tmp_path / "relayed.db"
    with Core(tmp_path / "control.db") as control:
        control.open(SCHEMA)
        for number in range(len(transcript.complete_stops)):
            leg = Leg(transcript, number)
            if (number % 2 == 0) == (begins == "engine"):
                await leg.of_engine(path, control, transcript)
            else:
                await leg.of_core(path, control, transcript)
        assert contents(query_of(path)) == contents(control.execute)
        assert control.value("SELECT count(*) FROM ps_crud") == 0


async def test_the_core_reads_the_queue_and_rows_without_a_table(tmp_path: Path) -> None:
    """Born here, with a schema that does not know all tables; every value is told as it was written."""
    path = tmp_path / "ours.db"
    transcript = Transcript.load("lifecycle")
    async with PowerSyncDatabase(path, ONLY_LISTS) as database, feed() as source:
        await prepare(database, transcript)
        await database.connect(ServiceConnector(source.url), SyncOptions(**OPTIONS))
        await source.send(transcript.lines[: transcript.complete_stops[0]])
        await within(10, database.wait_for_first_sync())
        await database.disconnect()
        async with database.write_transaction() as transaction:
            await transaction.execute("INSERT INTO lists(id, name) VALUES ('new', 'a ''b'' ☃')")
            await transaction.execute("UPDATE lists SET owner_id = 'me' WHERE id = 'new'")
        await database.execute("DELETE FROM lists WHERE id = 'new'")
        lists = await rows(database, "SELECT * FROM lists ORDER BY id")
        untyped = await rows(database, "SELECT id, data FROM ps_untyped WHERE type = 'todos' ORDER BY id")
        queue = [entry async for transaction in database.crud_transactions() for entry in transaction.crud]
        client_id = (await rows(database, "SELECT value FROM ps_kv WHERE key = 'client_id'"))[0][0]
    assert untyped
    before = contents(query_of(path))
    with Core(path) as core:
        core.open(ONLY_LISTS)
        assert contents(core.execute) == before
        assert core.value("SELECT powersync_client_id()") == client_id
        assert core.execute("SELECT * FROM lists ORDER BY id") == lists
        found = [
            (number, transaction, json.loads(data))
            for number, transaction, data in core.execute("SELECT id, tx_id, data FROM ps_crud ORDER BY id")
        ]
        assert [(e.client_id, e.transaction_id, e.op, e.table, e.id, e.data) for e in queue] == [
            (n, t, d["op"], d["type"], d["id"], d.get("data")) for n, t, d in found
        ]
        assert [d["op"] for _, _, d in found] == ["PUT", "PATCH", "DELETE"]
        assert [t for _, t, _ in found] == [found[0][1]] * 2 + [found[0][1] + 1]
        core.open(SCHEMA)
        assert core.execute("SELECT id, data FROM ps_data__todos ORDER BY id") == untyped
        assert core.execute("SELECT * FROM ps_untyped") == []
        core.execute("UPDATE todos SET completed = 1 WHERE id = ?", [untyped[0][0]])
        request = core.start()
        assert request["buckets"] == [
            {"name": name, "after": str(last_op)}
            for name, last_op in core.execute("SELECT name, last_op FROM ps_buckets ORDER BY name")
        ]
        core.control("stop")
        after = contents(core.execute)
        todos = core.execute("SELECT * FROM todos ORDER BY id")
    async with PowerSyncDatabase(path, SCHEMA) as database:
        assert contents(query_of(path)) == after
        assert await rows(database, "SELECT * FROM todos ORDER BY id") == todos
        transactions = [transaction async for transaction in database.crud_transactions()]
        assert [[entry.op for entry in transaction.crud] for transaction in transactions] == [
            ["PUT", "PATCH"],
            ["DELETE"],
            ["PATCH"],
        ]
        assert transactions[-1].crud[0].data == {"completed": 1}
        assert database.status.has_synced
        assert database.status.upload_queue_count == 4


@pytest.mark.parametrize("clears", [True, False])
async def test_what_a_user_wrote_goes_when_another_client_clears_the_file(clears: bool, tmp_path: Path) -> None:
    """Also what stands in tables that only this engine knows; the file goes to another user then."""
    path = tmp_path / "shared.db"
    async with PowerSyncDatabase(path, SCHEMA) as database:
        await database.execute("INSERT INTO lists(id, name) VALUES ('refused', 'private')")
        await database.execute("INSERT INTO lists(id, name) VALUES ('accepted', 'private')")
        refused, accepted = await database.crud_transaction_batch()
        await refused.reject("no")
        await accepted.complete()
    with Core(path) as core:
        core.open(SCHEMA)
        if clears:
            with core.transaction():
                core.execute("SELECT powersync_clear(1)")
        core.execute("INSERT INTO lists(id, name) VALUES ('new', 'of the next user')")
    async with PowerSyncDatabase(path, SCHEMA) as database:
        kept = [write.crud[0].id for write in await database.rejected_writes()]
        assert kept == ([] if clears else ["refused"])
        uploaded = await rows(database, "SELECT json_extract(data, '$.id') FROM ps_uploaded")
        assert uploaded == ([] if clears else [["accepted"]])
        assert [entry.id async for transaction in database.crud_transactions() for entry in transaction.crud] == ["new"]


async def test_a_subscription_is_the_same_in_both(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    parameters = {"list": "ü", "numbers": [1, None]}
    async with PowerSyncDatabase(path, SCHEMA) as database:
        await database.sync_stream("todos", parameters).subscribe(ttl=timedelta(minutes=1), priority=2)
    with Core(path) as core:
        core.open(SCHEMA)
        core.subscribe("todos", parameters, 120, 2)
        core.subscribe("lists", None, 120, None)
        wanted = core.start()["streams"]["subscriptions"]
        core.control("stop")
    async with PowerSyncDatabase(path, SCHEMA) as database, feed() as source:
        await database.sync_stream("todos", parameters).subscribe(ttl=timedelta(minutes=3), priority=2)
        await database.sync_stream("lists").subscribe(ttl=timedelta(minutes=3))
        columns = "stream_name, json(local_params), local_priority, ttl"
        assert await rows(database, f"SELECT {columns} FROM ps_stream_subscriptions") == [
            ["todos", '{"list":"ü","numbers":[1,null]}', 2, 180],
            ["lists", "null", None, 180],
        ]
        await database.connect(ServiceConnector(source.url), SyncOptions(**OPTIONS))
        await within(10, source.connected.wait())
        assert source.exchanges[0].json["streams"]["subscriptions"] == wanted
        await database.disconnect()
