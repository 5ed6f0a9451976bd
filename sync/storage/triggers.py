"""The triggers of the app's views: they store a local write and record it for upload.

Owns their SQL, as text. It is plain SQL that runs in any SQLite from 3.38 on, without functions of the engine: a shell
that changes a view queues the change too. Must not run anything: `sync.storage.views` writes it to the file.
"""

from __future__ import annotations

from collections.abc import Iterator

from sync.schema.tables import DELETED_COLUMN, METADATA_COLUMN, Table
from sync.sqlite.sql_text import quoted
from sync.storage.names import data_table
from sync.storage.recording import (
    CHECK_ID,
    IS_IN_SYNC_OPERATION,
    SAME_ID,
    all_values,
    any_is_changed,
    changed_values,
    close_gate,
    non_null_values,
    queue,
)

PREFIX = "ps_view_"
"""The prefix of the names of all triggers defined here."""

# Under INSERT OR IGNORE a conflict leaves the row as it was: then there is nothing to upload.
_UNLESS_IGNORED = "SELECT RAISE(IGNORE) WHERE changes() = 0"


def triggers(table: Table) -> Iterator[tuple[str, str]]:
    """The name and the SQL of each trigger of the table's view."""
    yield _trigger(table, "insert", "INSERT", _insert(table))
    if table.insert_only:
        return
    if table.track_metadata:
        deleted = f"NEW.{quoted(DELETED_COLUMN)}"
        yield _trigger(table, "update", "UPDATE", _update(table), f"{deleted} IS NOT TRUE")
        yield _trigger(table, "delete2", "UPDATE", _delete_by_update(table), f"{deleted} IS TRUE")
    else:
        yield _trigger(table, "update", "UPDATE", _update(table))
    yield _trigger(table, "delete", "DELETE", _delete(table))


def _trigger(table: Table, kind: str, event: str, body: Iterator[str], when: str | None = None) -> tuple[str, str]:
    name = f"{PREFIX}{kind}_{table.view_name}"
    condition = "" if when is None else f" WHEN {when}"
    statements = "\n".join(f"{statement};" for statement in body)
    return name, (
        f"CREATE TRIGGER {quoted(name)} INSTEAD OF {event} ON {quoted(table.view_name)}"
        f" FOR EACH ROW{condition} BEGIN\n{statements}\nEND"
    )


def _insert(table: Table) -> Iterator[str]:
    yield CHECK_ID
    row = non_null_values(_names(table))
    if table.insert_only:
        yield from _queue(table, "PUT", "NEW", data=row)
        return
    yield f"INSERT INTO {quoted(data_table(table))}(id, data) VALUES (NEW.id, {row})"
    yield _UNLESS_IGNORED
    if not table.local_only:
        stored = f"(SELECT data FROM {quoted(data_table(table))} WHERE id = NEW.id)"
        yield from _queue(table, "PUT", "NEW", data=stored)
        yield from close_gate(table.name, "NEW")


def _update(table: Table) -> Iterator[str]:
    yield SAME_ID
    if table.ignore_empty_updates:
        yield f"SELECT RAISE(IGNORE) WHERE NOT ({any_is_changed(_names(table))})"
    changed = changed_values(_names(table), "NEW")
    # A merge patch removes what became null, and leaves alone what this schema does not name.
    yield (
        f"UPDATE {quoted(data_table(table))} SET data = json_patch(ifnull(data, '{{}}'), {changed}) WHERE id = NEW.id"
    )
    yield _UNLESS_IGNORED
    if not table.local_only:
        yield from _queue(table, "PATCH", "NEW", data=changed, old=_previous_values(table, is_update=True))
        yield from close_gate(table.name, "NEW")


def _delete(table: Table) -> Iterator[str]:
    yield f"DELETE FROM {quoted(data_table(table))} WHERE id = OLD.id"
    if not table.local_only:
        yield from _queue(table, "DELETE", "OLD", old=_previous_values(table, is_update=False))
        yield from close_gate(table.name, "OLD")


def _delete_by_update(table: Table) -> Iterator[str]:
    yield SAME_ID
    yield f"DELETE FROM {quoted(data_table(table))} WHERE id = OLD.id"
    yield from _queue(table, "DELETE", "NEW", old=_previous_values(table, is_update=False))
    yield from close_gate(table.name, "NEW")


def _queue(table: Table, op: str, row: str, *, data: str | None = None, old: str | None = None) -> Iterator[str]:
    yield f"SELECT RAISE(IGNORE) WHERE {IS_IN_SYNC_OPERATION}"
    metadata = f"NEW.{quoted(METADATA_COLUMN)}" if table.track_metadata and row == "NEW" else None
    yield from queue(table.name, op, row, data=data, old=old, metadata=metadata)


def _previous_values(table: Table, *, is_update: bool) -> str | None:
    tracked = table.track_previous_values
    if tracked is None:
        return None
    columns = [name for name in _names(table) if tracked.columns is None or name in tracked.columns]
    return changed_values(columns, "OLD") if is_update and tracked.only_when_changed else all_values(columns, "OLD")


def _names(table: Table) -> list[str]:
    return [column.name for column in table.columns]
