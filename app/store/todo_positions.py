"""The table `todo_positions` of this device: where to-dos stand that were moved by hand.

Owns how positions are written. How a position is computed is `positions`' concern.
"""

from __future__ import annotations

import json

from app.store import positions
from app.store.journal import Recording
from app.store.views import POSITION


async def put(recording: Recording, by_id: dict[str, str]) -> None:
    """Write the positions of to-dos, given by their ids."""
    known = await recording.transaction.get_all(
        "SELECT id FROM todo_positions WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(list(by_id))]
    )
    there = {row["id"] for row in known}
    await recording.update("todo_positions", {row_id: {"position": by_id[row_id]} for row_id in there})
    await recording.insert(
        "todo_positions",
        [{"id": row_id, "position": position} for row_id, position in by_id.items() if row_id not in there],
    )


async def number(recording: Recording, todo_id: str, after: str | None) -> None:
    """Number all open to-dos of a list, the moved one behind another: for when two neighbours share a position."""
    rows = await recording.transaction.get_all(
        f"SELECT todos.id AS id FROM todos WHERE todos.list_id = (SELECT list_id FROM todos WHERE id = ?)"
        f" AND coalesce(todos.completed, 0) = 0 ORDER BY {POSITION}, todos.created_at, todos.id",
        [todo_id],
    )
    ids = [row["id"] for row in rows if row["id"] != todo_id]
    ids.insert(ids.index(after) + 1 if after in ids else 0, todo_id)
    await put(recording, dict(zip(ids, positions.numbered(len(ids)), strict=True)))
