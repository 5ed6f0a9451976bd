"""The sync config: reads the part of PowerSync's YAML format that this backend supports into the rules of `streams`.

Knows the keys and their meaning; `sync_query` parses the queries. Everything else is rejected with an error message
that names the file and line, because silently ignoring a rule could show somebody data that is not theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import yaml

from app.backend.config import BackendError
from app.backend.rules.streams import BucketSource, Lookup, Querier, RowQuery, Scalar, Stream, SyncRules
from app.backend.rules.sync_query import BucketParameter, DataQuery, QueryError, Tables, data_query, parameter_query

DEFAULT = Path(__file__).with_name("sync-config.yaml")

_DEFAULT_PRIORITY = 3
_MAX_BYTES = 1024 * 1024
_STREAM_KEYS = ("auto_subscribe", "priority", "query", "queries", "accept_potentially_dangerous_queries")
_BUCKET_KEYS = ("parameters", "data", "priority", "accept_potentially_dangerous_queries")

T = TypeVar("T")


class SyncConfigError(Exception):
    """The sync config has an error; the message is one sentence, and `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def load(path: Path, tables: Tables) -> SyncRules:
    """Read the rules from the file at `path`; `tables` maps each table to its columns.

    Raises BackendError if the file cannot be read or has an error; the message names the file, the line and the
    supported alternatives.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BackendError(f"The sync config {path} is larger than 1 MiB.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BackendError(f"Cannot read the sync config {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise BackendError(f"The sync config {path} is not valid UTF-8 text.") from error
    try:
        return parse(text, tables)
    except SyncConfigError as problem:
        raise BackendError(f"{path}, line {problem.line}: {problem}") from None


def parse(text: str, tables: Tables) -> SyncRules:
    """Parse the text of a sync config. Raises SyncConfigError if it has an error or uses an unsupported feature."""
    try:
        root = yaml.SafeLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SyncConfigError(
            f"This is not valid YAML: {error.problem or error.context or 'it cannot be read'}.", line
        ) from None
    except (yaml.YAMLError, RecursionError):
        raise SyncConfigError("This is not valid YAML.", 1) from None
    if root is None:
        raise SyncConfigError("The sync config is empty; it needs streams or bucket_definitions.", 1)
    keys = _mapping(root, ("config", "streams", "bucket_definitions"))
    if "config" in keys:
        edition = _mapping(keys["config"], ("edition",)).get("edition")
        if edition is not None and _scalar(edition, int) not in {1, 2, 3}:
            raise SyncConfigError("edition must be 1, 2 or 3.", _line(edition))
    present = [name for name in ("streams", "bucket_definitions") if name in keys]
    if len(present) != 1:
        raise SyncConfigError("A sync config must have either streams or bucket_definitions.", _line(root))
    compiler = _Compiler(tables)
    definitions = _mapping(keys[present[0]], None)
    make = compiler.stream if present == ["streams"] else compiler.bucket_definition
    return SyncRules(tuple(make(name, node) for name, node in definitions.items()))


def fingerprint(rules: SyncRules) -> str:
    """Identifies these rules: buckets that were filled by other rules cannot be reused."""
    return hashlib.sha256(repr(rules.streams).encode()).hexdigest()


class _Compiler:
    """Turns definitions into streams; streams that sync the same rows share their buckets."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._sources: dict[frozenset[RowQuery], BucketSource] = {}

    def stream(self, name: str, node: yaml.Node) -> Stream:
        keys = _mapping(node, _STREAM_KEYS)
        if ("query" in keys) == ("queries" in keys):
            raise SyncConfigError(f"The stream {name} needs either query or queries.", _line(node))
        nodes = [keys["query"]] if "query" in keys else _sequence(keys["queries"])
        variants: dict[tuple[tuple[object, ...], ...], list[DataQuery]] = {}
        for each in nodes:
            query = self._query(each, data_query)
            if any(isinstance(operand, BucketParameter) for operands in query.operands for operand in operands):
                raise SyncConfigError("bucket.… can only be used in bucket_definitions, not in streams.", _line(each))
            variants.setdefault(query.operands, []).append(query)
        queriers = [
            Querier(self._source(f"{name}|{index}", queries), _operands(queries[0]))
            for index, queries in enumerate(variants.values())
        ]
        is_default = "auto_subscribe" in keys and _scalar(keys["auto_subscribe"], bool)
        return Stream(name, is_default, _priority(keys), tuple(queriers))

    def bucket_definition(self, name: str, node: yaml.Node) -> Stream:
        keys = _mapping(node, _BUCKET_KEYS)
        if "data" not in keys:
            raise SyncConfigError(f"The bucket definition {name} needs data.", _line(node))
        parameters = keys.get("parameters")
        nodes = [] if parameters is None else _one_or_more(parameters)
        found = [self._query(each, parameter_query).operands for each in nodes]
        names = list(found[0]) if found else []
        for each, operands in zip(nodes, found, strict=True):
            if set(operands) != set(names):
                raise SyncConfigError(f"All parameter queries of {name} must define the same parameters.", _line(each))
        queries: list[RowQuery] = []
        for each in _sequence(keys["data"]):
            query = self._query(each, data_query)
            columns = dict(zip((it for it in query.operands), query.rows.columns, strict=True))
            wanted = {(BucketParameter(it),): it for it in names}
            if set(columns) != set(wanted):
                needed = ", ".join(f"bucket.{it}" for it in names) or "none"
                raise SyncConfigError(
                    f"Each data query of {name} must compare a column with each of its bucket parameters: {needed}.",
                    _line(each),
                )
            ordered = tuple(columns[operands] for operands in wanted)
            queries.append(RowQuery(query.rows.table, ordered, query.rows.constants))
        source = BucketSource(name, tuple(queries))
        queriers = [Querier(source, tuple((operands[it],) for it in names)) for operands in found]
        return Stream(
            name, is_default=True, priority=_priority(keys), queriers=tuple(queriers or [Querier(source, ())])
        )

    def _source(self, name: str, queries: list[DataQuery]) -> BucketSource:
        rows = tuple(query.rows for query in queries)
        return self._sources.setdefault(frozenset(rows), BucketSource(name, rows))

    def _query(self, node: yaml.Node, read: Callable[[str, Tables], T]) -> T:
        text = _scalar(node, str)
        try:
            return read(text, self._tables)
        except QueryError as error:
            in_block = isinstance(node, yaml.ScalarNode) and node.style in {"|", ">"}
            raise SyncConfigError(str(error), _line(node) + in_block + text[: error.position].count("\n")) from None


def _operands(query: DataQuery) -> tuple[tuple[Scalar | Lookup, ...], ...]:
    return query.operands  # type: ignore[return-value]


def _priority(keys: dict[str, yaml.Node]) -> int:
    if "priority" not in keys:
        return _DEFAULT_PRIORITY
    priority = _scalar(keys["priority"], int)
    if not 0 <= priority <= _DEFAULT_PRIORITY:
        raise SyncConfigError("priority must be an integer from 0 to 3.", _line(keys["priority"]))
    return priority


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _mapping(node: yaml.Node, allowed: tuple[str, ...] | None) -> dict[str, yaml.Node]:
    """The values of a mapping by key. Only `allowed` keys are accepted; None accepts all."""
    if not isinstance(node, yaml.MappingNode):
        raise SyncConfigError("Expected a mapping of keys to values.", _line(node))
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = _scalar(key, str)
        if allowed is not None and name not in allowed:
            raise SyncConfigError(f"Unsupported key {name!r}; expected one of: {', '.join(allowed)}.", _line(key))
        if name in found:
            raise SyncConfigError(f"Duplicate key {name!r}.", _line(key))
        found[name] = value
    return found


def _sequence(node: yaml.Node) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise SyncConfigError("Expected a list with at least one query.", _line(node))
    return list(node.value)


def _one_or_more(node: yaml.Node) -> list[yaml.Node]:
    return _sequence(node) if isinstance(node, yaml.SequenceNode) else [node]


def _scalar(node: yaml.Node, kind: type[T]) -> T:
    value: object = None
    if isinstance(node, yaml.ScalarNode):
        value = cast("object", yaml.SafeLoader("").construct_object(node))  # pyright: ignore[reportUnknownMemberType]
    if type(value) is not kind:
        wanted = {str: "a string", int: "an integer", bool: "true or false"}[kind]  # type: ignore[index]
        raise SyncConfigError(f"Expected {wanted}.", _line(node))
    return value
