"""The lists, opened for the length of one command.

Owns how a command gets at the store, whether the interface runs on the same files or not, and the sentences when it
cannot. Must not know what a command does with it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from app.cli.context import settings_of

if TYPE_CHECKING:
    from app.settings.settings import Settings
    from app.store import Store, Todo, TodoList
    from sync import PowerSyncDatabase

T = TypeVar("T")

SHORT_ID = 8
"""How many characters of an id are shown; any unique beginning is understood."""

_FLUSH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class OpenStore:
    """What a command works with.

    Attributes:
        store: the lists.
        database: the same, as the engine has it.
        settings: those of this run.
    """

    store: Store
    database: PowerSyncDatabase
    settings: Settings

    async def all_lists(self) -> list[TodoList]:
        """All lists, oldest first."""
        async for lists in self.store.watch_lists():
            return lists
        return []


def with_store(context: click.Context, work: Callable[[OpenStore], Awaitable[T]]) -> T:
    """Open the lists, do some work, and close them; what it wrote waits to be uploaded.

    Raises:
        click.ClickException: the lists cannot be opened, read or written.
    """
    import asyncio
    import gc

    from app.store.failures import StoreError
    from app.system.user_error import UserError

    settings = settings_of(context)
    os.umask(0o077)
    # The process ends soon: looking for what could be freed takes longer than all of it is worth.
    gc.disable()
    try:
        return asyncio.run(_work(settings, work))
    except (UserError, StoreError) as error:
        raise click.ClickException(str(error)) from error


async def _work(settings: Settings, work: Callable[[OpenStore], Awaitable[T]]) -> T:
    async with opened(settings) as lists:
        result = await work(lists)
        await lists.store.flush(_FLUSH_SECONDS)
        return result


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[OpenStore]:
    """The lists of a data directory, which is made if need be.

    Raises:
        UserError: they cannot be opened, or belong to another user.
    """
    from app.connection.data_owner import DataOwner
    from app.connection.sign_in import as_signed_in
    from app.store import Store
    from app.store.schema import APP_SCHEMA
    from app.system.user_error import UserError
    from sync import PowerSyncDatabase
    from sync.errors import DatabaseOpenError

    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"The data directory {settings.data_dir} cannot be used: {reason}.") from error
    settings = as_signed_in(settings)
    user_id = str(settings.user_id)
    DataOwner(settings.data_dir).check(user_id, settings.backend_url)
    try:
        database = await PowerSyncDatabase(settings.data_dir / "todo.db", APP_SCHEMA).__aenter__()
    except DatabaseOpenError as error:
        raise UserError(str(error)) from error
    try:
        yield OpenStore(Store(database, user_id, _stay), database, settings)
    finally:
        await database.close()


async def _stay() -> None:
    """A command does not sync by itself."""


# Which list or to-do is meant


async def list_named(lists: OpenStore, name: str) -> TodoList:
    """The list that a name or the beginning of an id means.

    Raises:
        click.ClickException: none, or several, and nobody can be asked.
    """
    every = await lists.all_lists()
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
            return _asked(f"Several lists are called like {name!r}", fits, lambda each: each.name or each.id)
    import difflib

    near = difflib.get_close_matches(folded, names.values(), n=5, cutoff=0.5)
    found = [each for each in every if names[each.id] in near]
    if found:
        return _asked(f"There is no list {name!r}", found, lambda each: each.name or each.id)
    raise click.ClickException(f"There is no list {name!r}; todo-tui lists shows all.")


async def todo_named(lists: OpenStore, words: str) -> Todo:
    """The to-do that the beginning of an id, or words of its text, mean; of those with such words an open one.

    Raises:
        click.ClickException: none, or several, and nobody can be asked.
    """
    found = await lists.store.find_todos(id_prefix=words)
    if len(found) != 1:
        found = found or await lists.store.find_todos(words=words.split())
        still_open = [todo for todo in found if not todo.completed]
        found = still_open or found
        exact = [todo for todo in found if one_line(todo).casefold() == words.casefold()]
        found = exact or found
    if not found:
        raise click.ClickException(f"There is no to-do {words!r}; todo-tui list shows them with their ids.")
    if len(found) == 1:
        return found[0]
    return _asked(f"Several to-dos fit {words!r}", found, lambda each: f"{each.id[:SHORT_ID]} {one_line(each)}")


def one_line(todo: Todo) -> str:
    """The first line of a to-do, harmless."""
    from app.system.display_text import sanitized
    from app.todo_text import read

    return sanitized(read(todo.description or "").title) or "(no text)"


def _asked(trouble: str, found: Sequence[T], words: Callable[[T], str]) -> T:
    from app.system.display_text import sanitized

    told = [sanitized(words(each)) for each in found]
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.ClickException(f"{trouble}; did you mean one of: {', '.join(told[:8])}?")
    click.echo(f"{trouble}. Which one?", err=True)
    for number, each in enumerate(told, start=1):
        click.echo(f"  {number}  {each}", err=True)
    number: int = click.prompt("Number", type=click.IntRange(1, len(told)), err=True)
    return found[number - 1]


# Saying


def tell(context: click.Context, sentence: str) -> None:
    """Narrate on stderr, unless --quiet."""
    from app.system.display_text import sanitized

    if not context.find_root().params.get("quiet"):
        click.echo(sanitized(sentence), err=True)


def print_json(value: Any) -> None:
    """Print data as JSON, one line unless a person reads it."""
    click.echo(json.dumps(value, ensure_ascii=not _speaks_unicode(), indent=2 if sys.stdout.isatty() else None))


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
