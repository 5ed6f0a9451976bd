"""What tests of raw tables share: a bucket that is published step by step, and a file with such tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sync import (
    PendingStatementParameter,
    PowerSyncDatabase,
    RawTable,
    RawTableSchema,
    Schema,
    Table,
)
from sync.protocol import BucketChecksum, DataLine, Operation, TrackedCheckpoint
from sync.sqlite.sql_connection import SqlConnection
from sync.storage import oplog
from sync.storage.oplog import ReceivedData
from sync.storage.publish import Outcome, publish
from tests.kit import inside
from tests.sync.rig import rows

ID = PendingStatementParameter.id()
REST = PendingStatementParameter.rest()
column = PendingStatementParameter.column


class Bucket:
    """The operations of one bucket, published one after the other."""

    def __init__(self, name: str = "b") -> None:
        self.name = name
        self.last_op = 0

    async def publish(self, database: PowerSyncDatabase, *operations: tuple[str, str, Any]) -> Outcome:
        """Take in operations (table, id, data or None for a removal), and publish a complete checkpoint."""

        def receive(connection: SqlConnection) -> Outcome:
            made: list[Operation] = []
            for table, row, data in operations:
                self.last_op += 1
                op = "PUT" if data is not None else "REMOVE"
                text = data if isinstance(data, str) or data is None else json.dumps(data)
                made.append(Operation(self.last_op, op, 0, table, row, "s", text))
            oplog.take_in(connection, [ReceivedData(DataLine(self.name, tuple(made)), 1)])
            checkpoint = TrackedCheckpoint(self.last_op, None, {self.name: BucketChecksum(self.name, 0, 3)}, ())
            return publish(connection, checkpoint, None, database.schema.raw_tables).outcome

        return await inside.write(database, receive)


async def queue(database: PowerSyncDatabase) -> list[dict[str, Any]]:
    return [json.loads(row[0]) for row in await rows(database, "SELECT data FROM ps_crud ORDER BY id")]


def opened(tmp_path: Path, *raw_tables: RawTable, tables: tuple[Table, ...] = ()) -> PowerSyncDatabase:
    return PowerSyncDatabase(tmp_path / "raw.db", Schema(tables, raw_tables=raw_tables))


ITEMS = RawTable("items", RawTableSchema())
