"""Writes of one user are never uploaded as another, whoever connects, in whatever process."""

from __future__ import annotations

import asyncio
import base64
import json
import multiprocessing
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from sync import (
    AccountMismatchError,
    BackendConnector,
    PowerSyncCredentials,
    PowerSyncDatabase,
    SyncStatus,
)
from sync.client.credentials import credentials_user
from sync.storage import account
from tests.kit import inside
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, SCHEMA, within

INSERT = "INSERT INTO lists(id, name) VALUES (?, ?)"
EMPTY = {"checkpoint": {"last_op_id": "1", "buckets": [], "streams": []}}
COMPLETE = {"checkpoint_complete": {"last_op_id": "1"}}


def token(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJh.{payload}.c2ln"


class Service:
    """Sends an empty checkpoint on each stream, confirms uploads, and notes who asked for what."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, str]] = []
        self._stream: Exchange | None = None

    async def warn_of_expiry(self) -> None:
        """Say on the stream that its token is about to expire."""
        assert self._stream is not None
        await self._stream.send_line({"token_expires_in": 5})

    async def __call__(self, exchange: Exchange) -> None:
        self.asked.append((exchange.path, exchange.headers["authorization"].removeprefix("Token ")))
        if exchange.path == "/sync/stream":
            await exchange.begin_stream()
            await exchange.send_line(EMPTY)
            await exchange.send_line(COMPLETE)
            self._stream = exchange
            await exchange.closed_by_client()
        else:
            request_id = exchange.json["checkpoint_request_id"]
            await exchange.answer(200, {"data": {"checkpoint_request_id": request_id}})


class Connector(BackendConnector):
    """Connects as whom the test says, and uploads while it may."""

    def __init__(self, url: str, user: str, *, may_upload: bool = True) -> None:
        self.url = url
        self.user = user
        self.may_upload = may_upload
        self.fetched = 0
        self.uploaded: list[tuple[str, str]] = []

    async def fetch_credentials(self) -> PowerSyncCredentials:
        self.fetched += 1
        return PowerSyncCredentials(self.url, token(sub=self.user))

    async def upload_data(self, database: PowerSyncDatabase) -> None:
        if not self.may_upload:
            raise ConnectionError("no backend")
        async for transaction in database.crud_transactions():
            self.uploaded.append((self.user, transaction.crud[0].id))
            await transaction.complete()


@asynccontextmanager
async def running() -> AsyncGenerator[Service]:
    service = Service()
    async with scripted_service(service) as server:
        service.url = server.url
        yield service


async def until(database: PowerSyncDatabase, wanted: Callable[[SyncStatus], object]) -> SyncStatus:
    return await database.wait_for_status(lambda status: bool(wanted(status)), 10)


async def leave_a_write(database: PowerSyncDatabase, url: str, user: str) -> None:
    """Connect as a user, and go offline with a write that waits."""
    await database.connect(Connector(url, user, may_upload=False), QUICK)
    await database.wait_for_first_sync(10)
    await database.disconnect()
    await database.execute(INSERT, ["a", "A"])


def is_refused(status: SyncStatus) -> bool:
    return isinstance(status.download_error, AccountMismatchError) and isinstance(
        status.upload_error, AccountMismatchError
    )


async def test_another_user_is_refused_while_writes_wait(database: PowerSyncDatabase) -> None:
    async with running() as service:
        await leave_a_write(database, service.url, "ann")
        asked = len(service.asked)
        bob = Connector(service.url, "bob")
        await database.connect(bob, QUICK)
        status = await until(database, is_refused)
        error = status.download_error
        assert isinstance(error, AccountMismatchError)
        assert (error.owner, error.user_id, error.waiting) == ("ann", "bob", 1)
        explanation = str(await database.explain_sync())
        assert (
            explanation.count(
                "1 change(s) of the user ann are waiting for upload or were rejected, and bob is connecting"
            )
            == 1
        )
        # Several attempts later still nothing was sent or received.
        async with asyncio.timeout(10):
            while bob.fetched < 6:
                await asyncio.sleep(0.01)
        assert len(service.asked) == asked
        assert bob.uploaded == []
        assert not database.status.connected
        [transaction] = [each async for each in database.crud_transactions()]
        assert transaction.crud[0].data == {"name": "A"}


async def test_the_first_user_uploads_and_then_the_file_changes_hands(database: PowerSyncDatabase) -> None:
    async with running() as service:
        await leave_a_write(database, service.url, "ann")
        await database.connect(Connector(service.url, "bob"), QUICK)
        await until(database, is_refused)
        ann = Connector(service.url, "ann")
        await database.connect(ann, QUICK)
        await database.wait_for_upload(10)
        assert ann.uploaded == [("ann", "a")]
        await database.disconnect()
        bob = Connector(service.url, "bob")
        await database.connect(bob, QUICK)
        await until(database, lambda status: status.connected and status.upload_error is None)
        await database.execute(INSERT, ["b", "B"])
        await database.wait_for_upload(10)
        assert bob.uploaded == [("bob", "b")]
        assert await inside.read(database, account.owner) == "bob"


async def test_the_connector_may_give_the_right_user_later(database: PowerSyncDatabase) -> None:
    async with running() as service:
        await leave_a_write(database, service.url, "ann")
        connector = Connector(service.url, "bob")
        await database.connect(connector, QUICK)
        await until(database, is_refused)
        connector.user = "ann"
        await database.wait_for_upload(10)
        assert connector.uploaded == [("ann", "a")]
        await until(database, lambda status: status.connected and status.download_error is None)


async def test_rejected_writes_count_as_well(database: PowerSyncDatabase) -> None:
    async with running() as service:
        await leave_a_write(database, service.url, "ann")
        transaction = await database.next_crud_transaction()
        assert transaction is not None
        await transaction.reject("no")
        await database.connect(Connector(service.url, "bob"), QUICK)
        await until(database, lambda status: isinstance(status.download_error, AccountMismatchError))
        [rejected] = await database.rejected_writes()
        await rejected.discard()
        await until(database, lambda status: status.connected and status.download_error is None)


async def test_a_cleared_file_belongs_to_nobody(database: PowerSyncDatabase) -> None:
    async with running() as service:
        await leave_a_write(database, service.url, "ann")
        await database.disconnect_and_clear()
        await database.execute(INSERT, ["before", "b"])
        bob = Connector(service.url, "bob")
        await database.connect(bob, QUICK)
        await database.wait_for_upload(10)
        assert bob.uploaded == [("bob", "before")]
        assert await inside.read(database, account.owner) == "bob"


async def test_a_renewed_token_of_another_user_ends_the_connection(database: PowerSyncDatabase) -> None:
    async with running() as service:
        connector = Connector(service.url, "ann", may_upload=False)
        await database.connect(connector, QUICK)
        await database.wait_for_first_sync(10)
        await database.execute(INSERT, ["a", "A"])
        await until(database, lambda status: isinstance(status.upload_error, ConnectionError))
        connector.user = "bob"
        await service.warn_of_expiry()
        await until(database, is_refused)
        connector.may_upload = True
        fetched = connector.fetched
        async with asyncio.timeout(10):
            while connector.fetched < fetched + 4:
                await asyncio.sleep(0.01)
        assert {asked for _, asked in service.asked} == {token(sub="ann")}
        assert connector.uploaded == []


async def test_what_was_remembered_of_a_users_values_goes_with_them(database: PowerSyncDatabase) -> None:
    async with running() as service:
        await leave_a_write(database, service.url, "ann")
        await database.connect(Connector(service.url, "ann"), QUICK)
        await database.wait_for_upload(10)
        await database.disconnect()

        def found(statements) -> None:
            statements.execute(
                "INSERT INTO ps_conflicts(row_type, row_id, mine, theirs, found_at) VALUES ('lists', 'a', '1', '2', 0)"
            )

        await inside.write(database, found)
        await database.connect(Connector(service.url, "bob"), QUICK)
        await until(database, lambda status: status.connected)
        assert await database.conflicts() == ()


def connect_in_another_process(path: str, url: str, user: str, answers: Any) -> None:
    async def run() -> None:
        async with PowerSyncDatabase(path, SCHEMA) as database:
            await database.connect(Connector(url, user), QUICK)
            status = await until(database, lambda status: status.download_error is not None or status.connected)
            answers.put(type(status.download_error).__name__)

    asyncio.run(run())


async def test_another_process_is_refused_as_well(tmp_path: Path) -> None:
    async with running() as service, PowerSyncDatabase(tmp_path / "test.db", SCHEMA) as database:
        await leave_a_write(database, service.url, "ann")
        asked = len(service.asked)
        context = multiprocessing.get_context("spawn")
        answers = context.Queue()
        other = context.Process(target=connect_in_another_process, args=(database.path, service.url, "bob", answers))
        await asyncio.to_thread(other.start)
        assert await asyncio.to_thread(answers.get, True, 30) == "AccountMismatchError"
        await asyncio.to_thread(other.join, 30)
        assert len(service.asked) == asked
        assert len([each async for each in database.crud_transactions()]) == 1


async def test_an_unknown_user_is_not_checked(database: PowerSyncDatabase) -> None:
    class Nameless(Connector):
        async def fetch_credentials(self) -> PowerSyncCredentials:
            return PowerSyncCredentials(self.url, "opaque")

    async with running() as service:
        await leave_a_write(database, service.url, "ann")
        connector = Nameless(service.url, "?")
        await database.connect(connector, QUICK)
        await database.wait_for_upload(10)
        assert connector.uploaded == [("?", "a")]
        assert await inside.read(database, account.owner) == "ann"


async def test_the_stamp_is_a_key_of_its_own_that_outlives_the_program(database: PowerSyncDatabase) -> None:
    async with running() as service:
        await leave_a_write(database, service.url, "ann")
    await database.close()
    with closing(sqlite3.connect(database.path)) as connection:
        assert connection.execute("SELECT value FROM ps_kv WHERE key = 'user_id'").fetchall() == [("ann",)]


@pytest.mark.parametrize(
    ("given", "user"),
    [
        (token(sub="ann"), "ann"),
        (token(sub=""), None),
        (token(sub=7), None),
        (token(aud="x"), None),
        ("opaque", None),
        ("a.b.c", None),
        ("a." + base64.urlsafe_b64encode(b"[1]").decode() + ".c", None),
    ],
)
def test_who_a_token_says_it_is_for(given: str, user: str | None) -> None:
    assert credentials_user(PowerSyncCredentials("http://127.0.0.1", given)) == user
    assert credentials_user(PowerSyncCredentials("http://127.0.0.1", given, user_id="told")) == "told"


async def test_no_write_leaves_before_the_user_is_known(database: PowerSyncDatabase) -> None:
    class Late(Connector):
        async def fetch_credentials(self) -> PowerSyncCredentials:
            self.fetched += 1
            if self.fetched < 4:
                raise ConnectionError("nobody gives credentials")
            return await super().fetch_credentials()

        async def upload_data(self, database: PowerSyncDatabase) -> None:
            assert self.fetched >= 4
            await super().upload_data(database)

    async with running() as service:
        await database.execute(INSERT, ["a", "A"])
        connector = Late(service.url, "ann")
        await database.connect(connector, QUICK)
        await within(10, database.wait_for_upload())
        assert connector.uploaded == [("ann", "a")]
