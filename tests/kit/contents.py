"""The complete logical contents of a database file, so that two can be compared.

Left out is what may differ between two files of the same state: ids that only join tables, the client's own id, this
engine's mark that it keeps records of its own, the time of day, the text (not the value) of JSON that a client made
itself, the id and null columns inside a stored row (after a local write the core writes out the nulls and drops the id,
this engine does neither), and transaction ids that were drawn and not used: the core draws one for each transaction
that could have queued something.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

OWN_TABLES = {
    "ps_conflicts",
    "ps_crud_times",
    "ps_rejected_crud",
    "ps_rejected_transactions",
    "ps_retried_crud",
    "ps_uploaded",
}
"""What this engine keeps beside the tables of the file format; other clients leave them alone."""

Query = Callable[[str], list[list[Any]]]

_QUERIES = {
    "ps_migration": "SELECT id, down_migrations IS NULL FROM ps_migration ORDER BY id",
    "ps_kv": (
        "SELECT key, typeof(value), value FROM ps_kv"
        " WHERE key NOT IN ('client_id', 'keeps_records', 'custom_checkpoint', 'user_id') ORDER BY key"
    ),
    "client_id": "SELECT count(*), min(length(value)) FROM ps_kv WHERE key = 'client_id'",
    "ps_oplog": (
        "SELECT b.name, op_id, row_type, row_id, key, data, hash FROM ps_oplog o LEFT JOIN ps_buckets b"
        " ON b.id = o.bucket ORDER BY b.name, op_id"
    ),
    "ps_updated_rows": "SELECT row_type, row_id FROM ps_updated_rows ORDER BY row_type, row_id",
    "ps_untyped": "SELECT type, id, data FROM ps_untyped ORDER BY type, id",
    "ps_tx": "SELECT id, current_tx, next_tx > ifnull((SELECT max(tx_id) FROM ps_crud), 0) FROM ps_tx",
    "queue numbers": "SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'ps_crud'",
    "ps_sync_state": "SELECT priority, typeof(last_synced_at) FROM ps_sync_state ORDER BY priority",
    "ps_stream_subscriptions": (
        "SELECT stream_name, active, is_default, local_priority, json(local_params), ttl, typeof(expires_at),"
        " typeof(last_synced_at) FROM ps_stream_subscriptions ORDER BY id"
    ),
}


def contents(query: Query) -> dict[str, Any]:
    """What stands in the file's internal tables, by name."""
    result: dict[str, Any] = {name: query(sql) for name, sql in _QUERIES.items()}
    columns = [
        row[0] for row in query("SELECT name FROM pragma_table_info('ps_buckets') WHERE name <> 'id' ORDER BY 1")
    ]
    result["ps_buckets"] = [columns, *query(f"SELECT {', '.join(columns)} FROM ps_buckets ORDER BY name")]
    result["ps_crud"] = [
        [number, transaction, exact(data)]
        for number, transaction, data in query(
            "SELECT id, iif(tx_id IS NULL, NULL, dense_rank() OVER (ORDER BY tx_id)), data FROM ps_crud ORDER BY id"
        )
    ]
    for (table,) in query("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'ps_data_*' ORDER BY 1"):
        rows = query(f'SELECT id, data FROM "{table}" ORDER BY id')
        result[table] = [[row_id, _columns(exact(data))] for row_id, data in rows]
    return result


def everything(query: Query) -> dict[str, Any]:
    """All rows of all internal tables as they stand, of whatever version; for two copies of one file."""
    result: dict[str, Any] = {"ps_migration": query("SELECT id FROM ps_migration ORDER BY id")}
    for (table,) in query("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'ps_*'"):
        if table != "ps_migration" and table not in OWN_TABLES:
            columns = [row[0] for row in query(f"SELECT name FROM pragma_table_info({table!r}) ORDER BY 1")]
            rows = query(f'SELECT {", ".join(columns)} FROM "{table}"')
            result[table] = [columns, *sorted(rows, key=repr)]
    return result


def layout(query: Query) -> dict[str, Any]:
    """How the internal tables are built: columns, keys, strictness and indexes."""
    tables = [
        row[0]
        for row in query(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'ps_*' AND name NOT GLOB 'ps_data_*'"
        )
    ]
    return {
        table: {
            "columns": sorted(query(f'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info({table!r})')),
            "kind": query(f"SELECT wr, strict FROM pragma_table_list WHERE schema = 'main' AND name = {table!r}"),
            "indexes": sorted(
                query(
                    f'SELECT i.name, i."unique", i.partial, group_concat(c.name) FROM pragma_index_list({table!r}) i,'
                    " pragma_index_info(i.name) c GROUP BY i.name"
                )
            ),
            "generated": query(f"SELECT sql GLOB '*AUTOINCREMENT*' FROM sqlite_master WHERE name = {table!r}"),
        }
        for table in tables
        if table not in OWN_TABLES
    }


def exact(text: str | None) -> Any:
    """JSON in a form in which 1, 1.0 and "1" differ, and in which the order of keys does not count."""
    return None if text is None else json.loads(text, parse_float=lambda digits: ("real", float(digits)))


def _columns(row: Any) -> Any:
    if not isinstance(row, dict):
        return row
    return {column: value for column, value in row.items() if column != "id" and value is not None}
