"""Makes the reference pages from the code itself: `python docs/reference.py`; with `--check` it only compares.

Owns `keys.md`, `commands.md`, `api.md` and `config.schema.json`. What is in them comes from the registry of actions,
the command line, the engine and the settings.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click

import sync
from app.cli.main import command_line
from app.settings.keymap import ACTIONS, PRESETS, Keymap, Place
from app.settings.settings import json_schema

DOCS = Path(__file__).parent

_KEYS_HEAD = """# Keys

`?` in todo-tui shows the keys in force; typing there filters them. `ctrl+p` finds any action by name.

## Other keys

In the [config file](../config.example.toml), `keymap` chooses a set of keys to begin with: `default`, `vim` or
`plain`, which moves with arrows and function keys instead of letters. The table `[keys]` changes single actions:

```toml
keymap = "vim"

[keys]
"todos.toggle_todo" = ["x", "ctrl+d"]
"anywhere.jump" = "ctrl+k"
"todos.copy_todo" = []
```

A key is named as in `d`, `ctrl+k`, `shift+up`, `f5` or `pageup`; an empty list leaves an action without a key. An
action that does not exist, a key that does not exist, and a key with two meanings in one place are refused with an
error message.

## All actions

This table is made from the code (`python docs/reference.py`).

| Action | default | vim | plain | What it does |
|---|---|---|---|---|
"""


def keys_page() -> str:
    """The text of `keys.md`."""
    keymaps = [Keymap.of(preset) for preset in PRESETS]
    rows: list[str] = []
    for place in Place:
        rows.append(f"| **{place.value}** | | | | |")
        for action in ACTIONS:
            if action.place is place:
                cells = [" ".join(f"`{key}`" for key in keymap.shown(action.id)) for keymap in keymaps]
                rows.append(f"| `{action.id}` | {' | '.join(cells)} | {action.help} |")
    return _KEYS_HEAD + "\n".join(rows) + "\n"


_COMMANDS_HEAD = """# Commands

All of them work on the same lists as the interface, while it runs or not. What is data goes to stdout, what was done
is told on stderr (`--quiet` keeps that back). Nothing is ever asked unless both are a terminal.

| Exit code | Meaning |
|---|---|
| 0 | done |
| 1 | not done; one sentence on stderr tells why |
| 2 | wrong usage, or a setting that cannot be used |
| 4 | `sync` was not finished in time |
| 130, 128 + n | ended by Ctrl+C, by signal n |

A to-do is named by the beginning of its id or by words of its text, a list by its id or by a part of its name. Where
several fit, a terminal is asked which one is meant; a script gets exit code 1.

This page is made from the code (`python docs/reference.py`).
"""


def commands_page() -> str:
    """The text of `commands.md`."""
    return _COMMANDS_HEAD + "".join(_command_texts(command_line, "todo-tui"))


def _command_texts(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    yield f"\n## {name}\n\n{inspect.cleandoc(command.help or '')}\n\n```\n{usage}\n```\n"
    options = [each for each in command.get_params(context) if isinstance(each, click.Option) and not each.hidden]
    rows = [record for option in options if (record := option.get_help_record(context)) and "--help" not in record[0]]
    if rows:
        yield "\n| Option | |\n|---|---|\n"
        for written, told in rows:
            yield f"| `{written.replace('|', '/')}` | {told.replace('|', '/')} |\n"
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            if found is not None and not found.hidden:
                yield from _command_texts(found, f"{name} {each}")


_API_HEAD = """# Public names of the engine

Everything that `import sync` offers, with the first words of its docstring; `help()` tells the rest. The guides are
[engine.md](engine.md), [syncing.md](syncing.md), [uploading.md](uploading.md), [schema.md](schema.md) and
[raw-tables.md](raw-tables.md).

This page is made from the code (`python docs/reference.py`).

| Name | |
|---|---|
"""


def api_page() -> str:
    """The text of `api.md`."""
    rows: list[str] = []
    for name in sync.__all__:
        told = inspect.getdoc(getattr(sync, name)) or ""
        first = " ".join(told.split("\n\n")[0].split()).replace("|", "/")
        rows.append(f"| `{name}` | {first} |\n")
    return _API_HEAD + "".join(rows)


def schema_page() -> str:
    """The text of `config.schema.json`."""
    return json.dumps(json_schema(), indent=1) + "\n"


PAGES = {"keys.md": keys_page, "commands.md": commands_page, "api.md": api_page, "config.schema.json": schema_page}


def main() -> int:
    """Write the pages, or tell which are out of date; returns the exit code."""
    if "--check" not in sys.argv:
        for name, make in PAGES.items():
            (DOCS / name).write_text(make(), "utf-8")
        return 0
    stale = [name for name, make in PAGES.items() if (DOCS / name).read_text("utf-8") != make()]
    if stale:
        sys.stderr.write(f"Out of date: {', '.join(stale)}; run python docs/reference.py.\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
