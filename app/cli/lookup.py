"""Which list or to-do a command means: by the beginning of its id, or by words.

Owns what fits, and the question when several do. Must import nothing heavy at module level.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from app.cli.open_store import OpenStore

if TYPE_CHECKING:
    from app.store import Todo, TodoList

T = TypeVar("T")

SHORT_ID = 8
"""How many characters of an id are shown; any unique beginning is understood."""


async def list_named(opened: OpenStore, name: str) -> TodoList:
    """The list with this name, this part of a name, or this beginning of an id.

    Raises:
        click.ClickException: there is none, or there are several and nobody can be asked.
    """
    every = await opened.all_lists()
    folded = name.casefold()
    names = {each.id: (each.name or "").casefold() for each in every}
    for fits in (
        [each for each in every if name == each.id or names[each.id] == folded],
        [each for each in every if names[each.id].startswith(folded) or (len(name) > 3 and each.id.startswith(name))],
        [each for each in every if folded in names[each.id]],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            return _choose(f"Several lists match {name!r}", fits, lambda each: each.name or each.id)
    import difflib

    near = difflib.get_close_matches(folded, names.values(), n=5, cutoff=0.5)
    found = [each for each in every if names[each.id] in near]
    if found:
        return _choose(f"There is no list {name!r}", found, lambda each: each.name or each.id)
    raise click.ClickException(f"There is no list {name!r}; run todo-tui lists to see all.")


async def todo_named(opened: OpenStore, words: str) -> Todo:
    """The to-do with this beginning of an id, or with these words in its text; among several, an open one.

    Raises:
        click.ClickException: there is none, or there are several and nobody can be asked.
    """
    found = await opened.store.find_todos(id_prefix=words)
    if len(found) != 1:
        found = found or await opened.store.find_todos(words=words.split())
        still_open = [todo for todo in found if not todo.completed]
        found = still_open or found
        exact = [todo for todo in found if one_line(todo).casefold() == words.casefold()]
        found = exact or found
    if not found:
        raise click.ClickException(f"There is no to-do {words!r}; run todo-tui list to see them with their ids.")
    if len(found) == 1:
        return found[0]
    return _choose(f"Several to-dos match {words!r}", found, lambda each: f"{each.id[:SHORT_ID]} {one_line(each)}")


def one_line(todo: Todo) -> str:
    """The first line of a to-do, without control characters."""
    from app.system.display_text import sanitized
    from app.todo_text import read

    return sanitized(read(todo.description or "").title) or "(no text)"


def _choose(problem: str, found: Sequence[T], describe: Callable[[T], str]) -> T:
    """Ask which one is meant, if somebody can be asked."""
    from app.system.display_text import sanitized

    choices = [sanitized(describe(each)) for each in found]
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.ClickException(f"{problem}; did you mean one of: {', '.join(choices[:8])}?")
    click.echo(f"{problem}. Which one?", err=True)
    for number, choice in enumerate(choices, start=1):
        click.echo(f"  {number}  {choice}", err=True)
    number: int = click.prompt("Number", type=click.IntRange(1, len(choices)), err=True)
    return found[number - 1]
