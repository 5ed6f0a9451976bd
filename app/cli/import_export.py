"""The commands `import` and `export`.

Owns how files and pipes are read and written. The formats are `app.todo_text.transfer`'s.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.context import ExitCode
from app.cli.lookup import list_named
from app.cli.open_store import OpenStore, with_store
from app.cli.output import print_note

if TYPE_CHECKING:
    from app.todo_text.transfer import ExportedList

_SUFFIXES = {".json": "json", ".txt": "todo.txt", ".md": "markdown", ".markdown": "markdown", ".csv": "csv"}
_READ = ("json", "todo.txt", "markdown")
_MOST_BYTES = 64 * 1024 * 1024


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), required=False)
@click.option(
    "-f", "--format", "name", type=click.Choice([*_READ, "csv"]), help="[default: by the extension of FILE, or json]"
)
@click.option("-l", "--list", "list_name", metavar="LIST", help="Export only this list.")
@click.pass_context
def export(context: click.Context, file: Path | None, name: str | None, list_name: str | None) -> int:
    """Write all lists to FILE, or to stdout.

    json keeps everything. So does todo.txt, in extensions that other todo.txt programs ignore. markdown drops when
    to-dos were created and completed, and csv cannot be imported.
    """
    from app.todo_text.transfer import WRITERS, summary

    async def work(opened: OpenStore) -> list[ExportedList]:
        from app.todo_text.transfer import ExportedList, ExportedTodo

        every = [await list_named(opened, list_name)] if list_name is not None else await opened.all_lists()
        exported: list[ExportedList] = []
        for each in every:
            todos = await opened.store.todos(each.id)
            exported.append(
                ExportedList(
                    each.name or "",
                    [ExportedTodo(t.description or "", t.completed, t.created_at, t.completed_at) for t in todos],
                )
            )
        return exported

    exported = with_store(context, work)
    text = WRITERS[name or _format_of(file) or "json"](exported)
    if file is None or str(file) == "-":
        sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass"))
        sys.stdout.flush()
    else:
        try:
            descriptor = os.open(file, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "wb") as target:
                target.write(text.encode("utf-8", "surrogatepass"))
        except OSError as error:
            raise click.ClickException(f"{file} cannot be written: {error.strerror}.") from error
        print_note(context, f"Exported {summary(exported)}.")
    return ExitCode.OK


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("-f", "--format", "name", type=click.Choice(_READ), help="[default: by the extension of FILE]")
@click.pass_context
def import_(context: click.Context, file: Path, name: str | None) -> int:
    """Add the lists in FILE to yours. - as FILE reads stdin. `todo-tui undo` removes them again."""
    from app.todo_text.transfer import READERS, TransferError

    chosen = name or _format_of(file)
    if chosen not in _READ:
        raise click.UsageError(f"Give the format of {file} with --format: {', '.join(_READ)}.")
    try:
        raw = sys.stdin.buffer.read(_MOST_BYTES + 1) if str(file) == "-" else _content(file)
        if len(raw) > _MOST_BYTES:
            raise click.ClickException(f"{file} is larger than 64 MiB; split it.")
        exported = READERS[chosen](raw.decode("utf-8-sig"))
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file} is not valid UTF-8.") from error
    except TransferError as error:
        raise click.ClickException(f"{file}: {error}") from error
    if not exported:
        raise click.ClickException(f"{file} contains no lists and no to-dos.")

    async def work(opened: OpenStore) -> str:
        return await opened.store.edit.import_lists(exported)

    print_note(context, f"{with_store(context, work)}.")
    return ExitCode.OK


def _content(file: Path) -> bytes:
    with file.open("rb") as source:
        return source.read(_MOST_BYTES + 1)


def _format_of(file: Path | None) -> str | None:
    return None if file is None else _SUFFIXES.get(file.suffix.lower())


COMMANDS = (export, import_)
