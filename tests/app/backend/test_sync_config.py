"""The sync config: what it may say, what it then means, and the sentence for everything else."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.backend import BackendConfig, BackendError
from app.backend.rules.sync_config import DEFAULT, SyncConfigError, load, parse
from app.backend.rules.tables import LISTS, TODOS

from .harness import WAIT_SECONDS, Replica, delete, patch, put, running, signed_in, subscription, todos_of

TABLES = {table.name: table.row_names() for table in (LISTS, TODOS)}
GLOBAL = "bucket_definitions:\n  global:\n    data:\n      - SELECT * FROM lists\n      - SELECT * FROM todos\n"


def stream(query: str) -> str:
    return f"streams:\n  s:\n    query: {query}\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        ("streams: [", 1, "not valid YAML"),
        ("- a", 1, "mapping"),
        ("streams: {}\nbucket_definitions: {}", 1, "either"),
        ("config: {edition: 9}\nstreams: {}", 1, "edition"),
        ("config:\n  edition: 3\nstream: {}", 3, "Unsupported key 'stream'; expected one of: config, streams"),
        ("streams:\n  s:\n    query: SELECT * FROM lists\n    auto: true", 4, "Unsupported key 'auto'"),
        ("streams:\n  s:\n    with: {x: y}\n    query: SELECT * FROM lists", 3, "Unsupported key 'with'"),
        ("streams:\n  s:\n    priority: 4\n    query: SELECT * FROM lists", 3, "from 0 to 3"),
        ("streams:\n  s:\n    auto_subscribe: maybe\n    query: SELECT * FROM lists", 3, "Expected true or false"),
        ("streams:\n  s: {}", 2, "either query or queries"),
        ("streams:\n  s: {query: SELECT * FROM lists}\n  s: {query: SELECT * FROM lists}", 3, "Duplicate key 's'"),
        (stream("SELECT id FROM lists"), 3, "use SELECT *"),
        (stream("SELECT * FROM notes"), 3, "Unknown table 'notes'; expected one of: lists, todos"),
        (stream("SELECT * FROM lists WHERE colour = 'red'"), 3, "Unknown column 'colour' in lists"),
        (stream("SELECT * FROM lists WHERE name > 'a'"), 3, "only = and IN are supported"),
        (stream("SELECT * FROM lists WHERE name LIKE 'a'"), 3, "only = and IN are supported"),
        (stream("SELECT * FROM lists WHERE name = 'a' OR name = 'b'"), 3, "joined by AND"),
        (stream("SELECT * FROM lists WHERE name = auth.jwt()"), 3, "supported values are auth.user_id()"),
        (stream("SELECT * FROM lists WHERE name = bucket.x"), 3, "can only be used in bucket_definitions"),
        (stream("SELECT * FROM lists WHERE id IN auth.user_id()"), 3, "after IN"),
        (stream("SELECT * FROM lists JOIN todos"), 3, "Unexpected 'JOIN'"),
        (stream("SELECT * FROM lists; DROP TABLE lists"), 3, "Unexpected 'DROP'"),
        ("streams:\n  s:\n    query: |\n      SELECT * FROM lists\n      WHERE wrong = 1", 5, "Unknown column 'wrong'"),
        (
            stream("SELECT * FROM todos WHERE list_id IN (SELECT id FROM lists WHERE id IN (SELECT id FROM lists))"),
            3,
            "Only = is supported",
        ),
        ("bucket_definitions:\n  b: {parameters: SELECT request.user_id() AS u}", 2, "needs data"),
        (
            "bucket_definitions:\n  b:\n    parameters: SELECT request.user_id() AS u\n    data: [SELECT * FROM lists]",
            4,
            "bucket.u",
        ),
    ],
    ids=range(27),
)
def test_what_is_not_understood_is_refused_in_a_sentence(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(SyncConfigError) as raised:
        parse(text, TABLES)
    assert words in str(raised.value)
    assert raised.value.line == line
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(BackendError, match=f"rules.yaml, line {line}: "):
        load(path, TABLES)


GUIDE = (Path(__file__).parents[3] / "docs" / "sync-config.md").read_text()


def test_the_examples_of_the_guide_are_understood_and_the_last_is_refused_as_it_says(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    assert len(examples) == 5
    *understood, refused = examples
    assert parse(understood[0], TABLES) == load(DEFAULT, TABLES)
    for example in understood:
        assert parse(example, TABLES).streams
    path = tmp_path / "sync-config.yaml"
    path.write_text(refused)
    with pytest.raises(BackendError) as raised:
        load(path, TABLES)
    assert f"    {str(raised.value).removeprefix(f'{tmp_path}/')}\n" in GUIDE


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="Cannot read"):
        load(tmp_path / "missing.yaml", TABLES)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(BackendError, match="UTF-8"):
        load(tmp_path / "bytes", TABLES)


def test_which_buckets_a_row_is_in_depends_on_the_row_and_the_config_alone() -> None:
    rules = load(DEFAULT, TABLES)
    the_list = {"id": "l", "created_at": None, "name": "N", "owner_id": "ann"}
    todo: dict[str, Any] = {**dict.fromkeys(TODOS.row_names()), "id": "t", "list_id": "l", "completed": 1}
    assert rules.buckets_of("lists", the_list) == ('lists|0["ann"]',)
    assert rules.buckets_of("lists", {**the_list, "owner_id": None}) == ()
    assert rules.buckets_of("todos", todo) == ('todos|0["l"]',)
    done = parse(stream("SELECT * FROM todos WHERE completed = TRUE AND auth.user_id() = created_by"), TABLES)
    assert done.buckets_of("todos", {**todo, "created_by": "ann"}) == ('s|0["ann"]',)
    assert done.buckets_of("todos", {**todo, "created_by": "ann", "completed": 0}) == ()
    assert done.buckets_of("lists", the_list) == ()
    still_open = parse(stream("SELECT * FROM todos WHERE completed = false"), TABLES)
    assert still_open.buckets_of("todos", todo) == ()
    assert still_open.buckets_of("todos", {**todo, "completed": 0}) == ("s|0[]",)


def with_config(config: BackendConfig, text: str) -> BackendConfig:
    config.database.parent.mkdir(exist_ok=True)
    path = config.database.with_name("rules.yaml")
    path.write_text(text)
    return BackendConfig(config.database, port=0, sync_config=path, open_to_all=True)


async def test_whole_database_rules_give_one_global_bucket(config: BackendConfig) -> None:
    async with running(with_config(config, GLOBAL)) as url, signed_in(url, "ann") as ann, signed_in(url, "bob") as bob:
        await ann.write(put("lists", "l", name="N"), put("todos", "t", description="D", list_id="l"))
        replica = await bob.synced()
        ((name, bucket),) = replica.target.items()
        assert name.endswith("#global[]")
        assert (bucket["subscriptions"], replica.streams) == ([{"default": 0}], ["global"])
        assert (set(replica.rows("lists")), set(replica.rows("todos"))) == ({"l"}, {"t"})


async def test_bucket_definitions_with_parameters(config: BackendConfig) -> None:
    text = """
bucket_definitions:
  mine:
    priority: 1
    parameters: SELECT request.user_id() AS user
    data:
      - SELECT * FROM lists WHERE owner_id = bucket.user
  in_list:
    parameters: SELECT id AS list FROM lists WHERE owner_id = token_parameters.user_id
    data:
      - SELECT * FROM todos WHERE todos.list_id = bucket.list
"""
    async with running(with_config(config, text)) as url, signed_in(url, "ann") as ann, signed_in(url, "bob") as bob:
        await ann.write(put("lists", "l", name="N"), put("todos", "t", description="D", list_id="l"))
        replica = Replica()
        async with ann.stream() as lines:
            await replica.take_checkpoint(lines)
            assert [name.partition("#")[2] for name in replica.target] == ['mine["ann"]', 'in_list["l"]']
            assert [bucket["priority"] for bucket in replica.target.values()] == [1, 3]
            await ann.write(put("lists", "m", name="N"), put("todos", "u", description="D", list_id="m"))
            await replica.take_checkpoint(lines)
            assert set(replica.rows("todos")) == {"t", "u"}
            await ann.write(delete("lists", "l"))
            await replica.take_checkpoint(lines)
            assert set(replica.rows("todos")) == {"u"}
            assert len(replica.target) == 2
        assert (await bob.synced()).rows("todos") == {}


async def test_membership_of_a_list_that_the_subscription_gives(config: BackendConfig) -> None:
    text = stream(
        "SELECT * FROM todos WHERE list_id IN subscription.parameter('lists') AND created_by = auth.user_id()"
    )
    async with running(with_config(config, text)) as url, signed_in(url, "ann") as ann:
        await ann.write(*(put("lists", name, name="N") for name in "abc"))
        await ann.write(
            *(put("todos", f"t{it}", description="D", list_id=it, created_by="ann") for it in "abc"),
            put("todos", "other", description="D", list_id="a", created_by="bob"),
        )
        wanted = [subscription("s", {"lists": ["a", "c", "a", None]}), subscription("s", {"lists": "a"})]
        replica = Replica()
        async with ann.stream(wanted) as lines:
            key, checkpoint = await lines.next()
            replica.take(key, checkpoint)
            await replica.take_checkpoint(lines)
        assert set(replica.rows("todos")) == {"ta", "tc"}
        message = "The parameter 'lists' must be a list."
        assert checkpoint["streams"] == [
            {"name": "s", "is_default": False, "errors": [{"subscription": 1, "message": message}]}
        ]


@pytest.mark.parametrize(("value", "found"), [(True, {"done"}), (1.0, {"done"}), (False, {"open"}), ("1", set())])
async def test_a_parameter_is_compared_with_a_column_as_sql_does_it(
    config: BackendConfig, value: Any, found: set[str]
) -> None:
    text = stream("SELECT * FROM todos WHERE completed = subscription.parameter('done')")
    async with running(with_config(config, text)) as url, signed_in(url, "ann") as ann:
        await ann.write(
            put("lists", "l", name="N"),
            put("todos", "done", description="D", list_id="l", completed=1),
            put("todos", "open", description="D", list_id="l", completed=0),
        )
        replica = Replica()
        async with ann.stream([subscription("s", {"done": value})]) as lines:
            await replica.take_checkpoint(lines)
        assert set(replica.rows("todos")) == found


async def test_a_list_appears_when_it_becomes_the_users_and_goes_when_it_is_no_more(config: BackendConfig) -> None:
    """By the config that comes with todo-tui; the client subscribes before the list is there."""
    async with running(config) as url, signed_in(url, "ann") as ann:
        replica = Replica()
        async with ann.stream(todos_of("l")) as lines:
            await replica.take_checkpoint(lines)
            assert len(replica.target) == 1
            await ann.write(put("lists", "l", name="N"), put("todos", "t", description="D", list_id="l"))
            await replica.take_checkpoint(lines)
            assert set(replica.rows("todos")) == {"t"}
            await ann.write(patch("lists", "l", name="M"))
            assert await replica.take_checkpoint(lines) == ["checkpoint_diff", "data", "checkpoint_complete"]
            await ann.write(delete("lists", "l"))
            await replica.take_checkpoint(lines)
            assert len(replica.target) == 1


async def test_a_changed_config_ends_the_streams_and_fills_new_buckets(
    config: BackendConfig, caplog: pytest.LogCaptureFixture
) -> None:
    both = with_config(config, DEFAULT.read_text())
    assert both.sync_config is not None
    async with running(both) as url, signed_in(url, "ann") as ann:
        await ann.write(put("lists", "l", name="N"), put("todos", "t", description="D", list_id="l"))
        old = await ann.synced("l")
        async with ann.stream(todos_of("l")) as lines:
            await lines.checkpoint()
            both.sync_config.write_text("streams: 5")
            async with asyncio.timeout(WAIT_SECONDS):
                while "Failed to reload the sync config; the previous one stays in effect" not in caplog.text:
                    await asyncio.sleep(0.05)
            await ann.write(patch("lists", "l", name="M"))
            assert (await lines.checkpoint())[0][0] == "checkpoint_diff"
            old = await ann.synced("l")
            both.sync_config.write_text(GLOBAL)
            async with asyncio.timeout(WAIT_SECONDS):
                assert [key for key, _ in await lines.rest()] in ([], ["token_expires_in"])
        new = await ann.synced("l", buckets=old.positions())
        assert not set(new.target) & set(old.target)
        assert [name.partition("#")[2] for name in new.target] == ["global[]"]
        assert new.last_op_id > old.last_op_id
        assert (new.rows("lists"), new.rows("todos")) == (old.rows("lists"), old.rows("todos"))
    async with running(both) as url, signed_in(url, "ann") as ann:
        assert set((await ann.synced("l")).target) == set(new.target)


async def test_a_config_with_a_mistake_keeps_the_backend_from_starting(config: BackendConfig) -> None:
    with pytest.raises(BackendError, match=r"rules.yaml, line 1: .*either streams or bucket_definitions"):
        async with running(with_config(config, "config: {}")):
            pass


def command(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "app", "backend", "--open", "--port", "0", *arguments],
        env={**os.environ, "TODO_TUI_DATA_DIR": str(tmp_path / "data"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("how", ["option", "variable"])
async def test_the_command_takes_a_sync_config(tmp_path: Path, how: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(GLOBAL)
    given = ("--sync-config", str(path)) if how == "option" else ()
    environment = {"TODO_TUI_SYNC_CONFIG": str(path)} if how == "variable" else {}
    with command(tmp_path, *given, **environment) as process:
        try:
            assert process.stdout is not None
            url = (await asyncio.to_thread(process.stdout.readline)).strip()
            async with signed_in(url, "ann") as ann:
                assert (await ann.synced()).streams == ["global"]
        finally:
            process.kill()


async def test_the_command_tells_a_mistake_in_the_sync_config_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(stream("SELECT * FROM notes"))
    with command(tmp_path, "--sync-config", str(path)) as process:
        async with asyncio.timeout(3 * WAIT_SECONDS):
            output, errors = await asyncio.to_thread(process.communicate)
    assert (process.returncode, output) == (1, "")
    assert errors.splitlines()[1:] == [
        f"todo-tui: {path}, line 3: Unknown table 'notes'; expected one of: lists, todos."
    ]
