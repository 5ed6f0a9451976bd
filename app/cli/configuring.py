"""The commands about todo-tui itself: its settings, its keys, completions for shells, and its health.

Owns what they print. What is checked is `app.cli.doctor`'s, how a database is
repaired `app.cli.repair`'s.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import click

from app.cli.context import ExitCode, settings_of
from app.cli.output import print_json
from app.cli.setting_options import SETTING_OPTIONS
from app.cli.todos import json_option

_SHELLS = ("bash", "zsh", "fish")


@click.group()
def config() -> None:
    """Show and check the settings."""


@config.command()
@click.pass_context
def path(context: click.Context) -> int:
    """Print the path of the config file."""
    from app.settings.sources import default_config_path

    given, _ = context.find_root().obj
    click.echo(given or default_config_path())
    return ExitCode.OK


@config.command("show")
@json_option
@click.pass_context
def show_config(context: click.Context, *, as_json: bool) -> int:
    """Print the settings in use; keys, and passwords in addresses, are hidden."""
    settings = settings_of(context)
    values = {key: _without_secrets(key, getattr(settings, key)) for key in type(settings).model_fields}
    if as_json:
        print_json(values)
        return ExitCode.OK
    for key, value in values.items():
        click.echo(f"{key} = {value!r}" if not isinstance(value, bool) else f"{key} = {str(value).lower()}")
    return ExitCode.OK


def _without_secrets(key: str, value: Any) -> Any:
    if key == "sign_in_key" and value is not None:
        return f"{str(value).partition(':')[0]}:…"
    if isinstance(value, dict):
        return {name: _without_secrets(name, each) for name, each in cast("dict[str, Any]", value).items()}
    if not isinstance(value, str | Path | UUID):
        return value
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:…@", str(value))


@config.command()
@click.pass_context
def check(context: click.Context) -> int:
    """Check the settings. The exit code is 2 if they are not valid."""
    settings_of(context)
    click.echo("The settings are valid.", err=True)
    return ExitCode.OK


@config.command()
def schema() -> int:
    """Print a JSON schema of the config file, for editors."""
    from app.settings.settings import json_schema

    print_json(json_schema())
    return ExitCode.OK


@click.command()
@json_option
@click.pass_context
def keys(context: click.Context, *, as_json: bool) -> int:
    """Print all actions of the interface with their keys."""
    from app.settings.keymap import ACTIONS, Keymap

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
    """Print the completion script for SHELL.

    bash: eval "$(todo-tui completions bash)" in ~/.bashrc; zsh: the same with zsh, in ~/.zshrc; fish: todo-tui
    completions fish > ~/.config/fish/completions/todo-tui.fish.
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(context.find_root().command, {}, "todo-tui", "_TODO_TUI_COMPLETE").source())
    return ExitCode.OK


@click.command()
@json_option
@click.option("--repair", "repairs", is_flag=True, help="Put a new database in place of a damaged one.")
@click.option("--yes", is_flag=True, help="With --repair: do not ask, even if the database is not damaged.")
@click.option("--bundle", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a report.")
@click.pass_context
def doctor(context: click.Context, *, as_json: bool, repairs: bool, yes: bool, bundle: Path | None) -> int:
    """Look for what is wrong, change nothing, and say what to do. Exit code 1 if there is a problem.

    --repair puts a new database in place of the old one and carries over what only this device has: changes that wait
    for upload, rejected changes, conflicts, the undo history, positions and the arrangement of views. The old files are
    kept beside it; the lists are downloaded again with the next sync. It refuses while a todo-tui has the lists open,
    and asks first if the database is not damaged. --bundle writes what was found into a file, without names, texts,
    keys and addresses.
    """
    from app.cli.doctor import Finding, bundle_text, examine

    settings = settings_of(context)
    if repairs:
        from app.cli.repair import repair

        return repair(context, settings.data_dir / "todo.db", yes=yes)
    findings: list[Finding] = examine(settings)
    if bundle is not None:
        try:
            descriptor = os.open(bundle, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(bundle_text(findings, settings))
        except OSError as error:
            raise click.ClickException(f"{bundle} cannot be written: {error.strerror}.") from error
    if as_json:
        print_json([{"what": each.what, "state": each.state, "told": each.description} for each in findings])
    else:
        marks = {"ok": "✓", "warning": "!", "problem": "✗"}
        for each in findings:
            click.echo(f"{marks[each.state]} {each.what}: {each.description}")
    return ExitCode.FAILED if any(each.state == "problem" for each in findings) else ExitCode.OK


@click.command()
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", default=8642, show_default=True, help="Port.")
@click.option("--allow-remote", is_flag=True, help="Allow addresses that other machines can reach.")
@click.pass_context
def serve(context: click.Context, *, host: str, port: int, allow_remote: bool) -> int:
    """Serve the interface to a browser (extra: serve). Anybody who can reach the address can use the lists."""
    import shlex
    import sys

    from app.backend.config import is_loopback

    settings_of(context)
    if not allow_remote and not is_loopback(host):
        raise click.UsageError(
            f"Other machines can reach {host}, and no key is required; add --allow-remote to allow that."
        )
    try:
        from textual_serve.server import Server
    except ImportError as error:
        raise click.ClickException(
            "Support for browsers is not installed; run pip install 'todo-tui[serve]'."
        ) from error
    config_file, options = context.find_root().obj
    given = {"--config": config_file, **{SETTING_OPTIONS[key][0]: value for key, value in options.items()}}
    words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    Server(shlex.join([sys.executable, "-m", "app", *words]), host=host, port=port, title="todo-tui").serve()
    return ExitCode.OK


COMMANDS = (config, keys, completions, doctor, serve)
