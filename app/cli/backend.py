"""The commands `todo-tui backend …`: running the demo backend by itself, and who can sign in at it.

Owns their options and words, and what stops the process. Must import nothing heavy at module level.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from app.cli.context import ExitCode, setting_option, settings_of
from app.system.user_error import UserError

if TYPE_CHECKING:
    import asyncio
    import sqlite3
    from collections.abc import Callable

    from app.backend import BackendConfig

T = TypeVar("T")

# Longer than the backend takes to end on its own; an orphan that hangs must not keep the port.
_ORPHAN_SECONDS = 8.0


@click.group(invoke_without_command=True)
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="N", help="Port to listen on; 0 picks a free one.  [default: 6161]"
)
@click.option(
    "--sync-port", type=click.IntRange(0, 65535), metavar="N", help="Serve the sync API on this port instead."
)
@setting_option("database")
@click.option("--init-database", is_flag=True, help="Create the tables and the publication in PostgreSQL, and exit.")
@click.option(
    "--powersync-url", metavar="URL", help="Address of the PowerSync Service that syncs PostgreSQL, for clients."
)
@click.option("--audience", metavar="NAME", default="todo-tui", show_default=True, help="Audience of the tokens.")
@setting_option("sync_config", type=click.Path(path_type=Path))
@click.option("--allow-remote", is_flag=True, help="Allow addresses that other machines can reach.")
@click.option("--open", "open_to_all", is_flag=True, help="Accept anybody as any user, without a sign-in key.")
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
@click.pass_context
def backend(
    context: click.Context,
    *,
    host: str,
    port: int | None,
    sync_port: int | None,
    database: str | None,
    init_database: bool,
    powersync_url: str | None,
    audience: str,
    sync_config: Path | None,
    allow_remote: bool,
    open_to_all: bool,
    until_stdin_closes: bool,
) -> int | None:
    """Run the demo backend by itself. It prints its address when it is ready.

    A todo-tui that the same account runs on this machine can sign in without a key; all others need one (`backend user
    add`).
    """
    file, postgres = _storage_of(context, database)
    context.obj = file  # for the commands below
    if context.invoked_subcommand is not None:
        return None
    if init_database:
        return _initialize(postgres)
    if postgres is not None and powersync_url is None:
        click.echo("Without --powersync-url, clients do not learn the address of their PowerSync Service.", err=True)
    from app.backend import BackendConfig, is_loopback

    if not host.strip():
        raise click.UsageError("Option --host must be an address or a name of this machine; 0.0.0.0 means all of them.")
    if not allow_remote and not is_loopback(host):
        why = "accepts anybody as any user" if open_to_all else "does not encrypt"
        raise click.UsageError(
            f"Other machines can reach {host}, and the demo backend {why}; add --allow-remote to allow that."
        )
    settings = settings_of(context)
    port = settings.port if port is None else port
    sync_config = settings.sync_config if sync_config is None else sync_config
    if open_to_all:
        click.echo("Anybody who can reach this backend is accepted as any user (--open).", err=True)
    config = BackendConfig(
        file,
        postgres=postgres,
        powersync_url=powersync_url.rstrip("/") if powersync_url else None,
        audience=audience,
        host=host,
        port=port,
        sync_port=sync_port,
        sync_config=None if sync_config is None else sync_config.absolute(),
        open_to_all=open_to_all,
        access_log=not until_stdin_closes,
    )
    return _serve(config, until_stdin_closes=until_stdin_closes)


def _storage_of(context: click.Context, database: str | None) -> tuple[Path, str | None]:
    """The backend's own file, and the address of PostgreSQL if that keeps the lists."""
    from app.settings.settings import POSTGRES

    settings = settings_of(context, **({} if database is None else {"database": database}))
    own = settings.data_dir / "backend.db"
    if settings.database is None:
        return own, None
    return (own, settings.database) if settings.database.startswith(POSTGRES) else (Path(settings.database), None)


def _initialize(postgres: str | None) -> int:
    """Create the tables in PostgreSQL. Returns the exit code."""
    from app.backend import BackendError

    if postgres is None:
        raise click.UsageError("--init-database needs a PostgreSQL database; add --database postgresql://….")
    try:
        from app.backend.data.postgres import initialize

        for sentence in initialize(postgres):
            click.echo(sentence, err=True)
    except ImportError as error:
        raise click.ClickException(
            "Support for PostgreSQL is not installed; run pip install 'todo-tui[postgres]'."
        ) from error
    except BackendError as error:
        raise click.ClickException(str(error)) from error
    click.echo("The tables lists and todos and the publication powersync exist.", err=True)
    return ExitCode.OK


@backend.group()
def user() -> None:
    """Manage who can sign in at the backend with a key."""


@user.command()
@click.argument("name")
@click.option("--mine", is_flag=True, help="Give access to the lists that todo-tui shows on this machine.")
@click.pass_context
def add(context: click.Context, name: str, *, mine: bool) -> int:
    """Create a sign-in key for NAME and print it once. Without --mine it is for a new user, who has no lists yet.

    Give it to `todo-tui login URL` on the device that should sign in; several devices can use the same key.
    """
    import uuid

    from app.backend.data import users
    from app.system import sign_in_keys

    user_id = _own_user(context) if mine else str(uuid.uuid4())
    secret = sign_in_keys.new_secret()
    try:
        _with_database(context, lambda connection: users.add(connection, name, user_id, secret))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{name}:{secret}")
    click.echo("Save it now: it is not shown again.", err=True)
    return ExitCode.OK


def _own_user(context: click.Context) -> str:
    """The user whose lists todo-tui shows on this machine."""
    from app.connection.account import account_of

    try:
        return account_of(settings_of(context)).user_id
    except UserError as error:
        raise click.ClickException(str(error)) from error


@user.command("list")
@click.pass_context
def list_users(context: click.Context) -> int:
    """Print who can sign in: the name of each key, and the user whose lists it opens."""
    from app.backend.data import users

    for each in _with_database(context, users.listed):
        click.echo(f"{each.name}\t{each.user_id}")
    return ExitCode.OK


@user.command()
@click.argument("name")
@click.pass_context
def remove(context: click.Context, name: str) -> int:
    """Revoke the key of NAME. The lists stay; a connected device goes on syncing for at most five minutes."""
    from app.backend.data import users

    if not _with_database(context, lambda connection: users.remove(connection, name)):
        raise click.ClickException(f"There is no user {name}; run todo-tui backend user list to see all.")
    return ExitCode.OK


def _with_database(context: click.Context, work: Callable[[sqlite3.Connection], T]) -> T:
    """Run `work` as one transaction on the backend's database, which is created if it does not exist."""
    import asyncio
    import sqlite3

    from app.backend import BackendError
    from app.backend.data.changes import Changes
    from app.backend.data.database import Database

    path: Path = context.obj

    async def run() -> T:
        database = await Database.open(path, Changes())
        try:
            return await database.write(work, user_id="")
        finally:
            await database.close()

    os.umask(0o077)
    try:
        return asyncio.run(run())
    except BackendError as error:
        raise click.ClickException(str(error)) from error
    except sqlite3.Error as error:
        raise click.ClickException(f"The database {path} cannot be used: {error}.") from error


def _serve(config: BackendConfig, *, until_stdin_closes: bool) -> int:
    """Serve until a signal, or until stdin closes if that is asked for. Returns the exit code."""
    import asyncio
    import errno
    import logging

    from app.backend import BackendError
    from app.connection.embedded_backend import CHILD_PORT_TAKEN

    # The file and what SQLite puts beside it hold the user's data.
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        ended_by = asyncio.run(_serve_until_stopped(config, until_stdin_closes=until_stdin_closes))
    except BackendError as error:
        cause = error.__cause__
        if until_stdin_closes and isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
            return CHILD_PORT_TAKEN
        raise click.ClickException(str(error)) from error
    return ExitCode.OK if ended_by is None else 128 + ended_by


async def _serve_until_stopped(config: BackendConfig, *, until_stdin_closes: bool) -> int | None:
    """Serve until stopped; returns the number of the signal that stopped it, if one did."""
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
    # Whoever started it may have stopped reading: serve all the same.
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
