"""What each option of a table changes in the file and in the upload queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from sync import Column, Schema, Table, TrackPreviousValues
from tests.sync.storage.plain import database_of, entries, transaction_ids

COLUMNS = [Column.text("name"), Column.integer("size"), Column.text("note")]
MAKE: dict[str, Callable[[str], Column]] = {"text": Column.text, "integer": Column.integer, "real": Column.real}


def test_previous_values_of_all_columns() -> None:
    with database_of(Schema([Table("a", COLUMNS, track_previous_values=True)])) as connection:
        connection.execute("INSERT INTO a(id, name, size) VALUES ('1', 'old', 3)")
        connection.execute("UPDATE a SET name = 'new'")
        connection.execute("DELETE FROM a")
        assert entries(connection) == [
            {"op": "PUT", "id": "1", "type": "a", "data": {"name": "old", "size": 3}},
            {
                "op": "PATCH",
                "id": "1",
                "type": "a",
                "data": {"name": "new"},
                "old": {"name": "old", "size": 3, "note": None},
            },
            {"op": "DELETE", "id": "1", "type": "a", "old": {"name": "new", "size": 3, "note": None}},
        ]


def test_previous_values_of_chosen_columns_when_they_changed() -> None:
    tracked = TrackPreviousValues(["size", "note"], only_when_changed=True)
    with database_of(Schema([Table("a", COLUMNS, track_previous_values=tracked)])) as connection:
        connection.execute("INSERT INTO a(id, name, size) VALUES ('1', 'old', 3)")
        connection.execute("UPDATE a SET name = 'new', size = 4")
        connection.execute("UPDATE a SET name = 'newer', note = 'x'")
        connection.execute("DELETE FROM a")
        assert [entry.get("old") for entry in entries(connection)] == [
            None,
            {"size": 3},
            {"note": None},
            {"size": 4, "note": "x"},  # a delete tells all of them
        ]


def test_metadata_goes_along_and_is_not_stored() -> None:
    with database_of(Schema([Table("a", COLUMNS, track_metadata=True)])) as connection:
        connection.execute("INSERT INTO a(id, name, _metadata) VALUES ('1', 'x', 'by \"hand\"')")
        connection.execute("UPDATE a SET name = 'y', _metadata = json('{\"why\": 1}')")
        connection.execute("UPDATE a SET name = 'z'")
        connection.execute("UPDATE a SET name = 'zz', _metadata = 7")
        assert connection.execute("SELECT id, name, _metadata, _deleted FROM a").fetchall() == [("1", "zz", None, None)]
        assert connection.execute("SELECT data FROM ps_data__a").fetchall() == [('{"name":"zz"}',)]
        assert [entry.get("metadata") for entry in entries(connection)] == ['by "hand"', '{"why":1}', None, None]


def test_a_delete_that_carries_metadata() -> None:
    table = Table("a", COLUMNS, track_metadata=True, track_previous_values=True)
    with database_of(Schema([table])) as connection:
        connection.execute("INSERT INTO a(id, name) VALUES ('1', 'x'), ('2', 'y'), ('3', 'z')")
        connection.execute("UPDATE a SET _deleted = TRUE, _metadata = 'bye' WHERE id = '1'")
        connection.execute("UPDATE a SET _deleted = FALSE, name = 'kept' WHERE id = '2'")
        connection.execute("DELETE FROM a WHERE id = '3'")
        assert connection.execute("SELECT id, name FROM a").fetchall() == [("2", "kept")]
        assert [(entry["op"], entry["id"], entry.get("metadata")) for entry in entries(connection)[3:]] == [
            ("DELETE", "1", "bye"),
            ("PATCH", "2", None),
            ("DELETE", "3", None),
        ]
        assert entries(connection)[3]["old"] == {"name": "x", "size": None, "note": None}
        with pytest.raises(sqlite3.IntegrityError, match="cannot be changed"):
            connection.execute("UPDATE a SET _deleted = TRUE, id = 'other'")


def test_an_update_that_changes_nothing() -> None:
    tables = [Table("plain", COLUMNS), Table("quiet", COLUMNS, ignore_empty_updates=True), Table("none", [])]
    tables.append(Table("quiet_none", [], ignore_empty_updates=True))
    with database_of(Schema(tables)) as connection:
        for table in ("plain", "quiet", "none", "quiet_none"):
            connection.execute(f"INSERT INTO {table}(id) VALUES ('1')")
        connection.execute("DELETE FROM ps_crud")
        connection.execute("DELETE FROM ps_updated_rows")
        connection.execute("DELETE FROM ps_kv")
        connection.execute("UPDATE quiet SET name = NULL, size = NULL")
        connection.execute("UPDATE quiet_none SET id = '1'")
        assert connection.execute("SELECT * FROM ps_updated_rows").fetchall() == []
        assert connection.execute("SELECT * FROM ps_kv").fetchall() == []
        connection.execute("UPDATE plain SET name = NULL")
        connection.execute("UPDATE none SET id = '1'")
        connection.execute("UPDATE quiet SET name = 'x', size = NULL")
        assert [(entry["type"], entry["data"]) for entry in entries(connection)] == [
            ("plain", {}),
            ("none", {}),
            ("quiet", {"name": "x"}),
        ]


def test_insert_only_queues_and_stores_nothing_and_holds_nothing_back() -> None:
    table = Table("a", COLUMNS, insert_only=True, track_metadata=True)
    with database_of(Schema([table])) as connection:
        connection.execute("INSERT INTO ps_kv(key, value) VALUES ('last_seen_checkpoint_request_id', 3)")
        connection.execute("INSERT INTO a(id, name, _metadata) VALUES ('1', 'x', 'm'), ('2', 'y', NULL)")
        assert connection.execute("SELECT * FROM a").fetchall() == []
        assert connection.execute("SELECT * FROM ps_updated_rows").fetchall() == []
        assert connection.execute("SELECT key FROM ps_kv WHERE key <> 'client_id'").fetchall() == [
            ("last_seen_checkpoint_request_id",)
        ]
        assert entries(connection) == [
            {"op": "PUT", "id": "1", "type": "a", "data": {"name": "x"}, "metadata": "m"},
            {"op": "PUT", "id": "2", "type": "a", "data": {"name": "y"}},
        ]
        assert transaction_ids(connection) == [1, 1]
        for bad in ("NULL", "7"):
            with pytest.raises(sqlite3.IntegrityError, match="id"):
                connection.execute(f"INSERT INTO a(id) VALUES ({bad})")
        for sql in ("UPDATE a SET name = 'z'", "DELETE FROM a"):
            with pytest.raises(sqlite3.OperationalError, match="cannot modify a because it is a view"):
                connection.execute(sql)


def test_entries_carry_the_tables_own_name() -> None:
    with database_of(Schema([Table("a", COLUMNS, view_name="things"), Table("things", COLUMNS, view_name="a")])) as c:
        c.execute("INSERT INTO things(id, name) VALUES ('1', 'x')")
        c.execute("UPDATE things SET name = 'y'")
        c.execute("DELETE FROM things")
        c.execute("INSERT INTO a(id) VALUES ('2')")
        assert [(entry["type"], entry["id"]) for entry in entries(c)] == [*[("a", "1")] * 3, ("things", "2")]
        assert c.execute("SELECT DISTINCT row_type FROM ps_updated_rows").fetchall() == [("a",), ("things",)]
        assert c.execute("SELECT id FROM ps_data__things").fetchall() == [("2",)]


@pytest.mark.parametrize("count", [51, 200, 1000, 1999])
def test_wide_tables(count: int) -> None:
    """Around the limits of SQLite: 100 or 127 arguments, 500 terms of a compound SELECT, 1,000 levels of nesting."""
    kinds = [("text", "t"), ("integer", 7), ("real", 0.1), ("text", None)]
    columns = [MAKE[kinds[number % 4][0]](f"c{number}") for number in range(count)]
    values: list[Any] = [kinds[number % 4][1] for number in range(count)]
    names = [column.name for column in columns]
    table = Table("w", columns, track_previous_values=True, ignore_empty_updates=True)
    with database_of(Schema([table])) as connection:
        connection.execute(
            f"INSERT INTO w(id, {', '.join(names)}) VALUES ('1'{', ?' * count})",
            values,
        )
        assert connection.execute("SELECT * FROM w").fetchall() == [("1", *values)]
        connection.execute(f"UPDATE w SET {names[-1]} = 'changed', c0 = NULL, c1 = 7")
        connection.execute("UPDATE w SET c1 = 7")
        connection.execute("DELETE FROM w")
        before = dict(zip(names, values, strict=True))
        change = {"c0": None, names[-1]: "changed"}
        assert entries(connection) == [
            {
                "op": "PUT",
                "id": "1",
                "type": "w",
                "data": {name: value for name, value in before.items() if value is not None},
            },
            {"op": "PATCH", "id": "1", "type": "w", "data": change, "old": before},
            {"op": "DELETE", "id": "1", "type": "w", "old": before | {"c0": None} | _as_read(columns[-1])},
        ]


def _as_read(column: Column) -> dict[str, Any]:
    """What the text 'changed' reads as through the view."""
    return {column.name: {"text": "changed", "integer": 0, "real": 0.0}[column.type]}


def test_an_update_leaves_alone_what_the_schema_does_not_name() -> None:
    with database_of(Schema([Table("a", COLUMNS)])) as connection:
        connection.execute("""INSERT INTO ps_data__a VALUES ('1', '{"name":"x","later":{"n":1e400},"size":1}')""")
        connection.execute("INSERT INTO ps_data__a VALUES ('2', NULL)")
        connection.execute("UPDATE a SET name = 'y', size = NULL")
        found = connection.execute(
            "SELECT id, name, size, json_extract(data, '$.later.n') FROM a JOIN ps_data__a d USING (id)"
        )
        assert found.fetchall() == [("1", "y", None, float("inf")), ("2", "y", None, None)]
