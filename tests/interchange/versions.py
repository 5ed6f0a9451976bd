"""Files of old schema versions with data in them, as PowerSync's core makes them.

`python -m tests.interchange.versions` writes them anew to `tests/fixtures/versions`, from where the tests of the
migrations take them; a test here sees that they are still what the core makes.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.interchange.core import Core
from tests.interchange.rig import Transcript, prepare_core
from tests.kit.versions import FIXTURES, VERSIONS, fixture
from tests.sync.rig import SCHEMA

# What only the first clients kept: superseded operations and removals, as part of the checksums.
_HISTORY = (
    """INSERT INTO ps_oplog(bucket, op_id, op, row_type, row_id, key, data, hash, superseded)
    SELECT name, 1, 3, 'todos', 'gone', 'todos/gone/null', '{"description":"Gone"}', 4000000000, 1
    FROM ps_buckets WHERE name LIKE '1#todos%'""",
    """INSERT INTO ps_oplog(bucket, op_id, op, row_type, row_id, key, data, hash, superseded)
    SELECT name, 2, 4, 'todos', 'gone', 'todos/gone/null', NULL, 500000000, 0
    FROM ps_buckets WHERE name LIKE '1#todos%'""",
    "UPDATE ps_buckets SET add_checksum = (add_checksum - 4500000000) & 0xffffffff WHERE name LIKE '1#todos%'",
)
_HISTORY_4 = (
    *_HISTORY,
    "UPDATE ps_buckets SET op_checksum = (op_checksum + 4500000000) & 0xffffffff WHERE name LIKE '1#todos%'",
)

# A row that no bucket holds any more, still visible: with version 5 because the client forgot about it.
_DANGLING = ("""INSERT INTO ps_data__todos(id, data) VALUES ('gone', '{"description":"Gone"}')""",)

_TWICE_SYNCED = ("INSERT INTO ps_sync_state(priority, last_synced_at) VALUES (2147483647, '2022-02-22 22:22:22')",)

# The views of the SDKs of that time call a virtual table that only those SDKs have.
_OLD_VIEWS = (
    """CREATE VIEW "lists"("id", "name") AS
    SELECT id, json_extract(data, '$.name') FROM "ps_data__lists" -- powersync-auto-generated""",
    """CREATE TRIGGER "ps_view_insert_lists" INSTEAD OF INSERT ON "lists" FOR EACH ROW BEGIN
    INSERT INTO powersync_crud_(data) VALUES (json_object('op', 'PUT', 'type', 'lists', 'id', NEW.id)); END""",
)


def _additions(version: int) -> Iterator[str]:
    """What a file of that time has and a newer client's file, brought back to the version, has not."""
    if version < 5:
        yield from _HISTORY_4 if version == 4 else _HISTORY
    if version < 6:
        yield from _DANGLING
    if version == 7:
        yield from _TWICE_SYNCED
    if version < 10:
        yield from _OLD_VIEWS
    if version >= 3:
        yield "UPDATE ps_kv SET value = '00000000-0000-4000-8000-00000000000c' WHERE key = 'client_id'"


def make(path: Path, version: int) -> None:
    """A file of an old version: synced rows, some without a table, writes waiting, subscriptions, a closed gate."""
    transcript = Transcript.load("lifecycle")
    with Core(path) as core:
        core.open(SCHEMA)
        core.execute("PRAGMA journal_mode = DELETE")
        prepare_core(core, transcript)
        core.start()
        core.lines(transcript.lines[: transcript.complete_stops[1]])
        core.control("stop")
        core.execute("INSERT INTO ps_untyped(type, id, data) VALUES ('notes', 'n', '{\"text\":\"No table\"}')")
        with core.transaction():
            core.execute("INSERT INTO lists(id, name) VALUES ('mine', 'Mine ☃')")
            core.execute("UPDATE lists SET name = 'Ours ☃' WHERE id = 'mine'")
        core.execute("DELETE FROM todos WHERE id = (SELECT min(id) FROM todos)")
        core.execute("INSERT INTO ps_kv(key, value) VALUES ('last_seen_checkpoint_request_id', 3)")
        core.execute("INSERT INTO ps_kv(key, value) VALUES ('last_applied_checkpoint_request_id', 2)")
        core.migrate_to(version)
    with closing(sqlite3.connect(path)) as connection, connection:
        for sql in _additions(version):
            connection.execute(sql)


def dump(path: Path) -> str:
    """A file as SQL, the same each time but for the times."""
    with closing(sqlite3.connect(path)) as connection:
        # The comment that ends a view must not take in the semicolon.
        text = "".join(re.sub(r"(-- .*);$", r"\1\n;", sql) + "\n" for sql in connection.iterdump())
    text = re.sub(r"\b1[78]\d{14}\b", "1700000000000000", text)  # µs
    text = re.sub(r"\b1[78]\d{8}\b", "1700000000", text)  # s
    return re.sub(r"'202\d-\d\d-\d\d \d\d:\d\d:\d\d'", "'2023-11-14 22:13:20'", text)


def main() -> None:
    FIXTURES.mkdir(exist_ok=True)
    with TemporaryDirectory() as directory:
        for version in VERSIONS:
            path = Path(directory) / f"{version}.db"
            make(path, version)
            fixture(version).write_text(dump(path))


if __name__ == "__main__":
    main()
