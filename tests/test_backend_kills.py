"""The backend is killed again and again amid random writes: none that it acknowledged is lost, and all clients agree.

`BACKEND_WRITES=1000` makes as many writes; the everyday number is small.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import uuid
from contextlib import closing, suppress
from pathlib import Path

import httpx

from app import todo_text
from tests.test_end_to_end import BackendProcess, Client, backend_process, is_settled

WRITES = int(os.environ.get("BACKEND_WRITES", "120"))
KILLS = max(3, WRITES // 50)
SECONDS = 300 + WRITES


async def write_at_random(client: Client, chance: random.Random, count: int, list_ids: list[str]) -> None:
    """Add, change, complete, move and delete as a user would, one after the other."""
    for number in range(count):
        todos = [row["id"] for row in await client.database.get_all("SELECT id FROM todos ORDER BY id")]
        some = chance.sample(todos, min(len(todos), chance.randint(1, 3)))
        match chance.randrange(6):
            case 0 | 1:
                await client.store.edit.add_todos(chance.choice(list_ids), [f"Number {number}", f"Other {number} p1"])
            case 2 if some:
                await client.store.edit.change_texts(some, lambda text: todo_text.add_tag(text, "x"))
            case 3 if some:
                await client.store.edit.set_completed(some, completed=chance.random() < 0.5)
            case 4 if some:
                await client.store.edit.move_todos(some, chance.choice(list_ids))
            case _:
                await client.store.edit.delete_todos(some[:1])
        await asyncio.sleep(chance.random() * 0.01)


async def write_directly(backend: BackendProcess, list_id: str, count: int, acknowledged: set[str]) -> None:
    """Rows of another user's, each sent until it is acknowledged or not: an answer that is lost proves nothing."""
    async with httpx.AsyncClient(timeout=5) as http:
        token = ""
        for _ in range(count):
            row_id = str(uuid.uuid4())
            entries = [
                {"op": "PUT", "table": "lists", "id": list_id, "data": {"name": "Direct"}},
                {"op": "PUT", "table": "todos", "id": row_id, "data": {"list_id": list_id, "description": "x"}},
            ]
            while row_id not in acknowledged:
                with suppress(httpx.HTTPError):
                    if not token:
                        answer = await http.get(f"{backend.url}/api/auth/token", params={"user_id": "direct"})
                        token = answer.json()["token"]
                    headers = {"Authorization": f"Token {token}"}
                    answer = await http.post(f"{backend.url}/api/data", json={"batch": entries}, headers=headers)
                    assert answer.status_code in {200, 503}, answer.text
                    if answer.status_code == 200:
                        acknowledged.add(row_id)
                await asyncio.sleep(0.005)


async def test_nothing_that_was_acknowledged_is_lost_and_all_agree(tmp_path: Path) -> None:
    chance = random.Random(11)
    acknowledged: set[str] = set()
    async with (
        asyncio.timeout(SECONDS),
        backend_process(tmp_path / "backend.db") as backend,
        Client(tmp_path / "one.db", backend) as one,
        Client(tmp_path / "two.db", backend) as two,
    ):
        list_ids = [await one.store.edit.add_list("Home"), await one.store.edit.add_list("Work")]
        await two.until_lists(lambda lists: len(lists) == 2)

        async def kill_again_and_again(writing: list[asyncio.Task[None]]) -> int:
            kills = 0
            while kills < KILLS or not all(task.done() for task in writing):
                await asyncio.sleep(0.1 + 0.4 * chance.random())
                await backend.kill()
                kills += 1
                await backend.start()
            return kills

        async with asyncio.TaskGroup() as group:
            writing = [
                group.create_task(write_at_random(client, random.Random(seed), WRITES // 3, list_ids))
                for seed, client in enumerate((one, two))
            ]
            writing.append(group.create_task(write_directly(backend, str(uuid.uuid4()), WRITES // 3, acknowledged)))
            killing = group.create_task(kill_again_and_again(writing))
        for client in (one, two):
            await client.until_status(is_settled, SECONDS)
        while await one.everything() != await two.everything():
            await asyncio.sleep(0.05)
        agreed = await one.everything()
        assert killing.result() >= KILLS
        await backend.kill()
        with closing(sqlite3.connect(tmp_path / "backend.db")) as connection:
            stored = {row[0] for row in connection.execute("SELECT id FROM todos")}
            assert acknowledged <= stored
            theirs = {row[0] for row in connection.execute("SELECT id FROM todos WHERE list_id IN (?, ?)", list_ids)}
        assert len(acknowledged) == WRITES // 3
        assert {row[0] for row in agreed} >= {*list_ids, *theirs}
        assert len(agreed) == len(list_ids) + len(theirs)
