"""Generates whatever repeats the code: `python docs/reference.py`; with `--check` it only compares.

Owns `keys.md`, `commands.md`, `api.md`, `config.schema.json`, `config.example.toml`, the tables of settings in
`configuration.md` and the README, and the options of settings in `app/cli/setting_options.py`. What is in them comes
from the registry of actions, the command line, the engine and the settings.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

import sync
from app.cli.main import command_line
from app.settings.keymap import ACTIONS, PRESETS, Keymap, Place
from app.settings.settings import SETTINGS, Setting, json_schema

ROOT = Path(__file__).parents[1]
WIDTH = 120

_KEYS_HEAD = """# Keys

`?` in todo-tui shows the keys in use; typing there filters them. `ctrl+p` finds any action by its name.

## Other keys

In the [config file](../config.example.toml), `keymap` is the set of keys to start from: `default`, `vim`, or `plain`,
which uses arrows and function keys instead of letters. The table `[keys]` changes single actions:

```toml
keymap = "vim"

[keys]
"todos.toggle_todo" = ["x", "ctrl+d"]
"anywhere.jump" = "ctrl+k"
"todos.copy_todo" = []
```

Keys are written like `d`, `ctrl+k`, `shift+up`, `f5` or `pageup`; an empty list leaves an action without a key. Unknown
actions, unknown keys, and keys with two meanings in one place are rejected with an error message.

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

Commands work on the same lists as the interface, whether it is running or not. Data goes to stdout; what was done is
reported on stderr, unless `--quiet` is given. Commands ask questions only in a terminal.

| Exit code | Meaning |
|---|---|
| 0 | success |
| 1 | failure; one sentence on stderr says why |
| 2 | wrong usage, or a setting that is not valid |
| 4 | `sync` did not finish in time |
| 130, 128 + n | stopped by Ctrl+C, by signal n |

A to-do is identified by the beginning of its id or by words of its text, a list by its id or by part of its name. If
several match, you are asked which one you mean; a script gets exit code 1.

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
        for written, words in rows:
            yield f"| `{written.replace('|', '/')}` | {words.replace('|', '/')} |\n"
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            if found is not None and not found.hidden:
                yield from _command_texts(found, f"{name} {each}")


_API_HEAD = """# Public names of the engine

Everything that `import sync` offers, with the first words of its docstring; `help()` has the rest. The guides are
[engine.md](engine.md), [syncing.md](syncing.md), [uploading.md](uploading.md), [schema.md](schema.md) and
[raw-tables.md](raw-tables.md). `sync.__version__` is the version, as a string.

This page is made from the code (`python docs/reference.py`).

| Name | |
|---|---|
"""


def api_page() -> str:
    """The text of `api.md`."""
    rows: list[str] = []
    for name in sync.__all__:
        doc = inspect.getdoc(getattr(sync, name)) or ""
        first = " ".join(doc.split("\n\n")[0].split()).replace("|", "/")
        rows.append(f"| `{name}` | {first} |\n")
    return _API_HEAD + "".join(rows)


def schema_page() -> str:
    """The text of `config.schema.json`."""
    return json.dumps(json_schema(), indent=1) + "\n"


_EXAMPLE_HEAD = """# Settings of todo-tui.
#
# Copy this file to the config directory of your system as todo-tui/config.toml (Linux: ~/.config/todo-tui/config.toml,
# macOS: ~/Library/Application Support/todo-tui/config.toml), or pass it with --config PATH. Remove the # in front of a
# setting to change it.
#
# The environment variable of a setting overrides this file, and its command-line option overrides both.
#
# The lists in a data directory belong to the backend and the user they were first synced with. For another backend or
# user, use another directory too.
#
# This file is made from the code (python docs/reference.py).
"""


def example_page() -> str:
    """The text of `config.example.toml`."""
    return _EXAMPLE_HEAD + "".join(map(_example_of, SETTINGS.values()))


def _example_of(setting: Setting) -> str:
    sources = f"Environment: {setting.variable}{', as JSON' if setting.toml is dict else ''}."
    if setting.option:
        command = "" if setting.option_of == "todo-tui" else f" of `{setting.option_of}`"
        sources += f" Option{command}: {setting.option}."
    if setting.default:
        sources += f" Default: {setting.default}."
    comment = [line for text in (_sentences(setting), sources) for line in textwrap.wrap(text, WIDTH - 2)]
    lines = [*(f"# {line}" for line in comment), *(f"#{line}" for line in setting.example.splitlines())]
    return "\n" + "\n".join(lines) + "\n"


def configuration_page() -> str:
    """The text of `configuration.md`, with its table as it should be."""
    rows = [f"| `{name}` | {_with_links(_sentences(setting), 'docs/')} |\n" for name, setting in SETTINGS.items()]
    return _with_table("docs/configuration.md", ["Key", "What it is"], rows)


def readme_page() -> str:
    """The text of the README, with its table of settings as it should be."""
    rows: list[str] = []
    for name, setting in SETTINGS.items():
        flag = f"{setting.option_of.removeprefix('todo-tui').strip()} {setting.option} {setting.metavar}".strip()
        option = f"`{flag}` ".replace("|", "\\|") if setting.option else ""
        default = setting.default or f"`{setting.example.partition(' = ')[2]}`"
        rows.append(f"| {option}| `{setting.variable}` | `{name}` | {_with_links(default)} |\n")
    return _with_table("README.md", ["Option", "Environment", "In the file", "Default"], rows)


def _sentences(setting: Setting) -> str:
    return f"{setting.summary} {setting.details}".rstrip()


def _with_links(text: str, below: str = "") -> str:
    return re.sub(r"docs/([\w-]+\.md)", lambda found: f"[{found[1]}]({found[0].removeprefix(below)})", text)


def _with_table(path: str, headings: list[str], rows: list[str]) -> str:
    """The text of a file, with other rows in the table that has these headings."""
    head = f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}\n"
    before, found, after = (ROOT / path).read_text("utf-8").partition(head)
    assert found, f"{path} has no table with the headings {headings}"
    return before + head + "".join(rows) + re.sub(r"\A(\|.*\n)*", "", after)


def options_module() -> str:
    """The text of `app/cli/setting_options.py`."""
    lines = [
        '"""The command-line options of settings. Made from `app.settings.settings` by `python docs/reference.py`.'
    ]
    lines += ["", "Owns nothing: it is here so that `--help` need not import pydantic.", '"""', ""]
    lines += ["from __future__ import annotations", "", "from typing import Final", ""]
    lines += ["SETTING_OPTIONS: Final[dict[str, tuple[str, str, str]]] = {"]
    for name, setting in SETTINGS.items():
        if setting.option:
            values = (setting.option, setting.metavar, setting.option_help)
            lines += [f"    {_quoted(name)}: (", *(f"        {_quoted(value)}," for value in values), "    ),"]
    lines += ["}", '"""By setting: the option, what it calls its value, and its help."""']
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


PAGES = {
    "docs/keys.md": keys_page,
    "docs/commands.md": commands_page,
    "docs/api.md": api_page,
    "docs/config.schema.json": schema_page,
    "config.example.toml": example_page,
    "docs/configuration.md": configuration_page,
    "README.md": readme_page,
    "app/cli/setting_options.py": options_module,
}


def main() -> int:
    """Write the files, or say which are out of date; returns the exit code."""
    if "--check" not in sys.argv:
        for name, make in PAGES.items():
            (ROOT / name).write_text(make(), "utf-8")
        return 0
    stale = [name for name, make in PAGES.items() if (ROOT / name).read_text("utf-8") != make()]
    if stale:
        sys.stderr.write(f"Out of date: {', '.join(stale)}; run python docs/reference.py.\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
