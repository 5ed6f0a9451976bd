"""Only one file of the tests knows the inside of the engine."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ENGINE = TESTS.parent / "sync"
INSIDE = Path(__file__).with_name("inside.py")


def private_names(path: Path) -> set[str]:
    """The private attributes that a file uses, of whatever object."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }


PRIVATE = private_names(INSIDE) | private_names(ENGINE / "api" / "database.py")
"""What only `inside` may use: all that it uses, and all that a database has."""


def reaching_inside(source: str) -> Iterator[str]:
    """The uses of these attributes on any object but `self`, whose own they may be."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE and ast.unparse(node.value) not in {"self", "cls"}:
            yield f"{node.lineno}: {ast.unparse(node)}"


def test_no_other_file_of_the_tests_reaches_inside_the_engine() -> None:
    found = {
        str(path.relative_to(TESTS)): uses
        for path in sorted(TESTS.rglob("*.py"))
        if path != INSIDE and (uses := list(reaching_inside(path.read_text())))
    }
    assert not found, "add a function to tests/kit/inside.py"


@pytest.mark.parametrize(
    ("source", "use"),
    [
        ("await database._pool.read(account.owner)", "1: database._pool"),
        ("board = self.database._board", "1: self.database._board"),
        ("len(pool._idle_readers)", "1: pool._idle_readers"),
    ],
)
def test_reaching_inside_is_noticed(source: str, use: str) -> None:
    assert list(reaching_inside(source)) == [use]
