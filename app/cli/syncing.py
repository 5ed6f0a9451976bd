"""The commands about syncing: doing it, its state, what waits, and what was rejected.

Owns what they print, and how a command syncs without the interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from app.cli.context import ExitCode, settings_of
from app.cli.opened_store import OpenStore, print_json, tell, with_store
from app.cli.todos import json_option

if TYPE_CHECKING:
    from app.store.sync_report import RejectedChange


@click.command()
@click.option(
    "--wait", type=click.FloatRange(0, 86_400), default=30.0, metavar="SECONDS", help="At most so long.  [30]"
)
@click.pass_context
def sync(context: click.Context, wait: float) -> int:
    """Upload what waits and fetch what is new, then end. Exit code 4 if that was not finished in time."""
    import asyncio
    import os

    from app.cli.run import syncing
    from app.store.failures import StoreError
    from app.system.user_error import UserError

    settings = settings_of(context)
    os.umask(0o077)

    async def work() -> tuple[bool, int, str]:
        async with syncing(settings) as (database, store):
            finished = True
            try:
                async with asyncio.timeout(wait):
                    await database.wait_for_upload()
                    await database.wait_for_sync()
                    await store.wait_for_todos()
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
        tell(context, "Everything is synced.")
        return ExitCode.OK
    tell(context, f"Not finished after {wait:g} seconds: {waiting:,} changes wait. {reason}".rstrip())
    return ExitCode.UNFINISHED


@click.command()
@json_option
@click.pass_context
def status(context: click.Context, *, as_json: bool) -> int:
    """Print one line for a status bar: what is due, and how it stands with syncing. Connects to nothing."""

    async def work(lists: OpenStore) -> dict[str, Any]:
        counts = await anext(aiter(lists.store.watch_counts()))
        stats = await lists.database.upload_queue_stats()
        synced_at = lists.database.status.last_synced_at
        return {
            "open": counts.all,
            "today": counts.today,
            "overdue": counts.overdue,
            "waiting": stats.entries,
            "rejected": len(await lists.database.rejected_writes()),
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
    """Print the changes that wait to be uploaded, oldest first, one transaction a line."""

    async def work(lists: OpenStore) -> list[dict[str, Any]]:
        from app.store.change_words import KnownTexts, describe_entry

        found: list[dict[str, Any]] = []
        async for transaction in lists.database.crud_transactions():
            ids = [entry.id for entry in transaction.crud]
            rows = [(entry.table, entry.id) for entry in transaction.crud]
            rows += [("lists", str((entry.data or {}).get("list_id"))) for entry in transaction.crud]
            known = KnownTexts(await lists.store.report.texts_of_rows(rows))
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
    """Print the changes that the backend refused, and why; they are kept until they are retried or discarded."""
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
    async def work(lists: OpenStore) -> list[RejectedChange]:
        async for changes in lists.store.report.watch_rejected():
            return changes
        return []

    return with_store(context, work)


def _decide(context: click.Context, number: int, decision: str) -> None:
    async def work(lists: OpenStore) -> None:
        async for changes in lists.store.report.watch_rejected():
            if not 1 <= number <= len(changes):
                raise click.UsageError(f"There is no rejected change {number}; todo-tui rejected shows them.")
            decide = lists.store.report.retry if decision == "retry" else lists.store.report.discard
            await decide(changes[number - 1].id)
            return

    with_store(context, work)


@rejected.command()
@click.argument("number", type=int)
@click.pass_context
def retry(context: click.Context, number: int) -> int:
    """Let a rejected change be sent once more."""
    _decide(context, number, "retry")
    tell(context, "It is sent again with the next sync.")
    return ExitCode.OK


@rejected.command()
@click.argument("number", type=int)
@click.pass_context
def discard(context: click.Context, number: int) -> int:
    """Forget a rejected change for ever."""
    _decide(context, number, "discard")
    tell(context, "Forgotten.")
    return ExitCode.OK


@rejected.command()
@click.pass_context
def export(context: click.Context) -> int:
    """Print all rejected changes as JSON, whole."""

    async def work(lists: OpenStore) -> list[dict[str, Any]]:
        return [write.export() for write in await lists.database.rejected_writes()]

    print_json(with_store(context, work))
    return ExitCode.OK


COMMANDS = (sync, status, queue, rejected)
