"""The undo journal: each step with the rows that it changed, before and after.

Owns the table `undo_journal`, the writing of rows that are recorded there, and what undoing does to rows that others
have changed meanwhile: those stay as they are. A step is written in the same transaction as its changes, a long one in
several; each of those is undone as a whole. Must not know what a change means.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.store.failures import RefusedError
from app.store.schema import APP_SCHEMA
from sync import PowerSyncDatabase, Transaction

KEPT_STEPS: Final = 100
"""How many steps can be undone; older ones are dropped."""

_COLUMNS: Final = {table.name: [column.name for column in table.columns] for table in APP_SCHEMA.tables}
_COMPARED: Final = {
    "lists": {"name"},
    "todos": {"list_id", "description", "completed"},
    "todo_positions": {"position"},
}
"""The columns in which a difference counts as somebody else's change; backends write the others, too."""

_PARENTS: Final = {"todos": ("list_id", "lists")}

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Undone:
    """What undoing or redoing has done.

    Attributes:
        label: what the step did, as it was described at the time.
        kept: how many rows were left alone because they have been changed elsewhere since.
    """

    label: str
    kept: int = 0


@dataclass(frozen=True, slots=True)
class _Change:
    table: str
    row_id: str
    before: Values | None
    after: Values | None


class Recording:
    """Writes rows inside a transaction, and remembers what they were before.

    Args:
        transaction: what it writes in.
    """

    def __init__(self, transaction: Transaction) -> None:
        self.transaction: Final = transaction
        self._changes: list[_Change] = []

    @property
    def row_ids(self) -> list[str]:
        """The rows that were written so far."""
        return [change.row_id for change in self._changes]

    async def insert(self, table: str, rows: Sequence[Values]) -> None:
        """Insert rows, each with its `id`; they are known not to be there."""
        if not rows:
            return
        columns = list(rows[0])
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        await self.transaction.execute_many(
            f"INSERT INTO {table} ({names}) VALUES ({marks})", [[row[column] for column in columns] for row in rows]
        )
        self._changes += [
            _Change(table, row["id"], None, {column: value for column, value in row.items() if column != "id"})
            for row in rows
        ]

    async def update(self, table: str, rows: Mapping[str, Values]) -> int:
        """Give rows other values, the same columns of each; returns how many of them were there and did change."""
        if not rows:
            return 0
        columns = list(next(iter(rows.values())))
        current = await _rows(self.transaction, table, rows, columns)
        changed = {row_id: (before, rows[row_id]) for row_id, before in current.items() if before != rows[row_id]}
        settings = ", ".join(f"{column} = ?" for column in columns)
        await self.transaction.execute_many(
            f"UPDATE {table} SET {settings} WHERE id = ?",
            [[*(after[column] for column in columns), row_id] for row_id, (_, after) in changed.items()],
        )
        self._changes += [_Change(table, row_id, before, after) for row_id, (before, after) in changed.items()]
        return len(changed)

    async def delete(self, table: str, row_ids: Iterable[str]) -> int:
        """Delete rows; returns how many of them were there."""
        current = await _rows(self.transaction, table, row_ids, _COLUMNS[table])
        await self.transaction.execute_many(f"DELETE FROM {table} WHERE id = ?", [[row_id] for row_id in current])
        self._changes += [_Change(table, row_id, before, None) for row_id, before in current.items()]
        return len(current)

    async def write_down(self, step: Step) -> None:
        """Store what was changed as a part of a step, so that it can be undone; nothing if nothing was."""
        if not self._changes:
            return
        if step.number is None:
            step.number = await _next_number(self.transaction)
        changes = json.dumps(
            [[change.table, change.row_id, change.before, change.after] for change in self._changes],
            ensure_ascii=False,
            separators=(",", ":"),
        )
        step.parts += 1
        await self.transaction.execute(
            "INSERT INTO undo_journal (id, step, part, undone, label, changes) VALUES (?, ?, ?, 0, ?, ?)",
            [str(uuid.uuid4()), step.number, step.parts, step.label, changes],
        )


@dataclass(slots=True)
class Step:
    """One step of the journal while it is made.

    Attributes:
        label: what it does, in the past tense: `Added “Milk”`.
        number: its number among all steps; None before its first change.
        parts: how many transactions it has so far.
    """

    label: str
    number: int | None = None
    parts: int = 0


class Journal:
    """The steps that can be undone and redone.

    Args:
        database: open; its tables are those of `app.store.schema`.
        wrote: called with the ids of rows before a transaction that changes them is committed.
    """

    def __init__(self, database: PowerSyncDatabase, wrote: Callable[[Iterable[str]], object]) -> None:
        self._database = database
        self._wrote = wrote

    async def record(self, step: Step, write: Callable[[Recording], Awaitable[Any]]) -> Any:
        """Carry out a write in a transaction, as a part of a step; returns what it returns."""
        async with self._database.write_transaction() as transaction:
            recording = Recording(transaction)
            result = await write(recording)
            await recording.write_down(step)
            self._wrote(recording.row_ids)
            return result

    async def undo(self) -> Undone | None:
        """Undo the last step that is not undone, or return None if there is none."""
        return await self._undo_or_redo(
            "SELECT max(step) AS step FROM undo_journal WHERE NOT undone",
            "SELECT id, label, changes FROM undo_journal WHERE step = ? AND NOT undone ORDER BY part DESC LIMIT 1",
            undone=True,
        )

    async def redo(self) -> Undone | None:
        """Do the first step again that is undone, or return None if there is none."""
        return await self._undo_or_redo(
            "SELECT min(step) AS step FROM undo_journal WHERE undone",
            "SELECT id, label, changes FROM undo_journal WHERE step = ? AND undone ORDER BY part LIMIT 1",
            undone=False,
        )

    async def _undo_or_redo(self, which_step: str, next_part: str, *, undone: bool) -> Undone | None:
        number: int | None = None
        label: str | None = None
        kept = 0
        while True:
            async with self._database.write_transaction() as transaction:
                if number is None:
                    number = (await transaction.get(which_step))["step"]
                part = None if number is None else await transaction.get_optional(next_part, [number])
                if part is None:
                    break
                label = part["label"]
                changes = [_Change(*fields) for fields in json.loads(part["changes"])]
                self._wrote(change.row_id for change in changes)
                kept += await _apply(transaction, changes, backwards=undone)
                await transaction.execute("UPDATE undo_journal SET undone = ? WHERE id = ?", [int(undone), part["id"]])
        return None if label is None else Undone(label, kept)


async def _next_number(transaction: Transaction) -> int:
    """The number of a new step. What was undone cannot be redone after it, and steps that are too old are dropped."""
    await transaction.execute("DELETE FROM undo_journal WHERE undone")
    last = (await transaction.get("SELECT max(step) AS step FROM undo_journal"))["step"] or 0
    await transaction.execute("DELETE FROM undo_journal WHERE step <= ?", [last + 1 - KEPT_STEPS])
    return last + 1


async def _rows(
    transaction: Transaction, table: str, row_ids: Iterable[str], columns: Sequence[str]
) -> dict[str, Values]:
    """The rows that are there, by their ids, in the order of the ids."""
    ids = list(row_ids)
    names = ", ".join(columns)
    found = {
        row["id"]: {column: row[column] for column in columns}
        for row in await transaction.get_all(
            f"SELECT id, {names} FROM {table} WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(ids)]
        )
    }
    return {row_id: found[row_id] for row_id in ids if row_id in found}


async def _apply(transaction: Transaction, changes: Sequence[_Change], *, backwards: bool) -> int:
    """Take changes back, or make them again; returns how many rows were left alone."""
    kept = 0
    for change in reversed(changes) if backwards else changes:
        expected, wanted = (change.after, change.before) if backwards else (change.before, change.after)
        columns = _COLUMNS[change.table]
        current = (await _rows(transaction, change.table, [change.row_id], columns)).get(change.row_id)
        if wanted is None:
            if current is not None and _differs(change.table, current, expected or {}):
                kept += 1
            elif current is not None:
                await transaction.execute(f"DELETE FROM {change.table} WHERE id = ?", [change.row_id])
        elif expected is None:
            if current is not None or not await _has_parent(transaction, change.table, wanted):
                kept += 1
            else:
                await _insert(transaction, change.table, change.row_id, wanted)
        elif (
            current is None
            or _differs(change.table, current, expected)
            or not await _has_parent(transaction, change.table, wanted)
        ):
            kept += 1
        else:
            settings = ", ".join(f"{column} = ?" for column in wanted)
            await transaction.execute(
                f"UPDATE {change.table} SET {settings} WHERE id = ?", [*wanted.values(), change.row_id]
            )
    return kept


def _differs(table: str, current: Values, expected: Values) -> bool:
    return any(current[column] != expected[column] for column in _COMPARED[table] & expected.keys())


async def _has_parent(transaction: Transaction, table: str, values: Values) -> bool:
    column, parent = _PARENTS.get(table, ("", ""))
    parent_id = values.get(column)
    if parent_id is None:
        return True
    return await transaction.get_optional(f"SELECT 1 FROM {parent} WHERE id = ?", [parent_id]) is not None


async def _insert(transaction: Transaction, table: str, row_id: str, values: Values) -> None:
    names, marks = ", ".join(["id", *values]), ", ".join("?" * (len(values) + 1))
    await transaction.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", [row_id, *values.values()])


async def require(transaction: Transaction, table: str, row_id: str, otherwise: str) -> None:
    """Check that a row is there.

    Raises:
        RefusedError: it is not.
    """
    if await transaction.get_optional(f"SELECT 1 FROM {table} WHERE id = ?", [row_id]) is None:
        raise RefusedError(otherwise)
