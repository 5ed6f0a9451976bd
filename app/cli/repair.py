"""`todo-tui doctor --repair`: a new database in place of a damaged one.

Owns when it refuses or asks, and what it says. What is carried over, and how, is for `sync.rescue` to know.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from app.cli.context import ExitCode
from app.cli.output import print_note

if TYPE_CHECKING:
    from sync import Rescued

_LOCAL_ROWS: Final = {
    "undo_journal": ("entry of the undo history", "entries of the undo history"),
    "todo_positions": ("position set by hand", "positions set by hand"),
    "arrangements": ("arrangement of a view", "arrangements of views"),
}


def repair(context: click.Context, database: Path, *, yes: bool) -> int:
    """Put a new database in place of one that is damaged, or of a healthy one if the user wants that.

    Raises:
        click.ClickException: there is none, a program has it open, nobody can be asked, or it cannot be done; nothing
            was changed.
    """
    from app.store.schema import APP_SCHEMA
    from sync import PowerSyncError, inspect, rescue

    os.umask(0o077)
    found = inspect(database)
    if not found.exists:
        raise click.ClickException(f"There is no {database} to repair.")
    if found.open_in:
        programs = ", ".join(str(process) for process in found.open_in)
        raise click.ClickException(f"{database} is open in {programs}. Quit all todo-tui, then repair it.")
    if not found.is_damaged and not yes and not _confirmed(database, found.unreadable):
        print_note(context, "Nothing was changed.")
        return ExitCode.FAILED
    try:
        rescued = rescue(database, APP_SCHEMA)
    except PowerSyncError as error:
        raise click.ClickException(str(error)) from error
    for sentence in _report(rescued):
        print_note(context, sentence)
    return ExitCode.OK


def _confirmed(database: Path, unreadable: str | None) -> bool:
    if unreadable is not None:
        raise click.ClickException(f"{database} cannot be read now ({unreadable}), so it is not repaired.")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.ClickException(
            f"{database} is not damaged: the integrity check passed. To put a new database in its place all the same, "
            "add --yes."
        )
    click.echo(f"{database} is not damaged: the integrity check passed.", err=True)
    return click.confirm("Put a new database in its place all the same?", default=False, err=True)


def _report(rescued: Rescued) -> Iterator[str]:
    carried = [
        _counted(rescued.queue_length, "change that waits for upload", "changes that wait for upload"),
        _counted(rescued.rejected_writes, "rejected change", "rejected changes"),
        _counted(rescued.conflicts, "conflict", "conflicts"),
        *(_counted(rescued.local_rows.get(table, 0), *words) for table, words in _LOCAL_ROWS.items()),
    ]
    yield f"Carried over: {', '.join(carried)}."
    for name, rows in rescued.unread.items():
        words = _LOCAL_ROWS.get(name, ("", name))[1]
        yield f"Some of it could not be read: {words}, up to {_counted(rows, 'row', 'rows')}."
    yield f"The old files are in {rescued.kept_in}."
    yield "The lists are downloaded again with the next sync: todo-tui sync."


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"
