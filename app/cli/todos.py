"""The everyday commands: adding, reading, completing, changing, moving and deleting to-dos, and the lists.

Owns what they print: data on stdout, one to-do or list per line or JSON; what was done on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from app.cli.context import ExitCode
from app.cli.lookup import SHORT_ID, list_named, todo_named
from app.cli.open_store import OpenStore, with_store
from app.cli.output import print_json, print_note

if TYPE_CHECKING:
    from app.store import Todo, TodoList

_FIRST_LIST = "To-dos"

list_option = click.option(
    "-l", "--list", "list_name", metavar="LIST", help="The list, by its name, a part of it, or its id."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("text", nargs=-1, required=True)
@list_option
@click.option("--plain", is_flag=True, help="Take the text literally, without dates, priorities and tags.")
@click.pass_context
def add(context: click.Context, text: tuple[str, ...], list_name: str | None, *, plain: bool) -> int:
    """Add a to-do and print its id.

    TEXT can include a date, a priority, tags and a repetition: "Pay rent tomorrow 9am p1 #home every month". If it is
    -, to-dos are read from stdin, one per line and literally. Without -l they go to the first list.
    """
    lines = [line.rstrip("\r\n") for line in sys.stdin] if text == ("-",) else []
    lines = [line for line in lines if line.strip()]

    async def work(opened: OpenStore) -> None:
        from datetime import datetime

        from app.system.clock import local_now
        from app.todo_text import understand

        now: datetime = local_now().replace(tzinfo=None)
        target = await _target(opened, list_name)
        if text == ("-",):
            descriptions, preview = lines, ""
        elif plain:
            descriptions, preview = [" ".join(text)], ""
        else:
            understood = understand(" ".join(text), now)
            descriptions, preview = [understood.stored], understood.preview
        if not any(each.strip() for each in descriptions):
            raise click.UsageError("There is no text to add.")
        ids = await opened.store.edit.add_todos(target.id, descriptions)
        for todo_id in ids:
            click.echo(todo_id)
        what = f"{len(ids):,} to-dos" if len(ids) != 1 else "1 to-do"
        print_note(context, f"Added {what} to {target.name or '(no name)'}{': ' + preview if preview else ''}.")

    with_store(context, work)
    return ExitCode.OK


async def _target(opened: OpenStore, name: str | None) -> TodoList:
    if name is not None:
        return await list_named(opened, name)
    every = await opened.all_lists()
    if every:
        return every[0]
    await opened.store.edit.add_list(_FIRST_LIST)
    return (await opened.all_lists())[0]


@click.command("list")
@click.argument("list_name", metavar="[LIST]", required=False)
@click.option("--today", "view", flag_value="today", help="What is due today, in all lists.")
@click.option("--overdue", "view", flag_value="overdue", help="What is overdue.")
@click.option("--upcoming", "view", flag_value="upcoming", help="What is due after today.")
@click.option("--done", "view", flag_value="done", help="What is done.")
@click.option("--all", "everything", is_flag=True, help="Include what is done.")
@json_option
@click.pass_context
def list_todos(
    context: click.Context, list_name: str | None, view: str | None, *, everything: bool, as_json: bool
) -> int:
    """Print the open to-dos of LIST, or of all lists.

    Ids are shortened; the other commands accept any unique beginning of an id.
    """
    if list_name is not None and view is not None:
        raise click.UsageError("Name a list or a view, not both.")

    async def work(opened: OpenStore) -> list[Todo]:
        from app.store import Arrangement, SmartView, Sort

        if list_name is not None:
            target: Any = (await list_named(opened, list_name)).id
            sort = (await opened.store.arrangement(target)).sort
        else:
            target = SmartView(view or "all")
            sort = Sort.AGE if view in {None, "done"} else Sort.DUE
        arrangement = Arrangement(sort, shows_done=everything or view == "done")
        return await opened.store.todos(target, arrangement=arrangement)

    todos = with_store(context, work)
    if as_json:
        print_json([_as_data(todo) for todo in todos])
        return ExitCode.OK
    if todos:
        click.echo("\n".join(_as_lines(todos)))
    return ExitCode.OK


def _as_lines(todos: Sequence[Todo]) -> list[str]:
    from app.system.clock import local_now
    from app.system.display_text import sanitized
    from app.todo_text import read
    from app.todo_text.badges import badges_of

    now = local_now()
    lines: list[str] = []
    for todo in todos:
        text = read(todo.description or "")
        badges = badges_of(text, now, completed=todo.completed, list_name=todo.list_name)
        title = text.title.strip() or "(no text)"
        head = f"{todo.id[:SHORT_ID]} [{'x' if todo.completed else ' '}] {title}"
        lines.append(sanitized("  ".join([head, *(badge.text for badge in badges)])))
    return lines


def _as_data(todo: Todo) -> dict[str, Any]:
    from app.todo_text import read

    text = read(todo.description or "")
    return {
        "id": todo.id,
        "list_id": todo.list_id,
        "text": todo.description,
        "title": text.title,
        "completed": todo.completed,
        "due": text.due.word.removeprefix("due:") if text.due else None,
        "priority": text.priority,
        "tags": list(text.tags),
        "repeats": text.recurrence.word.removeprefix("rec:") if text.recurrence else None,
        "notes": text.notes or None,
        "created_at": todo.created_at,
        "completed_at": todo.completed_at,
    }


@click.command()
@click.argument("todo")
@json_option
@click.pass_context
def show(context: click.Context, todo: str, *, as_json: bool) -> int:
    """Print a to-do in full, with notes and details."""

    async def work(opened: OpenStore) -> tuple[Todo, str]:
        found = await todo_named(opened, todo)
        names = {each.id: each.name for each in await opened.all_lists()}
        return found, names.get(found.list_id) or "(no name)"

    found, list_name = with_store(context, work)
    data: dict[str, Any] = {**_as_data(found), "list": list_name}
    if as_json:
        print_json(data)
        return ExitCode.OK
    from app.system.display_text import sanitized

    click.echo(sanitized(found.description or "") if "\n" not in (found.description or "") else _lines(found))
    for key in ("list", "completed", "due", "priority", "tags", "repeats", "created_at", "completed_at", "id"):
        value = data[key]
        if value not in (None, [], ""):
            shown = " ".join(value) if key == "tags" else str(value)
            click.echo(f"{key + ':':<14}{sanitized(shown)}")
    return ExitCode.OK


def _lines(todo: Todo) -> str:
    from app.system.display_text import sanitized

    return "\n".join(sanitized(line) for line in (todo.description or "").splitlines())


@click.command()
@click.argument("todos", nargs=-1, required=True, metavar="TODO…")
@click.option("--open", "opens", is_flag=True, help="Reopen them instead.")
@click.pass_context
def done(context: click.Context, todos: tuple[str, ...], *, opens: bool) -> int:
    """Mark to-dos as done. If one repeats, its next occurrence is added."""
    return _write(context, todos, lambda opened, ids: opened.store.edit.set_completed(ids, completed=not opens))


@click.command()
@click.argument("todos", nargs=-1, required=True, metavar="TODO…")
@click.pass_context
def rm(context: click.Context, todos: tuple[str, ...]) -> int:
    """Delete to-dos; `todo-tui undo` brings them back."""
    return _write(context, todos, lambda opened, ids: opened.store.edit.delete_todos(ids))


@click.command()
@click.argument("todos", nargs=-1, required=True, metavar="TODO…")
@click.option("-l", "--list", "list_name", metavar="LIST", required=True, help="The list to move them to.")
@click.pass_context
def move(context: click.Context, todos: tuple[str, ...], list_name: str) -> int:
    """Move to-dos to another list."""

    async def write(opened: OpenStore, ids: Sequence[str]) -> str:
        return await opened.store.edit.move_todos(ids, (await list_named(opened, list_name)).id)

    return _write(context, todos, write)


@click.command()
@click.argument("todo")
@click.argument("text", nargs=-1)
@click.option("--plain", is_flag=True, help="Take the text literally, without dates, priorities and tags.")
@click.pass_context
def edit(context: click.Context, todo: str, text: tuple[str, ...], *, plain: bool) -> int:
    """Change the first line of a to-do. Without TEXT, edit its whole text in your editor."""

    async def write(opened: OpenStore, ids: Sequence[str]) -> str:
        from app.system.clock import local_now
        from app.todo_text import understand

        if text:
            line = " ".join(text)
            stored = line if plain else understand(line, local_now().replace(tzinfo=None)).stored
            return await opened.store.edit.edit_first_line(ids[0], stored)
        return await _in_editor(opened, ids[0])

    return _write(context, (todo,), write)


async def _in_editor(opened: OpenStore, todo_id: str) -> str:
    import asyncio
    import os

    from app.system.editor import EditorError, edited, editor_command

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("Give the new text: without a terminal, no editor can be opened.")
    (todo,) = await opened.store.find_todos(id_prefix=todo_id)
    before = todo.description or ""
    try:
        after = await asyncio.to_thread(edited, before, editor_command(os.environ))
    except EditorError as error:
        raise click.ClickException(str(error)) from error
    if after == before or not after.strip():
        return ""
    return await opened.store.edit.edit_todo(todo_id, after)


def _write(
    context: click.Context, words: Sequence[str], write: Callable[[OpenStore, Sequence[str]], Awaitable[str]]
) -> int:
    async def work(opened: OpenStore) -> str:
        ids = [(await todo_named(opened, each)).id for each in words]
        return await write(opened, list(dict.fromkeys(ids)))

    label = with_store(context, work)
    print_note(context, f"{label}." if label else "Nothing to do.")
    return ExitCode.OK


@click.command()
@click.pass_context
def undo(context: click.Context) -> int:
    """Undo the last step, made here or in the interface."""
    return _undo_or_redo(context, lambda opened: opened.store.edit.undo(), "Undone", "Nothing to undo.")


@click.command()
@click.pass_context
def redo(context: click.Context) -> int:
    """Redo what was undone last."""
    return _undo_or_redo(context, lambda opened: opened.store.edit.redo(), "Redone", "Nothing to redo.")


def _undo_or_redo(context: click.Context, step: Callable[[OpenStore], Awaitable[Any]], done: str, nothing: str) -> int:
    async def work(opened: OpenStore) -> Any:
        return await step(opened)

    undone = with_store(context, work)
    if undone is None:
        print_note(context, nothing)
        return ExitCode.FAILED
    kept = f" Skipped {undone.kept} that changed elsewhere since." if undone.kept else ""
    print_note(context, f"{done}: {undone.label}.{kept}")
    return ExitCode.OK


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def lists(context: click.Context, *, as_json: bool) -> int:
    """Print all lists, with the number of open and done to-dos."""
    if context.invoked_subcommand is not None:
        return ExitCode.OK

    async def work(opened: OpenStore) -> list[TodoList]:
        return await opened.all_lists()

    every = with_store(context, work)
    if as_json:
        print_json(
            [{"id": each.id, "name": each.name, "open": each.open_count, "done": each.done_count} for each in every]
        )
        return ExitCode.OK
    from app.system.display_text import sanitized

    for each in every:
        name = sanitized(each.name or "(no name)")
        click.echo(f"{each.id[:SHORT_ID]} {name}  {each.open_count} open  {each.done_count} done")
    return ExitCode.OK


@lists.command("add")
@click.argument("name")
@click.pass_context
def add_list(context: click.Context, name: str) -> int:
    """Add a list and print its id."""

    async def work(opened: OpenStore) -> str:
        return await opened.store.edit.add_list(name)

    click.echo(with_store(context, work))
    return ExitCode.OK


@lists.command("rename")
@click.argument("name")
@click.argument("new_name")
@click.pass_context
def rename_list(context: click.Context, name: str, new_name: str) -> int:
    """Rename a list."""

    async def work(opened: OpenStore) -> str:
        return await opened.store.edit.rename_list((await list_named(opened, name)).id, new_name)

    print_note(context, f"{with_store(context, work)}.")
    return ExitCode.OK


@lists.command("rm")
@click.argument("name")
@click.pass_context
def remove_list(context: click.Context, name: str) -> int:
    """Delete a list and its to-dos; `todo-tui undo` brings them back."""

    async def work(opened: OpenStore) -> str:
        return await opened.store.edit.delete_list((await list_named(opened, name)).id)

    print_note(context, f"{with_store(context, work)}.")
    return ExitCode.OK


COMMANDS = (add, list_todos, show, done, rm, move, edit, undo, redo, lists)
