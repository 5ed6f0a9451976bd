"""What the user should know about synchronization, and what the user can do about it.

Owns the explanation of the state, the changes that the backend refused for good, and the values that were replaced by
those of others: how they are read with the names of the rows they concern, and how they are resolved. The wording of a
change is in `app.store.change_words`; must not know how anything is shown.
"""

from __future__ import annotations

import asyncio
import json
import platform
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from app.store.change_words import (
    KnownTexts,
    concerns_the_user,
    describe_conflict,
    describe_entry,
    text_column,
    text_of,
)
from app.store.failures import OnFailure, RefusedError, as_store_error, follow_with_retry, log_failure
from app.store.writes import Writes
from app.system.private_file import create_file
from sync import Conflict, PowerSyncDatabase, RejectedWrite
from sync.errors import DatabaseClosedError

_TEXT_QUERIES = (
    ("lists", "SELECT id, name FROM lists WHERE id IN (SELECT value FROM json_each(?))"),
    ("todos", "SELECT id, description FROM todos WHERE id IN (SELECT value FROM json_each(?))"),
)

_WAITING_SECONDS = 0.3
_MOST_ENTRIES = 20
_PAUSED = "Syncing is paused: nothing is uploaded or downloaded until you resume it."


@dataclass(frozen=True, slots=True)
class RejectedChange:
    """A change that the backend refused for good, and that is kept until the user decides.

    Attributes:
        id: unlike those of all others, growing with time.
        tried: what was tried, one phrase each, in order; texts are in them as they were typed or synced.
        reason: the backend's own words, any text.
        rejected_at: when, in UTC.
        attempts: how often it was rejected in all.
        row_ids: the lists and to-dos that it changes.
    """

    id: str
    tried: tuple[str, ...]
    reason: str
    rejected_at: datetime
    attempts: int
    row_ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ReplacedChange:
    """A value that was written here, was accepted, and has been replaced by somebody else's.

    Attributes:
        id: unlike those of all others, growing with time.
        about: what it is about; texts are in it as they were typed or synced.
        mine: what was written here.
        theirs: what is there instead.
        found_at: when it was seen here, in UTC.
    """

    id: str
    about: str
    mine: str
    theirs: str
    found_at: datetime


@dataclass(frozen=True, slots=True)
class WaitingChange:
    """A transaction that waits to be uploaded.

    Attributes:
        id: unlike those of all others.
        doing: what it does, one phrase each, in order; texts are in them as they were typed.
    """

    id: str
    doing: tuple[str, ...]


MOST_WAITING = 100
"""How many of the waiting transactions are listed one by one."""


class SyncReport:
    """The state of synchronization of one database, for the user. `Store` makes it.

    Args:
        database: open; its tables are those of `app.store.schema`.
        writes: where what is decided here runs to its end.
    """

    def __init__(self, database: PowerSyncDatabase, writes: Writes) -> None:
        self._database = database
        self._writes = writes
        self._rejected: dict[str, RejectedWrite] = {}
        self._conflicts: dict[str, Conflict] = {}

    async def explain(self) -> str:
        """Why everything is, or is not, synced: a paragraph of any text.

        Raises:
            StoreError: the state cannot be read.
        """
        with as_store_error("The sync state cannot be shown"):
            explanation = await self._database.explain_sync()
        sentences = list(explanation.sentences)
        if not explanation.status.wanted:
            # The engine speaks to programmers, of calls.
            sentences = [_PAUSED, *(sentence for sentence in sentences if "connect()" not in sentence)]
        return " ".join(sentences)

    def watch_rejected(self, on_failure: OnFailure = log_failure) -> AsyncIterator[list[RejectedChange]]:
        """Yield the changes that the backend refused, oldest first, now and after each change.

        Ends when the database is closed.

        Args:
            on_failure: called once when they cannot be read.
        """
        return follow_with_retry(self._follow_rejected, on_failure)

    def watch_replaced(self, on_failure: OnFailure = log_failure) -> AsyncIterator[list[ReplacedChange]]:
        """Yield the values that others have replaced, oldest first; otherwise as `watch_rejected`."""
        return follow_with_retry(self._follow_replaced, on_failure)

    def watch_waiting(self, on_failure: OnFailure = log_failure) -> AsyncIterator[list[WaitingChange]]:
        """Yield the transactions that wait, oldest first, at most `MOST_WAITING`; otherwise as `watch_rejected`."""
        return follow_with_retry(self._follow_waiting, on_failure)

    def text_of(self, change_id: str) -> str | None:
        """The text that a rejected change tried to store, or None if it is not about one text."""
        write = self._rejected.get(change_id)
        if write is None or len(write.crud) != 1:
            return None
        return text_of(write.crud[0].table, write.crud[0].data)

    def retry_with_text(self, change_id: str, text: str) -> asyncio.Future[None]:
        """Send a rejected change once more with another text. As `retry`."""
        return self._begin("The change was not retried", self._retry_with_text(change_id, text))

    def as_json(self, change_id: str) -> str:
        """A rejected change in full, as JSON."""
        return json.dumps(self._known(change_id).export(), ensure_ascii=False, indent=1)

    async def export(self, path: Path) -> int:
        """Write all rejected changes in full to a new file that only the user may read.

        Returns:
            How many there are.

        Raises:
            StoreError: the file exists already or cannot be written; nothing was changed.
        """
        with as_store_error("Nothing was exported"):
            writes = [write.export() for write in await self._database.rejected_writes()]
            text = json.dumps(writes, ensure_ascii=False, indent=1) + "\n"
            await asyncio.to_thread(_write_new, path, text.encode("utf-8", "surrogatepass"))
        return len(writes)

    async def diagnostics(self) -> str:
        """The state for a bug report: states, counts and errors, without names, texts, keys or addresses.

        Raises:
            StoreError: the state cannot be read.
        """
        with as_store_error("The sync state cannot be shown"):
            status = self._database.status
            stats = await self._database.upload_queue_stats()
            rejected = await self._database.rejected_writes()
        errors = [type(error).__name__ for error in (status.download_error, status.upload_error) if error is not None]
        lines = {
            "wanted": status.wanted,
            "connected": status.connected,
            "synced by another process": status.syncing_elsewhere,
            "downloading": status.downloading,
            "uploading": status.uploading,
            "last synced": status.last_synced_at.isoformat() if status.last_synced_at else "never",
            "streams": f"{sum(each.has_synced for each in status.streams)} of {len(status.streams)} synced",
            "waiting": f"{stats.entries} changes in {stats.transactions} transactions, {stats.bytes} bytes",
            "oldest": stats.oldest_at.isoformat() if stats.oldest_at else "-",
            "rejected": ", ".join(sorted({each.code or "no code" for each in rejected})) or "none",
            "errors": ", ".join(errors) or "none",
            "SQLite": sqlite3.sqlite_version,
            "Python": platform.python_version(),
            "system": platform.system(),
        }
        return "\n".join(f"{name}: {value}" for name, value in lines.items())

    def retry(self, change_id: str) -> asyncio.Future[None]:
        """Send a rejected change once more, after everything that waits. Its effect shows again meanwhile.

        Begins when it is called, and ends by itself.

        Raises:
            StoreError: it was not sent, for instance because it has been discarded in another window.
        """
        return self._begin("The change was not retried", self._retry(change_id))

    def discard(self, change_id: str) -> asyncio.Future[None]:
        """Discard a rejected change for good. As `retry`."""
        return self._begin("The change was not discarded", self._discard(change_id))

    def dismiss(self, up_to: str) -> asyncio.Future[None]:
        """Dismiss a replaced value, and all that were found before it. As `retry`."""
        return self._begin("The conflicts were not dismissed", self._dismiss(up_to))

    def _begin(self, failed: str, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        async def begun() -> None:
            with as_store_error(failed):
                await work

        return self._writes.begin(begun())

    async def _retry(self, change_id: str) -> None:
        if not await self._known(change_id).retry():
            raise _already_decided()

    async def _retry_with_text(self, change_id: str, text: str) -> None:
        write = self._known(change_id)
        (entry,) = write.crud
        data = {**(entry.data or {}), text_column(entry.table): text}
        if not await write.retry_with([msgspec.structs.replace(entry, data=data)]):
            raise _already_decided()

    async def _discard(self, change_id: str) -> None:
        if not await self._known(change_id).discard():
            raise _already_decided()

    async def _dismiss(self, up_to: str) -> None:
        conflict = self._conflicts.get(up_to)
        if conflict is not None:
            await self._database.dismiss_conflicts(conflict)

    def _known(self, change_id: str) -> RejectedWrite:
        write = self._rejected.get(change_id)
        if write is None:
            raise _already_decided()
        return write

    async def _follow_rejected(self) -> AsyncGenerator[list[RejectedChange]]:
        with as_store_error("The rejected changes cannot be shown"), suppress(DatabaseClosedError):
            async for writes in self._database.watch_rejected_writes():
                here = await self.texts_of_rows({row for write in writes for row in _rows_of(write)})
                self._rejected = {f"rejected-{write.id}": write for write in writes}
                texts = {**_added_texts(writes), **here}
                yield [_rejected_change(change_id, write, texts) for change_id, write in self._rejected.items()]

    async def _follow_waiting(self) -> AsyncGenerator[list[WaitingChange]]:
        with as_store_error("The waiting changes cannot be shown"), suppress(DatabaseClosedError):
            async for _ in self._database.watch_queued_rows(throttle=_WAITING_SECONDS):
                found: list[WaitingChange] = []
                async for transaction in self._database.crud_transactions():
                    rows = [(entry.table, entry.id) for entry in transaction.crud[:_MOST_ENTRIES]]
                    rows += [("lists", str((entry.data or {}).get("list_id"))) for entry in transaction.crud[:1]]
                    known = KnownTexts(await self.texts_of_rows(rows))
                    doing = [describe_entry(entry, known) for entry in transaction.crud[:_MOST_ENTRIES]]
                    if len(transaction.crud) > _MOST_ENTRIES:
                        doing.append(f"and {len(transaction.crud) - _MOST_ENTRIES:,} more")
                    found.append(WaitingChange(f"waiting-{transaction.crud[0].client_id}", tuple(doing)))
                    if len(found) == MOST_WAITING:
                        break
                yield found

    async def _follow_replaced(self) -> AsyncGenerator[list[ReplacedChange]]:
        with as_store_error("The conflicts cannot be shown"), suppress(DatabaseClosedError):
            async for conflicts in self._database.watch_conflicts():
                known = KnownTexts(await self.texts_of_rows({(each.table, each.row_id) for each in conflicts}))
                self._conflicts = {f"replaced-{each.id}": each for each in conflicts if concerns_the_user(each)}
                yield [
                    ReplacedChange(change_id, *describe_conflict(conflict, known), conflict.found_at)
                    for change_id, conflict in self._conflicts.items()
                ]

    async def texts_of_rows(self, rows: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """The texts of lists and to-dos that are here, by table and id of the row."""
        ids = json.dumps([row_id for _, row_id in rows])
        found: dict[tuple[str, str], str] = {}
        for table, sql in _TEXT_QUERIES:
            for row in await self._database.get_all(sql, [ids]):
                if row[1] is not None:
                    found[table, row["id"]] = row[1]
        return found


def _write_new(path: Path, content: bytes) -> None:
    try:
        create_file(path, content)
    except FileExistsError:
        raise RefusedError(f"{path} already exists") from None
    except ValueError:
        raise RefusedError("that is not a valid file name") from None


def _already_decided() -> RefusedError:
    return RefusedError("it has already been retried or discarded elsewhere")


def _rows_of(write: RejectedWrite) -> Iterator[tuple[str, str]]:
    """The rows that a write names: those it changes, and the lists of its to-dos."""
    for entry in write.crud:
        yield entry.table, entry.id
        list_id = (entry.data or {}).get("list_id")
        if isinstance(list_id, str):
            yield "lists", list_id


def _added_texts(writes: Iterable[RejectedWrite]) -> dict[tuple[str, str], str]:
    """The texts of rows that exist in rejected changes only."""
    return {
        (entry.table, entry.id): text
        for write in writes
        for entry in write.crud
        if entry.op == "PUT" and (text := text_of(entry.table, entry.data)) is not None
    }


def _rejected_change(change_id: str, write: RejectedWrite, texts: Mapping[tuple[str, str], str]) -> RejectedChange:
    before = {
        (entry.table, entry.id): text
        for entry, server_row in zip(write.crud, write.server_rows, strict=True)
        if (text := text_of(entry.table, entry.previous_values) or text_of(entry.table, server_row)) is not None
    }
    known = KnownTexts({**texts, **before})
    return RejectedChange(
        change_id,
        tuple(describe_entry(entry, known) for entry in write.crud),
        write.reason,
        write.rejected_at,
        write.attempts,
        frozenset(entry.id for entry in write.crud),
    )
