"""Another schema: what differs is dropped, created and altered, and nothing else."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from sync import Column, Index, IndexedColumn, PowerSyncDatabase, Schema, Table
from tests.sync.storage.plain import bring, database_of, entries, plain

X, Y = Column.text("x"), Column.integer("y")


def objects(connection: sqlite3.Connection) -> dict[str, tuple[int, int, str]]:
    """Everything in the file's schema by name, with where it stands: what is made anew stands elsewhere."""
    found = connection.execute("SELECT name, rowid, rootpage, sql FROM sqlite_master")
    return {name: (number, page, sql) for name, number, page, sql in found}


def changed_by(connection: sqlite3.Connection, schema: Schema) -> set[str]:
    """The names of what another schema drops, makes or alters."""
    before = objects(connection)
    bring(connection, schema)
    after = objects(connection)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


async def test_the_same_schema_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    schema = Schema(
        [
            Table("a", [X, Y], indexes=[Index("i", [IndexedColumn.descending("x"), "y"])], track_metadata=True),
            Table("b", [X], insert_only=True, view_name="c"),
            Table("d", [X], local_only=True),
        ]
    )
    async with PowerSyncDatabase(path, schema) as database:
        await database.execute("INSERT INTO a(id, x) VALUES ('1', 'x')")
    with plain(path) as observer:
        before = objects(observer), observer.execute("PRAGMA data_version").fetchone()
        async with PowerSyncDatabase(path, schema):
            pass
        assert (objects(observer), observer.execute("PRAGMA data_version").fetchone()) == before


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (Table("a", [X, Y], indexes=[Index("i", ["x", "y"]), Index("j", ["y"])]), {"ps_data__a__i"}),
        (
            Table("a", [X, Y], indexes=[Index("i", [IndexedColumn.descending("x")]), Index("j", ["y"])]),
            {"ps_data__a__i"},
        ),
        (Table("a", [X, Y], indexes=[Index("j", ["y"])]), {"ps_data__a__i"}),
        (
            Table("a", [X, Y], indexes=[Index("i", ["x"]), Index("j", ["y"])], track_previous_values=True),
            {"ps_view_update_a", "ps_view_delete_a"},
        ),
        (
            Table("a", [X, Y], indexes=[Index("i", ["x"]), Index("j", ["y"])], insert_only=True),
            {"ps_view_insert_a", "ps_view_update_a", "ps_view_delete_a"},
        ),
        (
            Table("a", [X, Y, Column.real("z")], indexes=[Index("i", ["x"]), Index("j", ["y"])]),
            {"a", "ps_view_insert_a", "ps_view_update_a", "ps_view_delete_a"},
        ),
        (
            Table("a", [X, Y], indexes=[Index("i", ["x"]), Index("j", ["y"])], track_metadata=True),
            {"a", "ps_view_insert_a", "ps_view_update_a", "ps_view_delete_a", "ps_view_delete2_a"},
        ),
    ],
)
def test_only_what_differs_is_touched(table: Table, expected: set[str]) -> None:
    other = Table("b", [X], indexes=[Index("i", ["x"])])
    first = Schema([Table("a", [X, Y], indexes=[Index("i", ["x"]), Index("j", ["y"])]), other])
    with database_of(first) as connection:
        connection.execute("INSERT INTO a(id, x) VALUES ('1', 'x')")
        made = {name: sql for name, (_, _, sql) in objects(connection).items()}
        assert changed_by(connection, Schema([table, other])) == expected
        assert connection.execute("SELECT id, x FROM a").fetchall() == [("1", "x")]
        assert changed_by(connection, first) <= expected
        assert {name: sql for name, (_, _, sql) in objects(connection).items()} == made
        connection.execute("UPDATE a SET y = 1")
        assert entries(connection)[-1] == {"op": "PATCH", "id": "1", "type": "a", "data": {"y": 1}}


def test_another_view_name() -> None:
    with database_of(Schema([Table("a", [X])])) as connection:
        connection.execute("INSERT INTO a(id, x) VALUES ('1', 'x')")
        data = objects(connection)["ps_data__a"]
        bring(connection, Schema([Table("a", [X], view_name="things")]))
        assert objects(connection)["ps_data__a"] == data
        with pytest.raises(sqlite3.OperationalError, match="no such table: a"):
            connection.execute("SELECT * FROM a")
        connection.execute("UPDATE things SET x = 'y'")
        assert entries(connection)[-1] == {"op": "PATCH", "id": "1", "type": "a", "data": {"x": "y"}}


def test_two_tables_swap_their_view_names() -> None:
    with database_of(Schema([Table("a", [X]), Table("b", [X])])) as connection:
        connection.execute("INSERT INTO a(id, x) VALUES ('1', 'of a')")
        bring(connection, Schema([Table("a", [X], view_name="b"), Table("b", [X], view_name="a")]))
        assert connection.execute("SELECT x FROM b").fetchall() == [("of a",)]
        assert connection.execute("SELECT x FROM a").fetchall() == []


def test_a_synced_table_becomes_local_only_and_synced_again() -> None:
    synced, local = Schema([Table("a", [X])]), Schema([Table("a", [X], local_only=True)])
    with database_of(synced) as connection:
        connection.execute("INSERT INTO a(id, x) VALUES ('1', 'synced')")
        bring(connection, local)
        assert connection.execute("SELECT * FROM a").fetchall() == []
        assert connection.execute("SELECT type, id FROM ps_untyped").fetchall() == [("a", "1")]
        connection.execute("INSERT INTO a(id, x) VALUES ('2', 'local')")
        assert [entry["id"] for entry in entries(connection)] == ["1"]
        bring(connection, synced)
        assert connection.execute("SELECT id, x FROM a").fetchall() == [("1", "synced")]
        assert connection.execute("SELECT * FROM ps_untyped").fetchall() == []


def test_a_name_that_differs_in_case_only() -> None:
    with database_of(Schema([Table("Todos", [X], indexes=[Index("i", ["x"])])])) as connection:
        connection.execute("INSERT INTO todos(id, x) VALUES ('1', 'x')")
        bring(connection, Schema([Table("todos", [X], indexes=[Index("i", ["x"])])]))
        assert connection.execute("SELECT * FROM todos").fetchall() == []
        assert connection.execute("SELECT type, id FROM ps_untyped").fetchall() == [("Todos", "1")]
        connection.execute("INSERT INTO todos(id, x) VALUES ('2', 'x')")
        assert entries(connection)[-1]["type"] == "todos"


def test_descending_indexes_are_used() -> None:
    index = Index("i", [IndexedColumn.descending("x"), "y"])
    with database_of(Schema([Table("a", [X, Y], indexes=[index])])) as connection:
        (plan,) = connection.execute("EXPLAIN QUERY PLAN SELECT id FROM a ORDER BY x DESC, y").fetchall()
        assert "USING INDEX ps_data__a__i" in plan[-1]
        plans = connection.execute("EXPLAIN QUERY PLAN SELECT id FROM a ORDER BY x, y").fetchall()
        assert "USE TEMP B-TREE FOR" in plans[-1][-1]


def test_what_the_app_made_itself_is_left_alone() -> None:
    index = Index("i", ["x"])
    with database_of(Schema([Table("a", [X], indexes=[index])])) as connection:
        own = {
            "log": "CREATE TABLE log(what TEXT)",
            "ps_data_log": "CREATE INDEX ps_data_log ON log(what)",
            "mine": "CREATE INDEX mine ON ps_data__a(length(data))",
            "seen": "CREATE VIEW seen AS SELECT x FROM a",
            "on_log": "CREATE TRIGGER on_log AFTER INSERT ON log BEGIN SELECT 1; END",
            "on_a": "CREATE TRIGGER on_a INSTEAD OF INSERT ON a BEGIN INSERT INTO log VALUES (NEW.x); END",
        }
        for sql in own.values():
            connection.execute(sql)
        connection.execute("INSERT INTO a(id, x) VALUES ('1', 'first')")
        assert changed_by(connection, Schema([Table("a", [X], ignore_empty_updates=True)])) == {
            "ps_data__a__i",
            "ps_view_update_a",
        }
        bring(connection, Schema([Table("a", [X, Y], indexes=[index])]))
        connection.execute("INSERT INTO a(id, x) VALUES ('2', 'second')")
        assert connection.execute("SELECT what FROM log").fetchall() == [("first",), ("second",)]
        assert connection.execute("SELECT x FROM seen").fetchall() == [("first",), ("second",)]
        assert {name: sql for name, (_, _, sql) in objects(connection).items() if name in own} == own
