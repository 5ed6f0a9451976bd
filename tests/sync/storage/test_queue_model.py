"""Random tables and random writes: the upload queue against a model in Python."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sync import Column, Schema, Table, TrackPreviousValues
from sync.sqlite.sql_connection import SqlConnection
from sync.storage.upload_queue import end_transaction_id
from tests.sync.storage.plain import database_of, entries, transaction_ids

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
REAL = st.floats(allow_nan=False, allow_infinity=False)
INTEGER = st.integers(-(2**63), 2**63 - 1)
VALUES = {"text": TEXT, "integer": INTEGER, "real": REAL}
IDS = st.sampled_from(["one", 'two "quoted"', "três"])


@st.composite
def tables(draw: st.DrawFn) -> Table:
    types = draw(st.lists(st.sampled_from(["text", "integer", "real"]), min_size=0, max_size=4))
    columns = [Column(f"c{number}", kind) for number, kind in enumerate(types)]  # pyright: ignore[reportArgumentType]
    subset = st.none() if not columns else st.none() | st.sets(st.sampled_from([column.name for column in columns]))
    local_only = draw(st.booleans()) and draw(st.booleans())
    return Table(
        "t",
        columns,
        local_only=local_only,
        insert_only=not local_only and draw(st.booleans()) and draw(st.booleans()),
        view_name=draw(st.sampled_from([None, "seen"])),
        track_previous_values=not local_only
        and (draw(st.booleans()) and TrackPreviousValues(draw(subset), only_when_changed=draw(st.booleans()))),
        track_metadata=not local_only and draw(st.booleans()),
        ignore_empty_updates=draw(st.booleans()),
    )


@dataclass
class Model:
    table: Table
    rows: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    queue: list[tuple[int, dict[str, Any]]] = field(default_factory=list[tuple[int, dict[str, Any]]])
    transaction: int = 0

    def insert(self, row_id: str, values: dict[str, Any], metadata: str | None) -> None:
        if not self.table.insert_only:
            self.rows[row_id] = values
        self._add("PUT", row_id, metadata, data={name: value for name, value in values.items() if value is not None})

    def update(self, row_id: str, values: dict[str, Any], metadata: str | None) -> None:
        old = self.rows[row_id]
        changed = {name: value for name, value in values.items() if value != old[name]}
        self.rows[row_id] = old | changed
        if changed or not self.table.ignore_empty_updates:
            self._add("PATCH", row_id, metadata, data=changed, **self._old(old, changed))

    def delete(self, row_id: str, metadata: str | None) -> None:
        self._add("DELETE", row_id, metadata, **self._old(self.rows.pop(row_id), None))

    def _old(self, row: dict[str, Any], changed: dict[str, Any] | None) -> dict[str, Any]:
        tracked = self.table.track_previous_values
        if tracked is None:
            return {}
        names = set(row if tracked.columns is None else tracked.columns)
        if tracked.only_when_changed and changed is not None:
            names &= set(changed)
        return {"old": {name: row[name] for name in names}}

    def _add(self, op: str, row_id: str, metadata: str | None, **more: Any) -> None:
        if not self.table.local_only:
            entry = {"op": op, "id": row_id, "type": "t", **more}
            self.queue.append((self.transaction, entry | ({} if metadata is None else {"metadata": metadata})))


@settings(max_examples=120, deadline=None)
@given(st.data(), tables())
def test_the_queue_is_that_of_the_model(data: st.DataObject, table: Table) -> None:
    model = Model(table)
    with database_of(Schema([table])) as connection:
        engine = SqlConnection(connection)
        for _ in range(data.draw(st.integers(1, 3), "transactions")):
            model.transaction += 1
            connection.execute("BEGIN IMMEDIATE")
            for _ in range(data.draw(st.integers(1, 4), "writes")):
                write(data, connection, model)
            end_transaction_id(engine)
            connection.execute("COMMIT")
        queue = entries(connection)
        assert queue == [entry for _, entry in model.queue]
        numbers = [number for number, _ in model.queue]
        dense = {number: place for place, number in enumerate(sorted(set(numbers)), 1)}
        assert transaction_ids(connection) == [dense[number] for number in numbers]
        names = [column.name for column in table.columns]
        found = connection.execute(f"SELECT {', '.join(['id', *names])} FROM {table.view_name}").fetchall()
        assert {row[0]: dict(zip(names, row[1:], strict=True)) for row in found} == model.rows
        touched = set() if table.insert_only else {entry["id"] for entry in queue}
        assert {row[0] for row in connection.execute("SELECT row_id FROM ps_updated_rows")} == touched
        target = connection.execute("SELECT value FROM ps_kv WHERE key = 'target_checkpoint_request_id'").fetchall()
        assert target == ([(2**63 - 1,)] if touched else [])


def write(data: st.DataObject, connection: sqlite3.Connection, model: Model) -> None:
    """One random write, in the database and in the model."""
    table = model.table
    row_id = data.draw(IDS, "id")
    metadata = data.draw(st.none() | TEXT, "metadata") if table.track_metadata else None
    hidden = {} if metadata is None else {"_metadata": metadata}
    if row_id not in model.rows:
        values = {column.name: data.draw(st.none() | VALUES[column.type], column.name) for column in table.columns}
        _run(connection, f"INSERT INTO {table.view_name}", {"id": row_id} | values | hidden)
        model.insert(row_id, values, metadata)
        return
    kind = data.draw(st.sampled_from(["update", "update", "delete", "conflict", "delete by update"]), "kind")
    where = "WHERE id = :id"
    if kind == "delete":
        connection.execute(f"DELETE FROM {table.view_name} {where}", {"id": row_id})
        model.delete(row_id, None)
    elif kind == "conflict":
        connection.execute(f"INSERT OR IGNORE INTO {table.view_name}(id) VALUES (?)", (row_id,))
    elif kind == "delete by update" and table.track_metadata:
        sql = f"UPDATE {table.view_name} SET _deleted = TRUE, _metadata = :metadata {where}"
        connection.execute(sql, {"id": row_id, "metadata": metadata})
        model.delete(row_id, metadata)
    else:
        chosen = data.draw(st.sets(st.sampled_from(table.columns)) if table.columns else st.just(set[Column]()), "set")
        old = model.rows[row_id]
        values = {
            column.name: data.draw(st.none() | VALUES[column.type] | st.just(old[column.name]), column.name)
            for column in chosen
        }
        assignments = ", ".join(f"{name} = :{name}" for name in ("id", *values, *hidden))
        connection.execute(f"UPDATE {table.view_name} SET {assignments} {where}", {"id": row_id} | values | hidden)
        model.update(row_id, values, metadata)


def _run(connection: sqlite3.Connection, verb: str, values: dict[str, Any]) -> None:
    names = ", ".join(values)
    connection.execute(f"{verb}({names}) VALUES ({', '.join(f':{name}' for name in values)})", values)


@settings(max_examples=300, deadline=None)
@given(REAL)
@example(7.640446174425159e-301)
@example(8.820248327576261e-300)
@example(1.3515070193128177e272)
@example(1.0591882562434509e217)
@example(5e-324)
@example(-1.7976931348623157e308)
def test_every_finite_number_is_kept_exactly(number: float) -> None:
    """The examples are numbers that `quote` or 17 digits get wrong in SQLite 3.40."""
    with database_of(Schema([Table("t", [Column.real("r")])])) as connection:
        connection.execute("INSERT INTO t(id, r) VALUES ('put', ?), ('patch', NULL)", (number,))
        connection.execute("UPDATE t SET r = ? WHERE id = 'patch'", (number,))
        assert [row for (row,) in connection.execute("SELECT r FROM t")] == [number, number]
        assert [entry["data"].get("r") for entry in entries(connection)] == [number, None, number]
