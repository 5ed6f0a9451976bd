"""The commands about todo-tui itself: its settings, its keys, completions for shells, and what is wrong.

Owns what they print. What is checked is `app.doctor`'s.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from app.command_context import ExitCode, settings_of
from app.commands.everyday import json_option
from app.commands.opened import print_json

_SHELLS = ("bash", "zsh", "fish")


@click.group()
def config() -> None:
    """The settings: where their file is, what they are, and whether they can be used."""


@config.command()
@click.pass_context
def path(context: click.Context) -> int:
    """Print where the config file is looked for."""
    from app.settings import default_config_path

    given, _ = context.find_root().obj
    click.echo(given or default_config_path())
    return ExitCode.OK


@config.command("show")
@json_option
@click.pass_context
def show_config(context: click.Context, *, as_json: bool) -> int:
    """Print all settings as they are in force; passwords in addresses are left out."""
    settings = settings_of(context)
    values = {key: _harmless(getattr(settings, key)) for key in type(settings).model_fields}
    if as_json:
        print_json(values)
        return ExitCode.OK
    for key, value in values.items():
        click.echo(f"{key} = {value!r}" if not isinstance(value, bool) else f"{key} = {str(value).lower()}")
    return ExitCode.OK


def _harmless(value: Any) -> Any:
    if not isinstance(value, str | Path | UUID):
        return value
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:…@", str(value))


@config.command()
@click.pass_context
def check(context: click.Context) -> int:
    """Say whether the settings can be used; exit code 2 and one sentence if not."""
    settings_of(context)
    click.echo("The settings can be used.", err=True)
    return ExitCode.OK


@config.command()
def schema() -> int:
    """Print a JSON schema of the config file, for editors."""
    from app.settings import json_schema

    print_json(json_schema())
    return ExitCode.OK


@click.command()
@json_option
@click.pass_context
def keys(context: click.Context, *, as_json: bool) -> int:
    """Print all actions of the interface with their keys."""
    from app.keymap import ACTIONS, Keymap

    settings = settings_of(context)
    keymap = Keymap.of(settings.keymap, settings.keys)
    if as_json:
        print_json({action.id: list(keymap.of_action(action.id)) for action in ACTIONS})
        return ExitCode.OK
    for action in ACTIONS:
        click.echo(f"{action.id:<28} {' '.join(keymap.shown(action.id)):<16} {action.help}")
    return ExitCode.OK


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completions(context: click.Context, shell: str) -> int:
    """Print what makes SHELL complete the commands and options of todo-tui.

    bash: eval "$(todo-tui completions bash)" in ~/.bashrc; zsh alike in ~/.zshrc; fish: todo-tui completions fish >
    ~/.config/fish/completions/todo-tui.fish.
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(context.find_root().command, {}, "todo-tui", "_TODO_TUI_COMPLETE").source())
    return ExitCode.OK


@click.command()
@json_option
@click.pass_context
def doctor(context: click.Context, *, as_json: bool) -> int:
    """Look for what is wrong, change nothing, and say what to do. Exit code 1 if there is a problem."""
    from app.doctor import Finding, examine

    findings: list[Finding] = examine(settings_of(context))
    if as_json:
        print_json([{"what": each.what, "state": each.state, "told": each.told} for each in findings])
    else:
        marks = {"ok": "✓", "warning": "!", "problem": "✗"}
        for each in findings:
            click.echo(f"{marks[each.state]} {each.what}: {each.told}")
    return ExitCode.FAILED if any(each.state == "problem" for each in findings) else ExitCode.OK


COMMANDS = (config, keys, completions, doctor)
