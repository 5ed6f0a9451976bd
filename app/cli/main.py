"""The command line: options, exit codes, and one sentence for everything that goes wrong.

Owns what the user types, and what stdout, stderr and the exit code mean. Must import nothing heavy at module level:
`--help`, `--version` and wrong usage answer at once, and the backend never loads the interface.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import click

from app.cli import configuring, import_export, syncing, todos
from app.cli.backend import backend
from app.cli.context import ExitCode, setting_option, settings_of

_THREADS_SECONDS = 0.5

_INTERRUPTED = 130


def main() -> None:
    """The console script: run the command line and exit. A failure is one sentence on stderr."""
    try:
        code = command_line.main(prog_name="todo-tui", standalone_mode=False)
    except click.ClickException as error:
        message = " ".join(error.format_message().split())
        click.echo(f"todo-tui: {message}", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except BrokenPipeError:
        # The reader has enough, like head. Python would report it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.OK
    except Exception as error:  # noqa: BLE001 - the last chance to report it
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".: ")
        click.echo(f"todo-tui: todo-tui crashed (internal error): {reason}.", err=True)
        code = ExitCode.FAILED
    _exit(code if isinstance(code, int) else ExitCode.OK)


def _exit(code: int) -> NoReturn:
    """Exit without waiting for a thread that is stuck: a name lookup cannot be interrupted."""
    deadline = time.monotonic() + _THREADS_SECONDS
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0, deadline - time.monotonic()))
            if thread.is_alive():
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(OSError, ValueError):
                        stream.flush()
                os._exit(code)
    sys.exit(code)


def _print_version(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
    if not value or context.resilient_parsing:
        return
    from importlib import metadata

    try:
        version = metadata.version("todo-tui")
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    click.echo(f"todo-tui {version}")
    context.exit()


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path), metavar="PATH", help="Use this config file.")
@setting_option("profile")
@setting_option("data_dir")
@setting_option("backend_url")
@setting_option("user_id")
@setting_option("port")
@click.option("--quiet", "-q", is_flag=True, help="Print only errors on stderr.")
@click.option("--no-color", is_flag=True, help="Turn off colour, as NO_COLOR does.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@click.pass_context
def command_line(
    context: click.Context, config: Path | None, *, quiet: bool, no_color: bool, **options: str | None
) -> int | None:
    """A to-do list for the terminal that works offline and syncs by itself.

    Without a command it opens the interface. Without --backend it runs a backend of its own, which only this machine
    can reach, and shares it with every other todo-tui.
    """
    del quiet  # print_note looks it up
    if no_color:
        os.environ["NO_COLOR"] = "1"
    context.obj = (config, options)
    if context.invoked_subcommand is not None:
        return None
    settings = settings_of(context)

    from app.cli.run import run_interface
    from app.system.user_error import UserError

    try:
        return run_interface(settings)
    except UserError as error:
        raise click.ClickException(str(error)) from error


@command_line.command()
@click.argument("url")
@click.option("--keyring", "in_keyring", is_flag=True, help="Store it in the desktop keyring, not in a file.")
@click.pass_context
def login(context: click.Context, url: str, *, in_keyring: bool) -> int:
    """Store a sign-in key for the backend at URL. The key is prompted for, or read from stdin.

    Whoever runs the backend creates it with `todo-tui backend user add NAME`. It is stored in the data directory, or
    with --keyring in the desktop keyring (extra: keyring).
    """
    from app.connection.login import LoginError, sign_in

    settings = settings_of(context, backend_url=url)
    assert settings.backend_url is not None
    secret = click.prompt("Sign-in key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    try:
        user_id = sign_in(settings.data_dir, settings.backend_url, secret, in_keyring=in_keyring)
    except LoginError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Signed in at {settings.backend_url} as user {user_id}.", err=True)
    return ExitCode.OK


for _command in (backend, *todos.COMMANDS, *syncing.COMMANDS, *import_export.COMMANDS, *configuring.COMMANDS):
    command_line.add_command(_command)
