"""Schemas are validated when they are made; errors name the culprit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sync import Column, Index, IndexedColumn, Schema, SchemaError, Table, TrackPreviousValues

NAME = Column.text("name")


def wide(count: int) -> list[Column]:
    return [Column.text(f"c{number}") for number in range(count)]


@pytest.mark.parametrize(
    ("make", "culprits"),
    [
        (lambda: Table("a", [Column.text("id")]), ("'a'", "'id'")),
        (lambda: Table("a", [NAME, Column.integer("NAME")]), ("'a'", "'NAME'")),
        (lambda: Table("", [NAME]), ("empty",)),
        (lambda: Table("ps_crud", [NAME]), ("'ps_crud'",)),
        (lambda: Table("a", [NAME], view_name="ps_crud"), ("'ps_crud'",)),
        (lambda: Table("a", [NAME], view_name="b c"), ("'b c'", "' '")),
        (lambda: Table("a", [NAME], indexes=[Index("i", ["nme"])]), ("'i'", "'a'", "'nme'")),
        (lambda: Table("a", [NAME], indexes=[Index("i", [])]), ("'i'", "'a'")),
        (lambda: Table("a", [NAME], indexes=[Index("i.j", ["name"])]), ("'i.j'", "'a'", "'.'")),
        (
            lambda: Table("a", [NAME], indexes=[Index("i", ["name", IndexedColumn.descending("name")])]),
            ("'i'", "'a'", "'name'", "twice"),
        ),
        (lambda: Table("a", [NAME], indexes=[Index("i", ["name"]), Index("I", ["name"])]), ("'I'", "'a'")),
        (lambda: Table("a", wide(2000)), ("'a'", "2000", "1999")),
        (lambda: Table("a", wide(1998), track_metadata=True), ("'a'", "1998", "1997")),
        (lambda: Table("a", [Column.text("_Deleted")], track_metadata=True), ("'a'", "'_Deleted'")),
        (
            lambda: Table("a", [NAME], track_previous_values=TrackPreviousValues(["nme"])),
            ("'a'", "'nme'", "previous values"),
        ),
        (lambda: Table("a", [NAME], local_only=True, track_previous_values=True), ("'a'", "track_previous_values")),
        (lambda: Table("a", [NAME], local_only=True, track_metadata=True), ("'a'", "track_metadata")),
        (lambda: Table("a", [NAME], local_only=True, insert_only=True), ("'a'", "insert_only")),
        (lambda: Schema([Table("a", [NAME]), Table("A", [NAME])]), ("'A'",)),
        (lambda: Schema([Table("a", [NAME]), Table("b", [NAME], view_name="A")]), ("'a'", "'b'", "'A'")),
        (
            lambda: Schema(
                [
                    Table("a", [NAME], indexes=[Index("b__i", ["name"])]),
                    Table("a__b", [NAME], indexes=[Index("i", ["name"])]),
                ]
            ),
            ("'a__b'", "'i'"),
        ),
        (
            lambda: Schema([Table("a", [NAME], indexes=[Index("b", ["name"])]), Table("a__b", [NAME])]),
            ("'a'", "'b'", "'a__b'"),
        ),
    ],
)
def test_what_is_wrong_is_named(make: Callable[[], object], culprits: tuple[str, ...]) -> None:
    with pytest.raises(SchemaError) as raised:
        make()
    for culprit in culprits:
        assert culprit in str(raised.value)


@pytest.mark.parametrize("character", [*"\"'%,.#[]\\ \t\n\r\0", "\u00a0", "\u2003"])
def test_characters_that_no_name_may_have(character: str) -> None:
    name = f"na{character}me"
    makes: tuple[Callable[[], Table], ...] = (
        lambda: Table(name, [NAME]),
        lambda: Table("a", [NAME], view_name=name),
        lambda: Table("a", [Column.text(name)]),
        lambda: Table("a", [NAME], indexes=[Index(name, ["name"])]),
    )
    for make in makes:
        with pytest.raises(SchemaError) as raised:
            make()
        assert repr(name) in str(raised.value)
        assert repr(character) in str(raised.value)


def test_as_many_columns_as_a_view_can_have() -> None:
    assert len(Table("a", wide(1999)).columns) == 1999
    assert len(Table("a", wide(1997), track_metadata=True).columns) == 1997


def test_two_tables_may_swap_their_names_in_sql() -> None:
    schema = Schema([Table("a", [NAME], view_name="b"), Table("b", [NAME], view_name="a")])
    assert [(table.name, table.view_name) for table in schema.tables] == [("a", "b"), ("b", "a")]


def test_what_is_left_out_has_its_default() -> None:
    table = Table("a", [NAME], indexes=[Index("i", ["name"])], track_previous_values=True)
    assert table.view_name == "a"
    assert table.track_previous_values == TrackPreviousValues(None, only_when_changed=False)
    assert table.indexes[0].columns == (IndexedColumn.ascending("name"),)
    assert Table("a", [NAME]).track_previous_values is None
