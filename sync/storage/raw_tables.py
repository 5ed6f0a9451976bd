"""Raw tables in the file: synced rows are put into and deleted from tables that the app owns.

Owns the statements that write such a table, and the mark by which its triggers know that the engine is writing, not the
user. When rows are published, and which, is decided elsewhere (`publish`).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from sync.errors import RawTableError
from sync.schema.raw_tables import PendingStatement, PendingStatementParameter, RawTable
from sync.sqlite.sql_connection import SqlConnection
from sync.sqlite.sql_text import quoted
from sync.storage.names import IN_SYNC_OPERATION

logger = logging.getLogger("sync.storage")

_ROWS_PER_BATCH = 500

_INTEGERS = range(-(2**63), 2**63)

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_decode_unread = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def publish(
    connection: SqlConnection, table: RawTable, *, gone: Iterable[str], puts: Iterable[tuple[str, str | None]]
) -> bool:
    """Delete the rows `gone`, then put the rows `puts` (id, JSON data). Must run inside `sync_operation`.

    Returns False, and does nothing, if the app has not created the table yet: then its rows belong in `ps_untyped`.

    Raises:
        RawTableError: SQLite rejected a row, the table lacks what a statement needs, or the data is not a JSON object.
            The transaction must be rolled back.
    """
    with _Failures(table):
        written = _WrittenTable.of(connection, table)
        if written is None:
            logger.warning("synced rows of raw table %s are waiting until the app creates its table", table.name)
            return False
        _move_waiting_rows(connection, table, written)
        written.delete(gone)
        written.put(puts)
    return True


def take_over_waiting_rows(connection: SqlConnection, tables: Iterable[RawTable]) -> None:
    """Move rows waiting in `ps_untyped` into the raw tables that the schema now names.

    Where that fails, or the app has not created the table yet, they keep waiting: the next checkpoint retries.
    """
    for table in tables:
        if not _has_waiting_rows(connection, table):
            continue
        connection.execute("SAVEPOINT take_over")
        try:
            with sync_operation(connection):
                publish(connection, table, gone=(), puts=())
        except RawTableError as error:
            connection.execute("ROLLBACK TO take_over")
            logger.warning("synced rows are waiting until the table accepts them: %s", error)
        connection.execute("RELEASE take_over")


def clear(connection: SqlConnection, table: RawTable) -> None:
    """Empty the app's table without recording it. Call it while the oplog still contains the known rows.

    Raises:
        RawTableError: SQLite rejected it. The transaction must be rolled back.
    """
    with _Failures(table), sync_operation(connection):
        if table.clear is not None:
            connection.execute(table.clear)
        elif table.table_name is not None:
            if _exists(connection, table.table_name):
                connection.execute(f"DELETE FROM {quoted(table.table_name)}")
        elif (written := _WrittenTable.of(connection, table)) is not None:
            written.delete(_known_rows(connection, table))


def note_rows_missing_from(connection: SqlConnection, data_table: str, name: str) -> None:
    """Make published rows of the synced table `name` be written again if a new data table for it lacks them.

    They are in a raw table: the app's schema had one before, under the same name.
    """
    connection.execute(
        "INSERT OR IGNORE INTO ps_updated_rows(row_type, row_id) SELECT o.row_type, o.row_id FROM ps_oplog o"
        " JOIN ps_buckets b ON b.id = o.bucket AND o.op_id <= b.last_applied_op"
        f" WHERE o.row_type = ? AND NOT EXISTS (SELECT 1 FROM {quoted(data_table)} d WHERE d.id = o.row_id)",
        (name,),
    )


def note_all_rows(connection: SqlConnection, table: RawTable) -> None:
    """Make the next complete checkpoint write all synced rows again."""
    connection.execute(
        "INSERT OR IGNORE INTO ps_updated_rows(row_type, row_id) SELECT row_type, row_id FROM ps_oplog"
        " WHERE row_type = ?",
        (table.name,),
    )


def synced_columns(connection: SqlConnection, table: RawTable) -> tuple[str, ...] | None:
    """The columns of the app's table that are synced, without `id`; None if the table does not exist.

    Raises:
        RawTableError: it has no column `id`, or lacks one that the schema names.
    """
    assert table.schema is not None
    assert table.table_name is not None
    if not _exists(connection, table.table_name):
        return None
    found = [row["name"] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table.table_name,))]
    if not any(name.lower() == "id" for name in found):
        raise RawTableError(f"The table {table.table_name!r} of raw table {table.name!r} has no column 'id'.")
    if table.schema.synced_columns is None:
        return tuple(name for name in found if name.lower() != "id")
    for name in table.schema.synced_columns:
        if name not in found:
            raise RawTableError(f"The table {table.table_name!r} of raw table {table.name!r} has no column {name!r}.")
    return table.schema.synced_columns


@contextmanager
def sync_operation(connection: SqlConnection) -> Generator[None]:
    """Inside the block, triggers record nothing: writes of the engine, or of the app's triggers, are not the user's.

    Only this transaction ever sees the mark: it is removed before the commit, or by the rollback after an error.
    """
    connection.execute("INSERT OR REPLACE INTO ps_kv(key, value) VALUES (?, 1)", (IN_SYNC_OPERATION,))
    yield
    connection.execute("DELETE FROM ps_kv WHERE key = ?", (IN_SYNC_OPERATION,))


@dataclass(frozen=True, slots=True)
class _WrittenTable:
    """A raw table whose statements are known."""

    connection: SqlConnection
    put_statement: PendingStatement
    delete_statement: PendingStatement

    @classmethod
    def of(cls, connection: SqlConnection, table: RawTable) -> _WrittenTable | None:
        """None if statements must be inferred from a table that does not exist."""
        if table.put is not None and table.delete is not None:
            return cls(connection, table.put, table.delete)
        columns = synced_columns(connection, table)
        if columns is None or table.table_name is None:
            return None
        return cls(
            connection,
            table.put or _inferred_put(table.table_name, columns),
            table.delete or _inferred_delete(table.table_name),
        )

    def put(self, rows: Iterable[tuple[str, str | None]]) -> None:
        params = self.put_statement.params
        for batch in _batches(rows):
            self.connection.execute_many(self.put_statement.sql, [_values(params, *row) for row in batch])

    def delete(self, ids: Iterable[str]) -> None:
        count = len(self.delete_statement.params)
        for batch in _batches(ids):
            self.connection.execute_many(self.delete_statement.sql, [[row_id] * count for row_id in batch])


class _Failures:
    """Adds the table's name to failures."""

    def __init__(self, table: RawTable) -> None:
        self._table = table

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, sqlite3.Error | sqlite3.Warning | msgspec.DecodeError):
            raise RawTableError(
                f"The rows of raw table {self._table.name!r} cannot be written: {error}. Everything in the same "
                "checkpoint is waiting and will be retried."
            ) from error


def _inferred_put(table_name: str, columns: Sequence[str]) -> PendingStatement:
    """Columns that are not synced keep their values."""
    names = ", ".join(quoted(name) for name in ("id", *columns))
    placeholders = ", ".join("?" * (len(columns) + 1))
    updates = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in columns)
    return PendingStatement(
        f"INSERT INTO {quoted(table_name)}({names}) VALUES ({placeholders})"
        f" ON CONFLICT (id) DO {'UPDATE SET ' + updates if updates else 'NOTHING'}",
        (PendingStatementParameter.id(), *(PendingStatementParameter.column(name) for name in columns)),
    )


def _inferred_delete(table_name: str) -> PendingStatement:
    return PendingStatement(f"DELETE FROM {quoted(table_name)} WHERE id = ?", (PendingStatementParameter.id(),))


def _values(params: Sequence[PendingStatementParameter], row_id: str, data: str | None) -> list[Any]:
    text = "{}" if data is None else data
    row = _decode(text)
    rest: str | None = None
    if any(param.kind == "rest" for param in params):
        rest = _rest(params, text)
    values: list[Any] = []
    for param in params:
        if param.kind == "id":
            values.append(row_id)
        elif param.column_name is not None:
            values.append(_sql_value(row.get(param.column_name)))
        else:
            values.append(rest)
    return values


def _rest(params: Sequence[PendingStatementParameter], text: str) -> str | None:
    """Values stay as the service wrote them: numbers keep all their digits."""
    named = {"id" if param.kind == "id" else param.column_name for param in params}
    unnamed = {name: value for name, value in _decode_unread(text).items() if name not in named}
    return msgspec.json.encode(unnamed).decode() if unnamed else None


def _sql_value(value: Any) -> Any:
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    if isinstance(value, int) and value not in _INTEGERS:
        return float(value)
    return value


def _move_waiting_rows(connection: SqlConnection, table: RawTable, written: _WrittenTable) -> None:
    if _has_waiting_rows(connection, table):
        written.put(
            (row["id"], row["data"])
            for row in pages(connection, "SELECT id, data FROM ps_untyped WHERE type = ?", (table.name,), by="id")
        )
        connection.execute("DELETE FROM ps_untyped WHERE type = ?", (table.name,))


def _has_waiting_rows(connection: SqlConnection, table: RawTable) -> bool:
    return connection.first("SELECT 1 FROM ps_untyped WHERE type = ? LIMIT 1", (table.name,)) is not None


def _known_rows(connection: SqlConnection, table: RawTable) -> Iterator[str]:
    """Synced rows, and those written and recorded here."""
    for known in ("ps_oplog", "ps_updated_rows"):
        sql = f"SELECT DISTINCT row_id FROM {known} WHERE row_type = ?"
        yield from (row["row_id"] for row in pages(connection, sql, (table.name,), by="row_id"))


def pages(connection: SqlConnection, sql: str, parameters: Sequence[Any], *, by: str) -> Iterator[sqlite3.Row]:
    """The rows of a query in the order of its column `by`, read in batches, so that memory use stays flat.

    `sql` ends in a WHERE clause; `by` is text, indexed and unique.
    """
    rows = connection.execute(f"{sql} ORDER BY {by} LIMIT {_ROWS_PER_BATCH}", parameters)
    while rows:
        yield from rows
        last = rows[-1][by]
        rows = connection.execute(f"{sql} AND {by} > ? ORDER BY {by} LIMIT {_ROWS_PER_BATCH}", (*parameters, last))


def _batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, _ROWS_PER_BATCH)):
        yield batch


def _exists(connection: SqlConnection, table_name: str) -> bool:
    return (
        connection.first("SELECT 1 FROM sqlite_master WHERE type = 'table' AND lower(name) = lower(?)", (table_name,))
        is not None
    )
