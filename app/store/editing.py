"""Every change of lists and to-dos: what it writes, its label for undo, and how much goes into one transaction.

Owns the writes. Each begins when it is called and ends by itself, is divided into transactions that are small enough
to be uploaded, and is written into the journal. Must not know how rows are read for showing.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from app import todo_text
from app.store import positions, todo_positions
from app.store.failures import RefusedError, as_store_error
from app.store.journal import Journal, Recording, Step, Undone, Values, require
from app.store.rows import first_line
from app.store.views import POSITION
from app.store.writes import MAX_CHARACTERS, MAX_ROWS, Writes, ends_of_chunks, refuse_long
from app.todo_text.transfer import ExportedList, ExportedTodo, summary
from sync import PowerSyncDatabase

P = ParamSpec("P")
T = TypeVar("T")

SAMPLE_NAME: Final = "First steps"
SAMPLE_TODOS: Final = (
    "Press x to mark this one as done, u to undo that",
    "Press a to add a to-do, such as: Pay rent tomorrow 9am p1 #home",
    "Press e to edit, d to delete, space to select several",
    "Press L for a new list, tab to switch panes",
    "Work offline: changes wait here and sync later",
    "Press ? for all keys, then delete this list",
)

_LONGEST_LABEL: Final = 60
_OWN_SECONDS: Final = 5.0
_MOST_OWN: Final = 1_000


def _write(
    method: Callable[Concatenate[Editing, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Editing, P], asyncio.Future[T]]:
    """Make a method begin its write when it is called; awaiting what it returns only waits for the result."""

    @functools.wraps(method)
    def begin(editing: Editing, *arguments: P.args, **options: P.kwargs) -> asyncio.Future[T]:
        return editing.writes.begin(method(editing, *arguments, **options))

    return begin


class Editing:
    """The writes of a store: `Store.edit`.

    Each is local and returns once it is committed here. It begins when it is called and ends by itself: cancelling it
    only stops the wait for its result. It returns what it has done as a label, such as `Deleted “Milk”`, unless it says
    otherwise; the label is empty if there was nothing to do. To-dos that have been deleted are skipped.

    Attributes:
        writes: those that are under way.

    Args:
        database: open; its tables are those of `app.store.schema`.
        user_id: the owner of what is made here.
        now: the clock, giving aware datetimes in the user's zone.
        writes: where they run.
    """

    def __init__(self, database: PowerSyncDatabase, user_id: str, now: Callable[[], datetime], writes: Writes) -> None:
        self._user_id = user_id
        self._now = now
        self._journal = Journal(database, self._remember_own)
        self._own: dict[str, float] = {}
        self._last_stamp = datetime.min.replace(tzinfo=UTC)
        self.writes: Final = writes

    def wrote_lately(self, row_id: str) -> bool:
        """Whether a row was written here in the last seconds: the user knows of that change."""
        return time.monotonic() - self._own.get(row_id, -_OWN_SECONDS) < _OWN_SECONDS

    def _remember_own(self, row_ids: Iterable[str]) -> None:
        now = time.monotonic()
        if len(self._own) > _MOST_OWN:
            self._own = {row_id: at for row_id, at in self._own.items() if now - at < _OWN_SECONDS}
        self._own.update(dict.fromkeys(row_ids, now))

    # Undoing

    @_write
    async def undo(self) -> Undone | None:
        """Undo the last step, or return None if there is none. Rows that others have changed since stay as they are.

        Raises:
            StoreError: it was not undone.
        """
        with as_store_error("Nothing was undone"):
            return await self._journal.undo()

    @_write
    async def redo(self) -> Undone | None:
        """Redo the step that was undone last, or return None if there is none. Otherwise as `undo`."""
        with as_store_error("Nothing was redone"):
            return await self._journal.redo()

    # Lists

    @_write
    async def add_list(self, name: str) -> str:
        """Add a list and return its id.

        Raises:
            StoreError: it was not added.
        """
        failed = "The list was not added"
        refuse_long([name], failed)
        row = self._new_list(name)
        with as_store_error(failed):
            await self._journal.record(
                Step(f"Added the list {_quoted(name)}"), lambda recording: recording.insert("lists", [row])
            )
        return row["id"]

    @_write
    async def rename_list(self, list_id: str, name: str) -> str:
        """Give a list another name.

        Raises:
            StoreError: it was not renamed, for instance because it has been deleted on another device.
        """
        failed = "The list was not renamed"
        refuse_long([name], failed)

        async def rename(recording: Recording) -> None:
            await require(recording.transaction, "lists", list_id, "it has been deleted")
            await recording.update("lists", {list_id: {"name": name}})

        step = Step(f"Renamed the list to {_quoted(name)}")
        with as_store_error(failed):
            await self._journal.record(step, rename)
        return step.label

    @_write
    async def delete_list(self, list_id: str) -> str:
        """Delete a list and its to-dos; a long list in several transactions. Deleting a list that is gone is no error.

        Raises:
            StoreError: the list was not deleted, but some of its to-dos may have been.
        """
        failed = "The list was not deleted"
        step = Step("Deleted a list")

        async def delete_some(recording: Recording) -> bool:
            if step.number is None:
                row = await recording.transaction.get_optional("SELECT name FROM lists WHERE id = ?", [list_id])
                step.label = f"Deleted the list {_quoted(row['name'] if row else None)}"
            rows = await recording.transaction.get_all(
                "SELECT id FROM todos WHERE list_id = ? LIMIT ?", [list_id, MAX_ROWS]
            )
            await _delete_todos(recording, [row["id"] for row in rows])
            last = len(rows) < MAX_ROWS
            if last:
                await recording.delete("lists", [list_id])
            return last

        last = False
        while not last:
            with as_store_error(failed):
                last = await self._journal.record(step, delete_some)
            failed = "The list was only partly deleted"
        return step.label

    @_write
    async def add_sample_list(self) -> str:
        """Add a short list that explains the app, and return its id.

        Raises:
            StoreError: it was not added.
        """
        row = self._new_list(SAMPLE_NAME)
        todos = [self._new_todo(row["id"], description) for description in SAMPLE_TODOS]

        async def add(recording: Recording) -> None:
            await recording.insert("lists", [row])
            await recording.insert("todos", todos)

        with as_store_error("The sample list was not added"):
            await self._journal.record(Step(f"Added the list {_quoted(SAMPLE_NAME)}"), add)
        return row["id"]

    # To-dos

    @_write
    async def add_todo(self, list_id: str, description: str) -> str:
        """Add an open to-do to a list and return its id. Raises as `add_todos`."""
        (todo_id,) = await self._add_todos(list_id, [description])
        return todo_id

    @_write
    async def add_todos(self, list_id: str, descriptions: Sequence[str]) -> list[str]:
        """Add several open to-dos in their order, and return their ids; very many in several transactions.

        Raises:
            StoreError: only the first `stored` of them were added, for instance because the list has been deleted on
                another device.
        """
        return await self._add_todos(list_id, descriptions)

    @_write
    async def edit_todo(self, todo_id: str, description: str) -> str:
        """Replace the text of a to-do.

        Raises:
            StoreError: it was not changed, for instance because it has been deleted on another device.
        """
        return await self._change_text(todo_id, lambda _: description)

    @_write
    async def edit_first_line(self, todo_id: str, text: str) -> str:
        """Replace the first line of a to-do; the lines after it stay as they are when this is written.

        Raises:
            StoreError: it was not changed, for instance because it has been deleted on another device.
        """
        return await self._change_text(todo_id, lambda now: text + first_line(now)[1])

    @_write
    async def set_completed(self, todo_ids: Collection[str], *, completed: bool) -> str:
        """Complete to-dos, noting when and by whom, or reopen them. One that recurs gets its next one.

        Raises:
            StoreError: not all were changed.
        """
        at, by = (self._stamp(), self._user_id) if completed else (None, None)
        values = {"completed": int(completed), "completed_at": at, "completed_by": by}
        today = self._now().date()

        async def complete(recording: Recording, rows: dict[str, Values]) -> None:
            fresh = {row_id: row for row_id, row in rows.items() if bool(row["completed"]) != completed}
            await recording.update("todos", dict.fromkeys(fresh, values))
            if completed:
                following = [
                    self._new_todo(row["list_id"], text)
                    for row in fresh.values()
                    if row["list_id"] and (text := todo_text.next_description(row["description"] or "", today))
                ]
                await recording.insert("todos", following)

        done = ("Completed", "Reopened")[not completed]
        return await self._change_todos(todo_ids, done, complete)

    @_write
    async def delete_todos(self, todo_ids: Collection[str]) -> str:
        """Delete to-dos.

        Raises:
            StoreError: not all were deleted.
        """

        async def delete(recording: Recording, rows: dict[str, Values]) -> None:
            await _delete_todos(recording, rows)

        return await self._change_todos(todo_ids, "Deleted", delete, failed="deleted")

    @_write
    async def move_todos(self, todo_ids: Collection[str], list_id: str) -> str:
        """Move to-dos to another list.

        Raises:
            StoreError: not all were moved, for instance because that list has been deleted on another device.
        """

        async def move(recording: Recording, rows: dict[str, Values]) -> None:
            await require(recording.transaction, "lists", list_id, "the list has been deleted")
            moved = [row_id for row_id, row in rows.items() if row["list_id"] != list_id]
            await recording.update("todos", {row_id: {"list_id": list_id} for row_id in moved})
            await recording.delete("todo_positions", moved)

        return await self._change_todos(todo_ids, "Moved", move, failed="moved")

    @_write
    async def change_texts(self, todo_ids: Collection[str], change: Callable[[str], str], done: str = "Changed") -> str:
        """Change the texts of to-dos, each by the same rule.

        Args:
            todo_ids: which.
            change: the new text for the one that is there when this is written.
            done: what that did, in words that precede the to-do, such as `Tagged`.

        Raises:
            StoreError: not all were changed.
        """

        async def rewrite(recording: Recording, rows: dict[str, Values]) -> None:
            texts = {row_id: change(row["description"] or "") for row_id, row in rows.items()}
            longer = [text for row_id, text in texts.items() if len(text) > len(rows[row_id]["description"] or "")]
            if any(len(text) > MAX_CHARACTERS for text in longer):
                raise RefusedError(f"a text would be longer than {MAX_CHARACTERS:,} characters")
            await recording.update("todos", {row_id: {"description": text} for row_id, text in texts.items()})

        return await self._change_todos(todo_ids, done, rewrite)

    @_write
    async def place_todo(self, todo_id: str, *, after: str | None, before: str | None) -> str:
        """Put an open to-do between two others of its list, on this device only.

        Args:
            todo_id: the to-do.
            after: the one before it; None for the beginning.
            before: the one after it; None for the end.

        Raises:
            StoreError: it was not moved.
        """

        async def place(recording: Recording) -> None:
            rows = await recording.transaction.get_all(
                f"SELECT todos.id AS id, todos.description AS description, {POSITION} AS position FROM todos"
                " WHERE todos.id IN (?, ?, ?)",
                [todo_id, after, before],
            )
            around = {row["id"]: row["position"] for row in rows}
            if todo_id not in around:
                raise RefusedError("it has been deleted")
            step.label = f"Moved {_quoted(next(row['description'] for row in rows if row['id'] == todo_id))}"
            position = positions.between(around.get(after or "", ""), around.get(before or ""))
            if position is None:
                await todo_positions.number(recording, todo_id, after)
            else:
                await todo_positions.put(recording, {todo_id: position})

        step = Step("Moved")
        with as_store_error("The to-do was not moved"):
            await self._journal.record(step, place)
        return step.label

    @_write
    async def import_lists(self, lists: Sequence[ExportedList]) -> str:
        """Add lists with their to-dos, as they were elsewhere; all of it is one step.

        Raises:
            StoreError: not all were added; a text may be too long.
        """
        texts = [each.name for each in lists] + [todo.description for each in lists for todo in each.todos]
        refuse_long(texts, "Nothing was imported")
        step = Step(f"Imported {summary(lists)}")
        failed = "Nothing was imported"
        for each in lists:
            row = self._new_list(each.name)
            todos = [self._imported(row["id"], todo) for todo in each.todos]
            start = 0
            for end in ends_of_chunks([todo.description for todo in each.todos]) if todos else [0]:
                chunk, first = todos[start:end], start == 0

                async def add(
                    recording: Recording, row: Values = row, chunk: list[Values] = chunk, *, first: bool = first
                ) -> None:
                    if first:
                        await recording.insert("lists", [row])
                    await recording.insert("todos", chunk)

                with as_store_error(failed):
                    await self._journal.record(step, add)
                failed = "The import was not finished"
                start = end
        return step.label

    def _imported(self, list_id: str, todo: ExportedTodo) -> Values:
        row = self._new_todo(list_id, todo.description)
        if todo.created_at is not None:
            row["created_at"] = todo.created_at
        done = todo.completed
        row["completed"] = int(done)
        row["completed_at"] = (todo.completed_at or row["created_at"]) if done else None
        row["completed_by"] = self._user_id if done else None
        return row

    # How it is done

    async def _add_todos(self, list_id: str, descriptions: Sequence[str]) -> list[str]:
        failed = "The to-do was not added" if len(descriptions) == 1 else "The to-dos were not added"
        refuse_long(descriptions, failed)
        rows = [self._new_todo(list_id, description) for description in descriptions]
        step = Step(f"Added {_counted(descriptions)}")
        stored = 0
        for end in ends_of_chunks(descriptions):
            chunk = rows[stored:end]

            async def add(recording: Recording, chunk: list[Values] = chunk) -> None:
                await require(recording.transaction, "lists", list_id, "the list has been deleted")
                await recording.insert("todos", chunk)

            with as_store_error(failed, stored=stored):
                await self._journal.record(step, add)
            stored = end
            failed = f"Only the first {end:,} to-dos were added"
        return [row["id"] for row in rows]

    async def _change_text(self, todo_id: str, change: Callable[[str], str]) -> str:
        failed = "The to-do was not changed"

        async def rewrite(recording: Recording) -> None:
            row = await recording.transaction.get_optional("SELECT description FROM todos WHERE id = ?", [todo_id])
            if row is None:
                raise RefusedError("it has been deleted")
            before = row["description"] or ""
            after = change(before)
            if len(after) > len(before):
                refuse_long([after], failed)
            step.label = f"Changed {_quoted(before)}"
            await recording.update("todos", {todo_id: {"description": after}})

        step = Step("Changed")
        with as_store_error(failed):
            await self._journal.record(step, rewrite)
        return step.label

    async def _change_todos(
        self,
        todo_ids: Collection[str],
        done: str,
        change: Callable[[Recording, dict[str, Values]], Awaitable[None]],
        *,
        failed: str = "changed",
    ) -> str:
        """Change to-dos as one step, in transactions that are small enough although each to-do may be written twice."""
        ids = list(todo_ids)
        failure = f"The to-do was not {failed}" if len(ids) == 1 else f"The to-dos were not {failed}"
        step = Step(done)
        start = 0

        async def write(recording: Recording) -> int:
            rows = await _todos(recording, ids[start : start + MAX_ROWS // 2])
            if step.number is None and rows:
                only = next(iter(rows.values()))["description"]
                step.label = f"{done} {_quoted(only) if len(ids) == 1 else f'{len(ids):,} to-dos'}"
            end = next(ends_of_chunks([row["description"] or "" for row in rows.values()]), 0)
            await change(recording, dict(list(rows.items())[:end]))
            # To-dos that have been deleted, at the end of the chunk too, are skipped.
            return MAX_ROWS // 2 if end == len(rows) else ids.index(list(rows)[end], start) - start

        while start < len(ids):
            with as_store_error(failure):
                start = min(len(ids), start + await self._journal.record(step, write))
            failure = f"Only the first {start:,} to-dos were {failed}"
        return step.label if step.number is not None else ""

    def _new_list(self, name: str) -> Values:
        return {"id": str(uuid.uuid4()), "created_at": self._stamp(), "name": name, "owner_id": self._user_id}

    def _new_todo(self, list_id: str, description: str) -> Values:
        return {
            "id": str(uuid.uuid4()),
            "list_id": list_id,
            "created_at": self._stamp(),
            "description": description,
            "completed": 0,
            "created_by": self._user_id,
        }

    def _stamp(self) -> str:
        # No two stamps of one store are equal, so that what is added in one millisecond keeps its order.
        self._last_stamp = max(self._now().astimezone(UTC), self._last_stamp + timedelta(milliseconds=1))
        return self._last_stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _todos(recording: Recording, todo_ids: list[str]) -> dict[str, Values]:
    """The to-dos that are there, in the order of the ids."""
    found = {
        row["id"]: dict(row)
        for row in await recording.transaction.get_all(
            "SELECT id, list_id, description, completed FROM todos WHERE id IN (SELECT value FROM json_each(?))",
            [json.dumps(todo_ids)],
        )
    }
    return {todo_id: found[todo_id] for todo_id in todo_ids if todo_id in found}


async def _delete_todos(recording: Recording, todo_ids: Collection[str]) -> None:
    await recording.delete("todo_positions", todo_ids)
    await recording.delete("todos", todo_ids)


def _quoted(text: str | None) -> str:
    """The beginning of a text, for a label."""
    title = todo_text.read(text or "").title.strip()
    if not title:
        return "(no text)"
    return f"“{title if len(title) <= _LONGEST_LABEL else title[: _LONGEST_LABEL - 1] + '…'}”"


def _counted(texts: Sequence[str | None]) -> str:
    return _quoted(texts[0]) if len(texts) == 1 else f"{len(texts):,} to-dos"
