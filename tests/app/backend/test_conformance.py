"""What a real PowerSync Service sent, this backend sends as well: its transcripts are enacted again.

The changes are read off the operations of all transcripts of one recording, made to the rows as rows are changed, and
every line is compared: but for ids, checksums, the subkey and the prefix of a bucket's name, and the column `photo_id`
that the tables of the recording did not have yet. A replica checks that checksums add up.

Three things are not enacted as they were. The lines that tell how long the token lasts come by a quicker clock. The
streams `my_lists` and `done` selected two columns of a list in the recording; a sync config of this backend selects
whole rows, so only these two columns are compared there. And `clear-op` and `clear-op-resume` count 6 operations where
one is left, because the recorded service had cached that number before it compacted; this backend counts the one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from app.backend import BackendConfig
from app.backend.data import checkpoints
from app.backend.http.server import build_app
from app.backend.http.service import Service, compact
from app.backend.rules.tables import LISTS, TODOS

from .harness import WAIT_SECONDS, Lines, Replica, User, signed_in

TRANSCRIPTS = Path(__file__).parents[2] / "fixtures" / "transcripts"
EVERYTHING = """
streams:
  lists: {auto_subscribe: true, query: SELECT * FROM lists}
  todos: {query: "SELECT * FROM todos WHERE list_id = subscription.parameter('list')"}
"""
PRIORITIES = """
streams:
  lists: {auto_subscribe: true, priority: 1, query: SELECT * FROM lists}
  todos: {priority: 2, query: "SELECT * FROM todos WHERE list_id = subscription.parameter('list')"}
  todos_by_list_name:
    query: SELECT * FROM todos WHERE list_id IN (SELECT id FROM lists WHERE name = subscription.parameter('name'))
  my_lists: {query: SELECT * FROM lists WHERE owner_id = auth.user_id()}
  done:
    priority: 0
    queries: [SELECT * FROM lists, SELECT * FROM todos WHERE completed = 1]
"""
OF_PRIORITIES = ("priorities", "priority-override", "removed-buckets")
NAMES = sorted(path.stem for path in TRANSCRIPTS.glob("*.ndjson"))
TABLES = {table.name: table.row_names() for table in (LISTS, TODOS)}
COMPACTED_AFTER = 7038


def lines_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TRANSCRIPTS / f"{name}.ndjson").read_text().splitlines()]


@dataclass
class Change:
    """A row that became what `after` says, in the recording at the op id `at`."""

    at: int
    table: str
    row_id: str
    after: dict[str, Any] | None


def recorded_changes(names: list[str]) -> list[Change]:
    """The changes of rows behind all operations that these transcripts show."""
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for name in names:
        for line in lines_of(name):
            for op in line.get("data", {}).get("data", ()):
                if "object_id" in op:
                    found[int(op["op_id"])] = (line["data"]["bucket"], op)
    changes: list[Change] = []
    buckets: set[str] = set()
    for op_id, (bucket, op) in sorted(found.items()):
        data = None if op["data"] is None else json.loads(op["data"])
        last = changes[-1] if changes else None
        # One change of a row leaves operations in several buckets, one after the other.
        follows = last is not None and last.row_id == op["object_id"] and last.at >= op_id - 2
        is_same = data is None or (last is not None and data.items() <= (last.after or {}).items())
        if last and follows and bucket not in buckets and is_same:
            last.at = op_id
            buckets.add(bucket)
            continue
        changes.append(Change(op_id, op["object_type"], op["object_id"], data))
        buckets = {bucket}
    return changes


RECORDED = recorded_changes([name for name in NAMES if name not in OF_PRIORITIES])
RECORDED_PRIORITIES = recorded_changes(["priorities", "priority-override"])
# In this transcript the names of lists changed, which no operation in it shows.
HOME, WORK = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
RENAMES = [(30, HOME, "Food"), (35, WORK, "Groceries"), (40, HOME, "Groceries"), (45, WORK, "Work")]


@dataclass
class Recording:
    """A backend in which the changes of a recording are made."""

    service: Service
    url: str
    changes: list[Change]
    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict[tuple[str, str], dict[str, Any]])
    done: int = 0
    write_checkpoint: int = 0
    op_ids: dict[int, int] = field(default_factory=dict[int, int])
    """Which op id is here what an op id was in the recording."""

    async def go_to(self, op_id: int, checkpoint: dict[str, Any], *, at_once: bool) -> None:
        """Make the changes up to an op id of the recording, and ask for the write checkpoint that it shows."""
        if self.done < COMPACTED_AFTER < op_id:
            await self.go_to(COMPACTED_AFTER, {}, at_once=False)
            await self.compact()
        these = [change for change in self.changes if self.done < change.at <= op_id]
        wanted = int(checkpoint.get("write_checkpoint", 0))

        def work(connection: sqlite3.Connection, those: list[Change]) -> None:
            for change in those:
                self._make(connection, change)
            if wanted > self.write_checkpoint:
                if wanted == self.write_checkpoint + 1:
                    checkpoints.advance(connection, "user1", "wc-client")
                else:
                    checkpoints.raise_to(connection, "user1", "wc-client", wanted)
                self.write_checkpoint = wanted

        for those in [these] if at_once else [[change] for change in these] + [[]]:
            await self.service.opened.database.write(
                lambda connection, those=those: work(connection, those), user_id="user1"
            )
        self.done = op_id

    def _make(self, connection: sqlite3.Connection, change: Change) -> None:
        columns = TABLES[change.table]
        before = self.rows.pop((change.table, change.row_id), None)
        connection.execute(f"DELETE FROM {change.table} WHERE id = ?", [change.row_id])
        after = None
        if change.after is not None:
            after = {column: change.after.get(column) for column in columns}
            connection.execute(
                f"INSERT INTO {change.table} VALUES ({', '.join('?' * len(columns))})", list(after.values())
            )
            self.rows[change.table, change.row_id] = after
        log = self.service.opened.log
        log.record(connection, change.table, before, after)
        self.op_ids[change.at] = log.last_op_id(connection)

    async def compact(self) -> None:
        def due(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE buckets SET compact_at = 0")

        await self.service.opened.database.write(due, user_id="")
        await compact(self.service.opened.database, forget_lookups_to=0)

    def name(self, bucket: str) -> str:
        return bucket.replace("1#", f"{self.service.opened.log.prefix}#", 1)

    def position(self, after: int) -> int:
        """What an op id of the recording is here."""
        return max((ours for theirs, ours in self.op_ids.items() if theirs <= after), default=0)


@contextlib.asynccontextmanager
async def recording(tmp_path: Path, name: str, **settings: Any) -> AsyncGenerator[Recording]:
    rules = tmp_path / "sync-config.yaml"
    rules.write_text(PRIORITIES if name in OF_PRIORITIES else EVERYTHING)
    config = BackendConfig(
        tmp_path / "backend.db", port=0, sync_config=rules, compact_seconds=3600, **settings, open_to_all=True
    )
    service = Service(config)
    server = uvicorn.Server(uvicorn.Config(build_app(service), port=0, log_config=None, lifespan="on", ws="none"))
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not server.started:
                await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        changes = RECORDED_PRIORITIES if name in OF_PRIORITIES else RECORDED
        yield Recording(service, f"http://127.0.0.1:{port}", list(changes))
    finally:
        service.changes.close()
        server.should_exit = True
        async with asyncio.timeout(WAIT_SECONDS):
            await serving


def comparable(key: str, content: Any) -> Any:
    """A line without what may differ."""
    if key == "token_expires_in":
        return (key, content and "some seconds")
    plain = {name: value for name, value in content.items() if name not in {"last_op_id", "next_after", "after"}}
    if key == "data":
        assert int(content["next_after"]) > int(content["after"])
        plain["bucket"] = plain["bucket"].partition("#")[2]
        plain["starts"] = content["after"] == "0"
        plain["data"] = [
            {
                **{name: value for name, value in op.items() if name not in {"op_id", "checksum", "subkey"}},
                "data": op.get("data") and synced(plain["bucket"], op["object_type"], json.loads(op["data"])),
            }
            for op in content["data"]
        ]
        assert all(("subkey" in op) == ("object_id" in op) for op in content["data"])
    for buckets in ("buckets", "updated_buckets"):
        for bucket in plain.get(buckets, ()):
            bucket["bucket"] = bucket["bucket"].partition("#")[2]
            del bucket["checksum"]
    if "removed_buckets" in plain:
        plain["removed_buckets"] = [name.partition("#")[2] for name in plain["removed_buckets"]]
    return (key, list(content), plain)


def synced(bucket: str, table: str, row: dict[str, Any]) -> dict[str, Any]:
    if table == "lists" and bucket.startswith(("my_lists|", "done|")):
        return {"id": row["id"], "name": row["name"]}
    return {**row, "photo_id": None}


@pytest.mark.parametrize("name", NAMES)
async def test_the_same_changes_give_the_same_lines(tmp_path: Path, name: str) -> None:
    lines = lines_of(name)
    request = json.loads((TRANSCRIPTS / f"{name}.expected.json").read_text())["request"]
    clock = {"keepalive_seconds": 0.3, "token_seconds": 3} if name in {"keepalive", "token-expiry"} else {}
    async with recording(tmp_path, name, **clock) as backend:
        first = lines[0]["checkpoint"]
        await backend.go_to(int(first["last_op_id"]), first, at_once=False)
        if name == "removed-buckets":
            for at, list_id, list_name in RENAMES:
                row = {**backend.rows["lists", list_id], "name": list_name}
                backend.changes.append(Change(at, "lists", list_id, row))
        if name.startswith("clear-op"):
            assert backend.done == 7040
        body = {
            **request,
            "buckets": [
                {"name": backend.name(it["name"]), "after": str(backend.position(int(it["after"])))}
                for it in request["buckets"]
            ],
        }
        async with signed_in(backend.url, "user1") as user, stream(user, body) as taken:
            replica = Replica(is_compacted=True)
            for line in lines:
                ((key, content),) = line.items()
                if key == "checkpoint_diff":
                    if name == "open-during-compaction" and backend.done == COMPACTED_AFTER:
                        await backend.compact()
                    await backend.go_to(int(content["last_op_id"]), content, at_once=True)
                ours = await taken.next()
                while name == "token-expiry" and key == "token_expires_in" and content == 0 != ours[1]:
                    ours = await taken.next()
                if not request["buckets"] and ours[0] != "token_expires_in":
                    replica.take(*json.loads(json.dumps(ours)))
                assert comparable(*counted(name, *ours)) == comparable(*counted(name, key, content))
                if key == "token_expires_in" and content == 0:
                    assert await taken.rest() == []


def counted(name: str, key: str, content: Any) -> tuple[str, Any]:
    if name.startswith("clear-op") and key == "checkpoint":
        (bucket,) = content["buckets"]
        assert bucket.pop("count") in {1, 6}
    return key, content


@contextlib.asynccontextmanager
async def stream(user: User, body: dict[str, Any]) -> AsyncGenerator[Lines]:
    async with user.stream(**{"buckets": [], **body}) as lines:
        yield lines
