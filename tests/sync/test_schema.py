"""Schemas are validated when they are made; errors name the culprit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sync import Column, Index, Schema, SchemaError, Table

NAME = Column.text("name")


@pytest.mark.parametrize(
    ("make", "culprits"),
    [
        (lambda: Table("a", [Column.text("id")]), ("'a'", "'id'")),
        (lambda: Table("a", [NAME, Column.integer("NAME")]), ("'a'", "'NAME'")),
        (lambda: Table("a b", [NAME]), ("'a b'",)),
        (lambda: Table("", [NAME]), ("empty",)),
        (lambda: Table("ps_crud", [NAME]), ("'ps_crud'",)),
        (lambda: Table("a", [Column.text('na"me')]), ('na"me', "'a'")),
        (lambda: Table("a", [Column.text("n.me")]), ("'n.me'", "'.'")),
        (lambda: Table("a", [NAME], indexes=[Index("i", ["nme"])]), ("'i'", "'a'", "'nme'")),
        (lambda: Table("a", [NAME], indexes=[Index("i", [])]), ("'i'", "'a'")),
        (lambda: Table("a", [NAME], indexes=[Index("i", ["name"]), Index("I", ["name"])]), ("'I'", "'a'")),
        (lambda: Table("a", [Column.text(f"c{n}") for n in range(51)]), ("'a'", "51", "50")),
        (lambda: Schema([Table("a", [NAME]), Table("A", [NAME])]), ("'A'",)),
    ],
)
def test_what_is_wrong_is_named(make: Callable[[], object], culprits: tuple[str, ...]) -> None:
    with pytest.raises(SchemaError) as raised:
        make()
    for culprit in culprits:
        assert culprit in str(raised.value)


def test_fifty_columns_are_allowed() -> None:
    assert len(Table("a", [Column.text(f"c{n}") for n in range(50)]).columns) == 50
