"""The examples of docs/uploading.md run, against a backend; and its tables name what there is."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest

import sync
from sync import PowerSyncDatabase
from tests.kit import inside
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import SCHEMA, within
from tests.sync.storage.test_account import token

PAGE = (Path(__file__).parents[1] / "docs" / "uploading.md").read_text()

INSERT = "INSERT INTO lists(id, name) VALUES (?, ?)"


def examples(url: str) -> dict[str, Any]:
    program = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)).replace("https://backend.example", url)
    names: dict[str, Any] = {}
    exec(compile(program, "docs/uploading.md", "exec"), names)
    return names


class Backend:
    """Token, sync service and write endpoint; refuses long names and whatever is called "never"."""

    def __init__(self) -> None:
        self.url = ""
        self.user = "ann"
        self.written: list[str] = []

    async def __call__(self, exchange: Exchange) -> None:
        match exchange.path:
            case "/token":
                await exchange.answer(200, {"service": self.url, "token": token(sub=self.user)})
            case "/write":
                name = exchange.json[0]["data"]["name"]
                if len(name) > 10 or name == "never":
                    await exchange.answer(422, {"why": "too long"})
                else:
                    self.written.append(name)
                    await exchange.answer(200, {})
            case "/sync/stream":
                await exchange.begin_stream()
                await exchange.closed_by_client()
            case _:
                number = exchange.json["checkpoint_request_id"]
                await exchange.answer(200, {"data": {"checkpoint_request_id": number}})


async def test_every_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend = Backend()
    async with (
        scripted_service(backend) as service,
        httpx.AsyncClient(trust_env=False) as client,
        PowerSyncDatabase(tmp_path / "docs.db", SCHEMA) as database,
    ):
        backend.url = service.url
        page = examples(service.url)
        for name in ("first", "far too long for it", "second"):
            await database.execute(INSERT, [name, name])
        connector, plain = page["Connector"](client), page["PlainConnector"](client)
        connector.attempts = 1
        await connector.upload_data(database)
        assert backend.written == ["first", "second"]
        await page["settle"](database)
        assert json.loads(capsys.readouterr().out.partition("}")[2].strip())["crud"][0]["op"] == "PUT"

        await database.execute(INSERT, ["never", "never"])
        await plain.upload_data(database)
        assert backend.written[2:] == ["far too lo"]
        for _ in range(3):
            [rejected] = await database.rejected_writes()
            assert rejected.code == "422"
            await page["settle"](database)
            await plain.upload_data(database)
        assert await database.rejected_writes() == []

        def found(statements) -> None:
            statements.execute(
                "INSERT INTO ps_conflicts(row_type, row_id, column_name, mine, theirs, found_at)"
                """ VALUES ('lists', 'a', 'name', '"x"', '"y"', 0)"""
            )

        await inside.write(database, found)
        capsys.readouterr()
        await page["show_conflicts"](database)
        assert capsys.readouterr().out == "lists a name: x became y\n"
        assert await database.conflicts() == ()

        await database.connect(connector)
        await within(20, database.wait_for_status(lambda status: status.connected))
        await database.disconnect()
        await database.execute(INSERT, ["last", "last"])
        backend.user = "bob"
        bob = page["PlainConnector"](client)

        class Ann(page["Connector"]):
            async def fetch_credentials(self) -> Any:
                backend.user = "ann"
                try:
                    return await super().fetch_credentials()
                finally:
                    backend.user = "bob"

        await within(30, page["hand_over"](database, Ann(client), bob))
        assert backend.written[-1] == "last"
        await within(20, database.wait_for_status(lambda status: status.connected))
        assert await database.get_all("SELECT * FROM lists") == []


def test_the_tables_name_what_there_is() -> None:
    verdicts = re.findall(r"^\| `(\w+)\((.*?)\)`", PAGE.partition("| Verdict")[2].partition("\n\n")[0], re.MULTILINE)
    assert {name for name, _ in verdicts} == {verdict.__name__ for verdict in sync.Verdict.__args__}
    for name, told in verdicts:
        known = {field.name for field in fields(getattr(sync, name))}
        assert set(told.split(", ")) <= known, name
    for name in re.findall(r"^\| `(\w+)\(", PAGE.partition("| Call")[2].partition("\n\n")[0], re.MULTILINE):
        assert hasattr(PowerSyncDatabase, name), name
