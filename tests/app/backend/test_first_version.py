"""A database of the backend's first version: its rows go on, its buckets are filled anew, its op ids go on counting."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from app.backend import BackendConfig

from .harness import Replica, put, running, signed_in, todos_of

FIRST_VERSION = """
CREATE TABLE meta (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) STRICT;
CREATE TABLE lists (id TEXT PRIMARY KEY NOT NULL, created_at TEXT, name TEXT NOT NULL, owner_id TEXT NOT NULL) STRICT;
CREATE TABLE todos (
    id TEXT PRIMARY KEY NOT NULL, created_at TEXT, completed_at TEXT, description TEXT NOT NULL, completed INTEGER,
    created_by TEXT, completed_by TEXT, list_id TEXT NOT NULL
) STRICT;
CREATE INDEX todos_by_list ON todos (list_id);
CREATE TABLE write_checkpoints (
    user_id TEXT NOT NULL, client_id TEXT NOT NULL, checkpoint INTEGER NOT NULL, requests INTEGER NOT NULL,
    PRIMARY KEY (user_id, client_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE buckets (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, checksum INTEGER NOT NULL DEFAULT 0,
    count INTEGER NOT NULL DEFAULT 0, last_op INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE bucket_ops (
    op_id INTEGER PRIMARY KEY AUTOINCREMENT, bucket INTEGER NOT NULL REFERENCES buckets (id), op TEXT NOT NULL,
    object_type TEXT NOT NULL, object_id TEXT NOT NULL, subkey TEXT NOT NULL, checksum INTEGER NOT NULL, data TEXT
) STRICT;
CREATE INDEX bucket_ops_by_bucket ON bucket_ops (bucket, op_id);
INSERT INTO meta VALUES ('backend_id', '01234567-89ab-4def-8123-456789abcdef');
INSERT INTO lists VALUES ('l', NULL, 'N', 'ann');
INSERT INTO todos (id, description, list_id) VALUES ('t', 'D', 'l');
INSERT INTO write_checkpoints VALUES ('ann', 'client', 7, 1);
INSERT INTO buckets VALUES (1, '0123456789ab4def#lists|0["ann"]', 5, 1, 41);
INSERT INTO bucket_ops VALUES (41, 1, 'PUT', 'lists', 'l', 's', 5, '{"id":"l","name":"N"}');
PRAGMA application_id = 0x746F646F;
PRAGMA user_version = 1;
"""


async def test_a_database_of_the_first_version_goes_on(config: BackendConfig) -> None:
    config.database.parent.mkdir()
    with closing(sqlite3.connect(config.database)) as connection:
        connection.executescript(FIRST_VERSION)
    for _ in range(2):
        async with running(config) as url, signed_in(url, "ann") as ann:
            replica = Replica()
            old = [{"name": '0123456789ab4def#lists|0["ann"]', "after": "41"}]
            async with ann.stream(todos_of("l"), buckets=old) as lines:
                await replica.take_checkpoint(lines)
                assert replica.last_op_id > 41
                assert old[0]["name"] not in replica.target
                assert (set(replica.rows("lists")), set(replica.rows("todos"))) == ({"l"}, {"t"})
                assert replica.write_checkpoint == 7
                await ann.write(put("todos", "u", description="D", list_id="l"))
                await replica.take_checkpoint(lines)
                assert set(replica.rows("todos")) == {"t", "u"}
            await ann.write({"op": "DELETE", "table": "todos", "id": "u"})
