"""How triggers record a local write: the SQL that queues an entry for upload and closes the gate, as text.

Shared by the triggers of views (`triggers`) and of raw tables (`raw_table_triggers`). It is plain SQL that runs in any
SQLite from 3.38 on, without functions of the engine. Must not run anything.

JSON is concatenated with `||`: SQLite's json_object takes only 100 arguments in some builds and rounds reals to 15
digits in old ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from sync.sqlite.sql_text import quoted, sql_string
from sync.storage.names import IN_SYNC_OPERATION, LAST_APPLIED, LAST_REQUESTED, LAST_SEEN, TARGET, TARGET_UNKNOWN

CHECK_ID = (
    "SELECT CASE WHEN NEW.id IS NULL THEN RAISE(ABORT, 'id is required')"
    " WHEN typeof(NEW.id) <> 'text' THEN RAISE(ABORT, 'id should be text') END"
)

SAME_ID = (
    "SELECT CASE WHEN NEW.id COLLATE BINARY IS NOT OLD.id THEN RAISE(ABORT, 'the id of a row cannot be changed') END"
)

IS_IN_SYNC_OPERATION = f"EXISTS (SELECT 1 FROM ps_kv WHERE key = {sql_string(IN_SYNC_OPERATION)})"
"""The engine itself publishes or clears: what the app's triggers then write is not the user's, and not recorded."""

_INFINITY_REFUSED = "RAISE(ABORT, 'an infinite number cannot be stored: JSON has none')"

_OPERANDS = 32
"""Operands of one flat `||` or OR: SQLite limits the depth of expressions, so a long one is a tree of these."""


def queue(
    table: str, op: str, row: str, *, data: str | None = None, old: str | None = None, metadata: str | None = None
) -> Iterator[str]:
    """Add one entry to the queue, with the transaction's id.

    The first entry of an SQLite transaction draws the id, and the engine's own connections reset it at the end of
    theirs (see `upload_queue`). Plain SQL cannot distinguish one transaction from the next, so another client's
    transactions may share an id: they upload together, in order. Three cases are certain and draw a new one: the id was
    reset; another client has drawn one since; and a connection that has changed nothing but the row of this entry.

    Args:
        table: the synced table's name.
        op: PUT, PATCH or DELETE.
        row: NEW or OLD, whichever has the row's id.
        data: SQL that yields a JSON object.
        old: SQL that yields a JSON object.
        metadata: SQL that yields text or NULL.
    """
    yield (
        "UPDATE ps_tx SET current_tx = next_tx, next_tx = next_tx + 1"
        " WHERE id = 1 AND (current_tx IS NOT next_tx - 1 OR total_changes() < 2)"
    )
    entry = f"""'{{"op":"{op}","id":' || json_quote({row}.id || '') || {sql_string(',"type":' + _json(table))}"""
    for key, value in (("data", data), ("old", old)):
        if value is not None:
            entry += f""" || ',"{key}":' || {value}"""
    if metadata is not None:
        entry += (
            f""" || CASE typeof({metadata}) WHEN 'text' THEN ',"metadata":' || json_quote({metadata} || '')"""
            " ELSE '' END"
        )
    yield f"INSERT INTO ps_crud(tx_id, data) SELECT current_tx, {entry} || '}}' FROM ps_tx WHERE id = 1"


def close_gate(table: str, row: str) -> Iterator[str]:
    """Ensure that no older checkpoint undoes or acknowledges this write.

    Statements that may conflict say how to resolve it: otherwise the OR clause of the app's own statement (such as OR
    IGNORE) would decide. None reads the table it inserts into, or compares with a list: SQLite would create a temporary
    table for that each time, which takes longer than everything else.
    """
    yield (
        f"INSERT INTO ps_updated_rows(row_type, row_id) VALUES ({sql_string(table)}, {row}.id)"
        " ON CONFLICT(row_type, row_id) DO NOTHING"
    )
    yield (
        f"DELETE FROM ps_kv WHERE key BETWEEN {sql_string(LAST_APPLIED)} AND {sql_string(LAST_SEEN)}"
        f" AND key <> {sql_string(LAST_REQUESTED)}"
    )
    yield (
        f"INSERT INTO ps_kv(key, value) VALUES ({sql_string(TARGET)}, {TARGET_UNKNOWN})"
        " ON CONFLICT(key) DO UPDATE SET value = excluded.value WHERE value IS NOT excluded.value"
    )


def non_null_values(columns: Sequence[str]) -> str:
    """A JSON object of the new row's columns, without those that are null."""
    return _object(
        [f"CASE WHEN NEW.{quoted(column)} IS NULL THEN '' ELSE {_pair(column, 'NEW')} END" for column in columns]
    )


def changed_values(columns: Sequence[str], row: str) -> str:
    """A JSON object of the columns that an update changed, as they are in `row` (NEW or OLD)."""
    return _object([f"CASE WHEN {_is_changed(column)} THEN {_pair(column, row)} ELSE '' END" for column in columns])


def all_values(columns: Sequence[str], row: str) -> str:
    """A JSON object of the columns of `row` (NEW or OLD)."""
    return _object([_pair(column, row) for column in columns])


def any_is_changed(columns: Sequence[str]) -> str:
    """Whether an update changed one of the columns."""
    return _tree([_is_changed(column) for column in columns], " OR ") if columns else "FALSE"


def _object(members: Sequence[str]) -> str:
    """Members are SQL that yields text: either empty, or a comma, a name and a value."""
    return f"'{{' || substr({_tree(members, ' || ')}, 2) || '}}'" if members else "'{}'"


def _pair(column: str, row: str) -> str:
    value = f"{row}.{quoted(column)}"
    return f"{sql_string(f',{_json(column)}:')} || {_json_value(value)}"


def _json(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _is_changed(column: str) -> str:
    # The collation of an app's own table may treat different texts as equal.
    return f"NEW.{quoted(column)} COLLATE BINARY IS NOT OLD.{quoted(column)}"


def _json_value(value: str) -> str:
    """Text stays text, even if a JSON function made it; reals keep all their digits.

    `quote` writes 15 digits if they read back as the same number, or else all of them, and `%!.20e` always all: far
    from 1, SQLite's own parsing of numbers (before 3.43) is too inexact to check that.
    """
    return (
        f"CASE typeof({value}) WHEN 'text' THEN json_quote({value} || '') WHEN 'real' THEN CASE"
        f" WHEN abs({value}) BETWEEN 1e-99 AND 1e99 THEN quote({value}) WHEN abs({value}) = 9e999"
        f" THEN {_INFINITY_REFUSED} ELSE printf('%!.20e', {value}) END ELSE json_quote({value}) END"
    )


def _tree(operands: Sequence[str], operator: str) -> str:
    while len(operands) > _OPERANDS:
        operands = [
            f"({operator.join(operands[start : start + _OPERANDS])})" for start in range(0, len(operands), _OPERANDS)
        ]
    return operator.join(operands)
