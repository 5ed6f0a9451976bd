"""One entry of the upload queue: a value, and the JSON as which it is kept.

Owns the shape of that JSON (`storage` documents of PowerSync's clients); knows no table and no connection.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Op = Literal["PUT", "PATCH", "DELETE"]


class CrudEntry(msgspec.Struct, frozen=True):
    """One local change, as it waits in the upload queue.

    Attributes:
        client_id: its number, growing along the queue.
        transaction_id: shared by all entries of one SQLite transaction, or None.
        op: PUT carries the non-null columns, PATCH only those that changed (null for cleared ones), DELETE none.
        table: the synced table's name.
        id: of the row.
        data: column values, or None for DELETE.
        previous_values: what the row held before, where the table tracks it.
        metadata: what the app gave along, where the table tracks it.
    """

    client_id: int
    transaction_id: int | None
    op: Op
    table: str
    id: str
    data: dict[str, Any] | None
    previous_values: dict[str, Any] | None = None
    metadata: str | None = None


class _StoredEntry(msgspec.Struct, omit_defaults=True):
    op: Op
    id: str
    type: str
    data: dict[str, Any] | None = None
    old: dict[str, Any] | None = None
    metadata: str | None = None


_decoder = msgspec.json.Decoder(_StoredEntry)


def decode_entry(number: int, transaction_id: int | None, data: str) -> CrudEntry:
    """An entry, from the JSON that the triggers make."""
    stored = _decoder.decode(data)
    return CrudEntry(
        number, transaction_id, stored.op, stored.type, stored.id, stored.data, stored.old, stored.metadata
    )


def encode_entry(entry: CrudEntry) -> str:
    """The JSON of an entry, as the triggers make it."""
    stored = _StoredEntry(entry.op, entry.id, entry.table, entry.data, entry.previous_values, entry.metadata)
    return msgspec.json.encode(stored).decode()
