"""One entry of the upload queue: a value, and its JSON in the file.

Owns the format of that JSON (that of PowerSync's clients); must not know tables or connections.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Op = Literal["PUT", "PATCH", "DELETE"]


class CrudEntry(msgspec.Struct, frozen=True):
    """One local change in the upload queue.

    Attributes:
        client_id: its number, increasing along the queue.
        transaction_id: shared by all entries of one SQLite transaction, or None.
        op: PUT carries the non-null columns, PATCH only those that changed (null for cleared ones), DELETE none.
        table: the synced table's name.
        id: the row's id.
        data: column values, or None for DELETE.
        previous_values: the row's values before, if the table tracks them.
        metadata: the metadata that the app attached, if the table tracks it.
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
    """Decode an entry from the JSON that the triggers write."""
    stored = _decoder.decode(data)
    return CrudEntry(
        number, transaction_id, stored.op, stored.type, stored.id, stored.data, stored.old, stored.metadata
    )


def encode_entry(entry: CrudEntry) -> str:
    """Encode an entry as the JSON that the triggers write."""
    stored = _StoredEntry(entry.op, entry.id, entry.table, entry.data, entry.previous_values, entry.metadata)
    return msgspec.json.encode(stored).decode()
