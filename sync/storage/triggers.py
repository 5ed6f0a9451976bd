"""The triggers of the app's views: they store a local write and record it for upload.

Owns their SQL, as text. It is plain SQL that runs in any SQLite from 3.38 on, with no function of ours: a shell that
edits a view queues the edit too. Must not run anything: `sync.storage.views` brings it into the file.

JSON is put together by hand from `||`: SQLite's json_object takes 100 arguments on some builds and rounds reals to 15
digits on old ones. Column and table names need no escaping in it; the schema refuses the characters that would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sync.schema import DELETED_COLUMN, METADATA_COLUMN, Column, Table
from sync.storage.names import (
    LAST_APPLIED,
    LAST_SEEN,
    TARGET,
    TARGET_UNKNOWN,
    data_table,
    literal,
    quoted,
)

PREFIX = "ps_view_"
"""Of the names of all triggers made here."""

# Under INSERT OR IGNORE a conflict leaves the row as it was: then there is nothing to upload.
_UNLESS_IGNORED = "SELECT RAISE(IGNORE) WHERE changes() = 0"

_SAME_ID = "SELECT CASE WHEN NEW.id IS NOT OLD.id THEN RAISE(ABORT, 'the id of a row cannot be changed') END"

_INFINITY_REFUSED = "RAISE(ABORT, 'an infinite number cannot be stored: JSON has none')"

_OPERANDS = 32
"""Of one flat `||` or OR: SQLite limits the depth of an expression, so a long one is a tree of such."""


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
    yield (
        "SELECT CASE WHEN NEW.id IS NULL THEN RAISE(ABORT, 'id is required')"
        " WHEN typeof(NEW.id) <> 'text' THEN RAISE(ABORT, 'id should be text') END"
    )
    row = _json_object([_unless_null(column) for column in table.columns])
    if table.insert_only:
        yield from _queue(table, "PUT", "NEW", data=row)
        return
    yield f"INSERT INTO {quoted(data_table(table))}(id, data) VALUES (NEW.id, {row})"
    yield _UNLESS_IGNORED
    if not table.local_only:
        stored = f"(SELECT data FROM {quoted(data_table(table))} WHERE id = NEW.id)"
        yield from _queue(table, "PUT", "NEW", data=stored)
        yield from _close_gate(table, "NEW")


def _update(table: Table) -> Iterator[str]:
    yield _SAME_ID
    if table.ignore_empty_updates:
        yield f"SELECT RAISE(IGNORE) WHERE NOT ({_any([_is_changed(column) for column in table.columns])})"
    changed = _json_object([_if_changed(column, "NEW") for column in table.columns])
    # A merge patch takes out what became null, and leaves alone what this schema does not name.
    yield (
        f"UPDATE {quoted(data_table(table))} SET data = json_patch(ifnull(data, '{{}}'), {changed}) WHERE id = NEW.id"
    )
    yield _UNLESS_IGNORED
    if not table.local_only:
        yield from _queue(table, "PATCH", "NEW", data=changed, old=_previous_values(table, is_update=True))
        yield from _close_gate(table, "NEW")


def _delete(table: Table) -> Iterator[str]:
    yield f"DELETE FROM {quoted(data_table(table))} WHERE id = OLD.id"
    if not table.local_only:
        yield from _queue(table, "DELETE", "OLD", old=_previous_values(table, is_update=False))
        yield from _close_gate(table, "OLD")


def _delete_by_update(table: Table) -> Iterator[str]:
    yield _SAME_ID
    yield f"DELETE FROM {quoted(data_table(table))} WHERE id = OLD.id"
    yield from _queue(table, "DELETE", "NEW", old=_previous_values(table, is_update=False))
    yield from _close_gate(table, "NEW")


def _queue(table: Table, op: str, row: str, *, data: str | None = None, old: str | None = None) -> Iterator[str]:
    """Add one entry to the queue, with the transaction's id.

    The first entry of an SQLite transaction draws the id, and the engine's own connections put it back at the end of
    theirs (see `upload_queue`). Plain SQL cannot tell one transaction from the next, so another client's transactions
    may share an id: they upload together, in order. Three cases are certain and draw a new one: the id was put back;
    another client has drawn since; and a connection that has changed nothing yet but the row of this very entry.
    """
    yield (
        "UPDATE ps_tx SET current_tx = next_tx, next_tx = next_tx + 1"
        " WHERE id = 1 AND (current_tx IS NOT next_tx - 1 OR total_changes() < 2)"
    )
    entry = f"""'{{"op":"{op}","id":' || json_quote({row}.id || '') || ',"type":"{table.name}\"'"""
    for key, value in (("data", data), ("old", old)):
        if value is not None:
            entry += f""" || ',"{key}":' || {value}"""
    if table.track_metadata and row == "NEW":
        metadata = f"NEW.{quoted(METADATA_COLUMN)}"
        entry += (
            f""" || CASE typeof({metadata}) WHEN 'text' THEN ',"metadata":' || json_quote({metadata} || '')"""
            " ELSE '' END"
        )
    yield f"INSERT INTO ps_crud(tx_id, data) SELECT current_tx, {entry} || '}}' FROM ps_tx WHERE id = 1"


def _close_gate(table: Table, row: str) -> Iterator[str]:
    """No older checkpoint may take back or acknowledge this write.

    None of these statements may meet a conflict: the OR clause of the app's own statement (OR IGNORE, say) would
    decide it, whatever stands here. Nor do they read what they insert into, or compare with a list: SQLite would make
    a temporary table for that each time, which takes longer than all the rest.
    """
    yield f"DELETE FROM ps_updated_rows WHERE row_type = {literal(table.name)} AND row_id = {row}.id"
    yield f"INSERT INTO ps_updated_rows(row_type, row_id) VALUES ({literal(table.name)}, {row}.id)"
    for key in (LAST_SEEN, LAST_APPLIED):
        yield f"DELETE FROM ps_kv WHERE key = {literal(key)}"
    yield f"UPDATE ps_kv SET value = {TARGET_UNKNOWN} WHERE key = {literal(TARGET)}"
    yield f"INSERT INTO ps_kv(key, value) SELECT {literal(TARGET)}, {TARGET_UNKNOWN} WHERE changes() = 0"


def _previous_values(table: Table, *, is_update: bool) -> str | None:
    tracked = table.track_previous_values
    if tracked is None:
        return None
    columns = [column for column in table.columns if tracked.columns is None or column.name in tracked.columns]
    if is_update and tracked.only_when_changed:
        return _json_object([_if_changed(column, "OLD") for column in columns])
    return _json_object([_pair(column, "OLD") for column in columns])


def _json_object(members: Sequence[str]) -> str:
    """Members are SQL of text: either empty, or a comma, a name and a value."""
    return f"'{{' || substr({_concatenated(members)}, 2) || '}}'" if members else "'{}'"


def _pair(column: Column, row: str) -> str:
    value = f"{row}.{quoted(column.name)}"
    return f"""',"{column.name}":' || {_json_value(value)}"""


def _unless_null(column: Column) -> str:
    value = f"NEW.{quoted(column.name)}"
    return f"CASE WHEN {value} IS NULL THEN '' ELSE {_pair(column, 'NEW')} END"


def _if_changed(column: Column, row: str) -> str:
    return f"CASE WHEN {_is_changed(column)} THEN {_pair(column, row)} ELSE '' END"


def _is_changed(column: Column) -> str:
    return f"NEW.{quoted(column.name)} IS NOT OLD.{quoted(column.name)}"


def _json_value(value: str) -> str:
    """Text stays text, also when a JSON function made it; reals keep all their digits.

    `quote` gives the shortest of 15 or all digits that reads back as the same number, and `%!.20e` always all: far
    from 1, SQLite's own reading of numbers (before 3.43) is too inexact to judge that.
    """
    return (
        f"CASE typeof({value}) WHEN 'text' THEN json_quote({value} || '') WHEN 'real' THEN CASE"
        f" WHEN abs({value}) BETWEEN 1e-99 AND 1e99 THEN quote({value}) WHEN abs({value}) = 9e999"
        f" THEN {_INFINITY_REFUSED} ELSE printf('%!.20e', {value}) END ELSE json_quote({value}) END"
    )


def _concatenated(operands: Sequence[str]) -> str:
    return _tree(operands, " || ")


def _any(conditions: Sequence[str]) -> str:
    return _tree(conditions, " OR ") if conditions else "FALSE"


def _tree(operands: Sequence[str], operator: str) -> str:
    while len(operands) > _OPERANDS:
        operands = [
            f"({operator.join(operands[start : start + _OPERANDS])})" for start in range(0, len(operands), _OPERANDS)
        ]
    return operator.join(operands)
