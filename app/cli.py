"""The command line: options, exit codes, and one sentence for everything that goes wrong.

Owns what the user types and what stdout, stderr and the exit code say. Must import nothing but click at module level:
`--help`, `--version` and wrong usage answer at once, and the backend never loads the interface.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    import asyncio

    from app.backend import BackendConfig
    from app.settings import Settings

# Longer than the backend takes to end on its own; an orphan that hangs must not keep the port.
_ORPHAN_SECONDS = 8.0

_THREADS_SECONDS = 0.5

_INTERRUPTED = 130


class ExitCode(IntEnum):
    """What the exit code of todo-tui says."""

    OK = 0
    FAILED = 1
    USAGE = 2


def main() -> None:
    """The console script: run the command line and exit. All of stderr is narration, one sentence per failure."""
    try:
        code = command_line.main(prog_name="todo-tui", standalone_mode=False)
    except click.ClickException as error:
        message = " ".join(error.format_message().split())
        click.echo(f"todo-tui: {message}", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - nobody is left who could tell the user
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".: ")
        click.echo(f"todo-tui: todo-tui ended by a mistake of its own ({reason}).", err=True)
        code = ExitCode.FAILED
    _exit(code if isinstance(code, int) else ExitCode.OK)


def _exit(code: int) -> NoReturn:
    """End the process, and do not wait for a thread that is stuck: looking up a name cannot be interrupted."""
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
@click.option("--config", type=click.Path(path_type=Path), metavar="PATH", help="Read this config file.")
@click.option("--data-dir", metavar="DIR", help="Keep the data in this directory.")
@click.option("--backend", "backend_url", metavar="URL", help="Sync with the backend at this address.")
@click.option("--user", "user_id", metavar="ID", help="Show and sync the lists of this user (a UUID or a number).")
@click.option("--port", metavar="N", help="Port of the demo backend inside todo-tui.  [default: 6161]")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@click.pass_context
def command_line(context: click.Context, config: Path | None, **options: str | None) -> int | None:
    """A to-do list for the terminal that works offline and syncs by itself.

    Without a command it opens the list. With no --backend it brings its own backend, on this machine only, and shares
    it with every other todo-tui that is started.
    """
    context.obj = (config, options)
    if context.invoked_subcommand is not None:
        return None
    settings = _settings(context)

    from app.memory import RunError
    from app.run import run_interface

    try:
        return run_interface(settings)
    except RunError as error:
        raise click.ClickException(str(error)) from error


@command_line.command()
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="N", help="Port to listen on; 0 takes a free one.  [default: 6161]"
)
@click.option(
    "--database",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the lists in this file.  [default: backend.db in the data directory]",
)
@click.option(
    "--sync-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Who syncs what, as PowerSync's sync config says it.  [default: each user their own lists]",
)
@click.option("--allow-remote", is_flag=True, help="Allow addresses that other machines can reach.")
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
@click.pass_context
def backend(
    context: click.Context,
    *,
    host: str,
    port: int | None,
    database: Path | None,
    sync_config: Path | None,
    allow_remote: bool,
    until_stdin_closes: bool,
) -> int:
    """Run the demo backend alone, and print its address when it is ready.

    It asks for no password: anyone who can reach its address can read and change everybody's lists.
    """
    from app.backend import BackendConfig, is_loopback

    if not host.strip():
        raise click.UsageError("Option --host must be an address or a name of this machine; 0.0.0.0 means all of them.")
    if not allow_remote and not is_loopback(host):
        raise click.UsageError(
            f"Other machines may reach {host}, and the demo backend lets in anyone who can reach it; "
            "add --allow-remote if that is wanted."
        )
    if port is None or database is None:
        settings = _settings(context)
        port = settings.port if port is None else port
        database = settings.data_dir / "backend.db" if database is None else database
        sync_config = settings.sync_config if sync_config is None else sync_config

    rules = None if sync_config is None else sync_config.absolute()
    config = BackendConfig(database.absolute(), host=host, port=port, sync_config=rules)
    return _serve(config, until_stdin_closes=until_stdin_closes)


def _settings(context: click.Context) -> Settings:
    from app.settings import SettingsError, load_settings

    config, options = context.find_root().obj
    try:
        return load_settings(config, options)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error


def _serve(config: BackendConfig, *, until_stdin_closes: bool) -> int:
    """Serve until a signal, or the end of stdin if that is asked for. Returns the exit code."""
    import asyncio
    import errno
    import logging

    from app.backend import BackendError
    from app.embedded import CHILD_PORT_TAKEN

    # The file and what SQLite puts beside it hold the user's data.
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        ended_by = asyncio.run(_serve_until_told(config, until_stdin_closes=until_stdin_closes))
    except BackendError as error:
        cause = error.__cause__
        if until_stdin_closes and isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
            return CHILD_PORT_TAKEN
        raise click.ClickException(str(error)) from error
    return ExitCode.OK if ended_by is None else 128 + ended_by


async def _serve_until_told(config: BackendConfig, *, until_stdin_closes: bool) -> int | None:
    """Serve; returns the number of the signal that ended it, if one did."""
    import asyncio
    import signal

    from app.backend import serve

    stop = asyncio.Event()
    hung_up = False

    def hang_up() -> None:
        nonlocal hung_up
        hung_up = True
        stop.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
    if until_stdin_closes:
        _stop_at_end_of_stdin(asyncio.get_running_loop(), stop)
    ended_by = await serve(config, stop=stop, on_ready=_announce)
    return signal.SIGHUP if hung_up else ended_by


def _announce(url: str) -> None:
    # Whoever started it may have stopped reading; that is no reason not to serve.
    with contextlib.suppress(OSError):
        click.echo(url)


def _stop_at_end_of_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Set `stop` when the parent has closed its end of stdin or has died, however it died."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)
        threading.Event().wait(_ORPHAN_SECONDS)
        os._exit(ExitCode.FAILED)

    # A thread, so that even an event loop that hangs does not outlive the parent.
    threading.Thread(target=watch, name="wait for the end of stdin", daemon=True).start()
