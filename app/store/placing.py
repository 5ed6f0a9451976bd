"""The places of to-dos that were moved by hand, in the table `todo_positions` of this device.

Owns how they are written. What a place is is `positions`'.
"""

from __future__ import annotations

import json

from app.store import positions
from app.store.journal import Recording
from app.store.views import PLACE


async def put(recording: Recording, places: dict[str, str]) -> None:
    """Write the places of to-dos."""
    known = await recording.transaction.get_all(
        "SELECT id FROM todo_positions WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(list(places))]
    )
    there = {row["id"] for row in known}
    await recording.update("todo_positions", {row_id: {"position": places[row_id]} for row_id in there})
    await recording.insert(
        "todo_positions",
        [{"id": row_id, "position": place} for row_id, place in places.items() if row_id not in there],
    )


async def number(recording: Recording, todo_id: str, after: str | None) -> None:
    """Give all open to-dos of a list places, the moved one behind another: two neighbours have the same place."""
    rows = await recording.transaction.get_all(
        f"SELECT todos.id AS id FROM todos WHERE todos.list_id = (SELECT list_id FROM todos WHERE id = ?)"
        f" AND coalesce(todos.completed, 0) = 0 ORDER BY {PLACE}, todos.created_at, todos.id",
        [todo_id],
    )
    ids = [row["id"] for row in rows if row["id"] != todo_id]
    ids.insert(ids.index(after) + 1 if after in ids else 0, todo_id)
    await put(recording, dict(zip(ids, positions.numbered(len(ids)), strict=True)))
