"""Records `tests/fixtures/exchanges` from a real backend: `python -m tests.kit.record_exchanges --help`.

Stands between the connector and the backend, and writes down what passes. Of an answer only that reaches the connector
which is written down, so that replaying it is the same for the connector.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, get_args

import httpx

from app.connection.connector import HttpConnector
from app.connection.upload_interfaces import UploadInterfaceName
from sync import PowerSyncDatabase
from tests.kit.exchanges import DIRECTORY, OTHER_INTERFACES, SCENARIOS, SCHEMA, World, recorded_request, two_lists
from tests.kit.service import Exchange, scripted_service

LONGEST_TEXT = 400


def main() -> None:
    parser = argparse.ArgumentParser(description="Record what a backend answers to the demo connector.")
    parser.add_argument("name", help="of the recording")
    parser.add_argument("--interface", choices=get_args(UploadInterfaceName), required=True)
    parser.add_argument("--backend", help="the backend and its version, in words", required=True)
    parser.add_argument("--url", help="of the backend; without one, answers are made after the specification")
    parser.add_argument("--user-id", required=True)
    parser.add_argument("--stop-database", help="shell command", default="true")
    parser.add_argument("--start-database", help="shell command", default="true")
    asyncio.run(record(parser.parse_args()))


async def record(arguments: argparse.Namespace) -> None:
    specified = Specified()
    scenarios: dict[str, Any] = {}

    async def shell(command: str, *, works: bool) -> None:
        specified.works = works
        process = await asyncio.create_subprocess_shell(command)
        if await process.wait():
            raise SystemExit(f"{command} failed")

    interfaces = dict.fromkeys(SCENARIOS, arguments.interface)
    if arguments.url:
        interfaces |= {name: other for name, other in OTHER_INTERFACES.items() if other != arguments.interface}
    async with httpx.AsyncClient(timeout=60) as client:
        for name, interface in interfaces.items():
            answer = _forwarding(client, arguments.url) if arguments.url else specified.answer
            recorder = Recorder(answer, arguments.user_id, loses_answers=name == "lost_answers")
            async with scripted_service(recorder.handle) as service:
                connector = HttpConnector(service.url, arguments.user_id, interface=interface)
                with tempfile.TemporaryDirectory() as directory:
                    async with PowerSyncDatabase(Path(directory) / "todo.db", SCHEMA) as database:
                        world = World(
                            database,
                            connector,
                            arguments.user_id,
                            lambda: shell(arguments.stop_database, works=False),
                            lambda: shell(arguments.start_database, works=True),
                        )
                        await SCENARIOS.get(name, two_lists)(world)
                        waiting, rejected = await world.waiting(), await world.rejected()
                await connector.aclose()
            print(name, len(recorder.exchanges), "waiting", waiting, "rejected", rejected, *world.troubles, sep="\n  ")
            scenarios[name] = recorder.exchanges
    recording = {"backend": arguments.backend, "user_id": arguments.user_id, "scenarios": scenarios}
    text = json.dumps(recording, indent=1, ensure_ascii=False)
    (DIRECTORY / f"{arguments.name}.json").write_text(text + "\n", "utf-8")


Answerer = Callable[[Exchange], Awaitable[dict[str, Any]]]


class Recorder:
    """Writes down exchanges, and may lose the first answer to each upload."""

    def __init__(self, answer: Answerer, user_id: str, *, loses_answers: bool) -> None:
        self.exchanges: list[dict[str, Any]] = []
        self._answer = answer
        self._user_id = user_id
        self._loses_answers = loses_answers
        self._known: set[tuple[str, bytes]] = set()

    async def handle(self, exchange: Exchange) -> None:
        answer = await self._answer(exchange)
        if isinstance(answer.get("json"), dict) and "token" in answer["json"]:
            answer["json"]["token"] = _token_without_signature(answer["json"]["token"], self._user_id)
        key = (exchange.method, exchange.body)
        if self._loses_answers and exchange.body and key not in self._known:
            self._known.add(key)
            answer["lost"] = True
        self.exchanges.append({"request": recorded_request(exchange), "answer": answer})
        await give(exchange, answer)


async def give(exchange: Exchange, answer: dict[str, Any]) -> None:
    """Give a recorded answer."""
    if answer.get("lost"):
        exchange.drop()
        return
    payload = json.dumps(answer["json"]) if "json" in answer else answer["text"]
    await exchange.answer_bytes(answer["status"], payload.encode(), answer["content_type"])


def _forwarding(client: httpx.AsyncClient, url: str) -> Answerer:
    async def forward(exchange: Exchange) -> dict[str, Any]:
        names = ("accept", "authorization", "content-type")
        headers = {name: exchange.headers[name] for name in names if name in exchange.headers}
        response = await client.request(exchange.method, url + exchange.target, content=exchange.body, headers=headers)
        answer: dict[str, Any] = {
            "status": response.status_code,
            "content_type": response.headers.get("content-type", ""),
        }
        if "retry-after" in response.headers:
            raise SystemExit("The answer has a header that recordings do not hold.")
        if "json" in answer["content_type"]:
            return {**answer, "json": response.json()}
        # What follows on error pages are paths, settings and headers of the machine on which it was recorded.
        return {**answer, "text": re.split(r"\n\n|<br>", response.text)[0][:LONGEST_TEXT]}

    return forward


def _token_without_signature(token: str, user_id: str) -> str:
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    subject = {"sub": claims.get("sub", user_id)}
    header, payload = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, subject)
    )
    return f"{header}.{payload}.signature"


class Specified:
    """What the reference write API is specified to answer, in place of a server."""

    works = True

    async def answer(self, exchange: Exchange) -> dict[str, Any]:
        content_type = "application/json"
        if exchange.method == "GET":
            return {"status": 200, "content_type": content_type, "json": {"token": "e30.e30.signature"}}
        results: list[dict[str, Any]] = []
        for transaction in exchange.json["transactions"]:
            if results and results[-1]["status"] != "success":
                results.append({"status": "not_attempted"})
            else:
                results.append(self._result(transaction["crud"]))
        return {"status": 200, "content_type": content_type, "json": {"results": results}}

    def _result(self, crud: list[dict[str, Any]]) -> dict[str, Any]:
        if not self.works:
            return {"status": "retryable_error", "message": "The database is away.", "retry_after_ms": 1500}
        for index, operation in enumerate(crud):
            if code := _refusal(operation):
                failed = {"error_code": code, "operation_index": index}
                return {"status": "fatal_error", "requires_client_handling": True, "failed_operation": failed}
        return {"status": "success"}


def _refusal(operation: dict[str, Any]) -> str | None:
    """The code of PostgreSQL for what is wrong with an operation."""
    data = operation.get("op_data", {})
    if operation["table"] == "notes":
        return "42P01"
    if "colour" in data:
        return "42703"
    if " " in operation["id"]:
        return "22P02"
    return "23502" if operation["op"] == "PUT" and operation["table"] == "lists" and "owner_id" not in data else None


if __name__ == "__main__":
    main()
