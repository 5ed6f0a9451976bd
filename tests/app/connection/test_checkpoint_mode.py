"""Checkpoints that the backend gives instead of the service (`checkpoint_mode = "backend"`)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.connection.connector import BackendRefusedError, HttpConnector
from app.store.schema import APP_SCHEMA
from sync import PowerSyncDatabase, SyncOptions
from tests.app.backend.harness import BackendConfig, put, running, signed_in
from tests.kit.service import Exchange, scripted_service

QUICK = SyncOptions(retry_delay=0.05, max_retry_delay=0.1)


async def test_what_was_uploaded_comes_back_with_the_backends_checkpoint(tmp_path: Path) -> None:
    config = BackendConfig(tmp_path / "backend.db", port=0, open_to_all=True)
    async with (
        running(config) as url,
        signed_in(url, "ann") as ann,
        PowerSyncDatabase(tmp_path / "todo.db", APP_SCHEMA) as database,
    ):
        connector = HttpConnector(url, "ann", checkpoints_by_backend=True)
        await database.connect(connector, QUICK)
        lists = database.watch("SELECT name FROM lists ORDER BY name", throttle=0)
        async with asyncio.timeout(20):
            for name in ("A", "B"):
                await database.execute("INSERT INTO lists(id, name) VALUES (uuid(), ?)", [name])
                async for status in database.watch_status():
                    if not status.upload_queue_count:
                        break
            await ann.write(put("lists", "c", name="C"))
            async for found in lists:
                if [row["name"] for row in found] == ["A", "B", "C"]:
                    break
            kept = dict(await database.get_all("SELECT key, CAST(value AS INTEGER) FROM ps_kv"))  # type: ignore[arg-type]
            assert kept["target_checkpoint_request_id"] == kept["custom_checkpoint"] > 0
            assert "last_requested_checkpoint_request_id" not in kept, "the service was asked for none"
        await database.disconnect()
        await connector.aclose()


@pytest.mark.parametrize(
    ("code", "answer"), [(404, {}), (200, {}), (200, {"checkpoint": 0}), (200, {"checkpoint": "x"}), (200, [1])]
)
async def test_without_a_checkpoint_nothing_leaves_the_queue(tmp_path: Path, code: int, answer: object) -> None:
    async def backend(exchange: Exchange) -> None:
        match exchange.path:
            case "/api/auth/token":
                await exchange.answer(200, {"token": "a.b.c"})
            case "/api/data":
                await exchange.answer(200, {})
            case _:
                await exchange.answer(code, answer)

    async with scripted_service(backend) as server, PowerSyncDatabase(tmp_path / "todo.db", APP_SCHEMA) as database:
        await database.execute("INSERT INTO lists(id, name) VALUES (uuid(), 'A')")
        connector = HttpConnector(server.url, "ann", checkpoints_by_backend=True)
        with pytest.raises(BackendRefusedError, match="returned no checkpoint; check checkpoint_mode"):
            await connector.upload_data(database)
        assert (await database.upload_queue_stats()).entries == 1
        await connector.aclose()
