"""The commands about syncing: doing it, its state, what waits for upload, and what was rejected.

Owns what they print, and how a command syncs without the interface.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from app.cli.context import ExitCode, settings_of
from app.cli.open_store import OpenStore, open_store, with_store
from app.cli.output import print_json, print_note
from app.cli.todos import json_option

if TYPE_CHECKING:
    from app.store.sync_report import RejectedChange


@click.command()
@click.option(
    "--wait", type=click.FloatRange(0, 86_400), default=30.0, metavar="SECONDS", help="Wait no longer.  [default: 30]"
)
@click.pass_context
def sync(context: click.Context, wait: float) -> int:
    """Upload the waiting changes and download new ones, then exit. The exit code is 4 if that takes too long."""
    import asyncio
    import os

    from app.store.failures import StoreError
    from app.system.user_error import UserError

    settings = settings_of(context)
    os.umask(0o077)

    async def work() -> tuple[bool, int, str]:
        async with open_store(settings, syncs=True) as opened, _syncing(opened):
            database, finished = opened.database, True
            try:
                async with asyncio.timeout(wait):
                    await database.wait_for_upload()
                    await database.wait_for_sync()
                    await opened.store.wait_for_todos()
            except TimeoutError:
                finished = False
            waiting = (await database.upload_queue_stats()).entries
            error = database.status.download_error or database.status.upload_error
            return finished, waiting, "" if error is None else str(error)

    try:
        finished, waiting, reason = asyncio.run(work())
    except (UserError, StoreError) as error:
        raise click.ClickException(str(error)) from error
    if finished:
        print_note(context, "Everything is synced.")
        return ExitCode.OK
    changes = f"{waiting:,} changes wait" if waiting != 1 else "1 change waits"
    print_note(context, f"Not finished after {wait:g} seconds: {changes} to be uploaded. {reason}".rstrip())
    return ExitCode.UNFINISHED


@asynccontextmanager
async def _syncing(opened: OpenStore) -> AsyncGenerator[None]:
    """Sync the lists, without an interface, until the block is left.

    Raises:
        UserError: the lists belong to another user.
        StoreError: syncing cannot be started.
    """
    import asyncio

    opened.account.claim_user()
    store = opened.store
    # Before the connection: without subscriptions, the first checkpoint would remove the to-dos that are here.
    keeper = asyncio.create_task(store.keep_subscribed(), name="keep the lists subscribed")
    try:
        await store.subscribe_known()
        await store.connect()
        yield
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await opened.database.disconnect()


@click.command()
@json_option
@click.pass_context
def status(context: click.Context, *, as_json: bool) -> int:
    """Print one line for a status bar. It shows what is due and what waits for upload, without connecting."""

    async def work(opened: OpenStore) -> dict[str, Any]:
        counts = await anext(aiter(opened.store.watch_counts()))
        stats = await opened.database.upload_queue_stats()
        synced_at = opened.database.status.last_synced_at
        return {
            "open": counts.all,
            "today": counts.today,
            "overdue": counts.overdue,
            "waiting": stats.entries,
            "rejected": len(await opened.database.rejected_writes()),
            "last_synced_at": None if synced_at is None else synced_at.isoformat(),
        }

    data = with_store(context, work)
    if as_json:
        print_json(data)
        return ExitCode.OK
    parts = [f"{data['open']} open"]
    parts += [f"{data[key]} {key}" for key in ("today", "overdue", "waiting", "rejected") if data[key]]
    click.echo(" · ".join(parts))
    return ExitCode.OK


@click.command()
@json_option
@click.pass_context
def queue(context: click.Context, *, as_json: bool) -> int:
    """Print the changes that wait for upload. The oldest come first, one transaction per line."""

    async def work(opened: OpenStore) -> list[dict[str, Any]]:
        from app.store.change_words import KnownTexts, describe_entry

        found: list[dict[str, Any]] = []
        async for transaction in opened.database.crud_transactions():
            ids = [entry.id for entry in transaction.crud]
            rows = [(entry.table, entry.id) for entry in transaction.crud]
            rows += [("lists", str((entry.data or {}).get("list_id"))) for entry in transaction.crud]
            known = KnownTexts(await opened.store.report.texts_of_rows(rows))
            found.append(
                {
                    "transaction": transaction.transaction_id,
                    "changes": [describe_entry(entry, known) for entry in transaction.crud],
                    "ids": ids,
                }
            )
        return found

    found = with_store(context, work)
    if as_json:
        print_json(found)
        return ExitCode.OK
    from app.system.display_text import sanitized

    for each in found:
        click.echo(sanitized("; ".join(each["changes"][:5]) + (" …" if len(each["changes"]) > 5 else "")))
    return ExitCode.OK


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def rejected(context: click.Context, *, as_json: bool) -> int:
    """Print the changes that the backend rejected, and why. They are kept until you retry or discard them."""
    if context.invoked_subcommand is not None:
        return ExitCode.OK
    changes = _rejected(context)
    if as_json:
        print_json(
            [
                {
                    "number": number,
                    "tried": list(change.tried),
                    "reason": change.reason,
                    "rejected_at": change.rejected_at.isoformat(),
                    "attempts": change.attempts,
                }
                for number, change in enumerate(changes, start=1)
            ]
        )
        return ExitCode.OK
    from app.system.display_text import sanitized

    for number, change in enumerate(changes, start=1):
        click.echo(sanitized(f"{number}  {'; '.join(change.tried)}: {change.reason}"))
    return ExitCode.OK


def _rejected(context: click.Context) -> list[RejectedChange]:
    async def work(opened: OpenStore) -> list[RejectedChange]:
        async for changes in opened.store.report.watch_rejected():
            return changes
        return []

    return with_store(context, work)


def _decide(context: click.Context, number: int, decision: str) -> None:
    async def work(opened: OpenStore) -> None:
        async for changes in opened.store.report.watch_rejected():
            if not 1 <= number <= len(changes):
                raise click.UsageError(f"There is no rejected change {number}; run todo-tui rejected to see them.")
            decide = opened.store.report.retry if decision == "retry" else opened.store.report.discard
            await decide(changes[number - 1].id)
            return

    with_store(context, work)


@rejected.command()
@click.argument("number", type=int)
@click.pass_context
def retry(context: click.Context, number: int) -> int:
    """Send a rejected change again."""
    _decide(context, number, "retry")
    print_note(context, "It will be sent again with the next sync.")
    return ExitCode.OK


@rejected.command()
@click.argument("number", type=int)
@click.pass_context
def discard(context: click.Context, number: int) -> int:
    """Discard a rejected change for good."""
    _decide(context, number, "discard")
    print_note(context, "Discarded.")
    return ExitCode.OK


@rejected.command()
@click.pass_context
def export(context: click.Context) -> int:
    """Print all rejected changes as JSON, with all their values."""

    async def work(opened: OpenStore) -> list[dict[str, Any]]:
        return [write.export() for write in await opened.database.rejected_writes()]

    print_json(with_store(context, work))
    return ExitCode.OK


COMMANDS = (sync, status, queue, rejected)
