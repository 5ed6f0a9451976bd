"""The streams of a sync config as values: which buckets a row belongs to, and which buckets a request selects.

Both directions live here so that they cannot drift apart. Pure values, without SQL, HTTP or YAML: `sync_config`
creates them, `oplog` uses them to find the buckets of a row, and `sync_stream` to find the buckets of a request.

The model follows PowerSync's Sync Streams. The values of the request that a query compares columns with become the
parameters of a bucket. A comparison with other rows (`IN (SELECT …)`) is a lookup, which is evaluated when a client
connects and again whenever its result changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Any, NamedTuple

import msgspec

from app.backend.errors import RequestError

MAX_BUCKETS = 1000
_INT64 = range(-(2**63), 2**63)

Value = str | int | float | None


class Subscription(msgspec.Struct):
    """One explicit stream subscription in a request; all three keys are required."""

    stream: str
    parameters: dict[str, Any] | None
    override_priority: Annotated[int, msgspec.Meta(ge=0, le=3)] | None


class StreamSelection(msgspec.Struct):
    """The streams selected by a request."""

    include_defaults: bool = True
    subscriptions: list[Subscription] = []


class BucketPosition(msgspec.Struct):
    """How much of a bucket the client already has: the op id to continue after."""

    name: str
    after: Annotated[str, msgspec.Meta(pattern="^[0-9]{1,19}$")]


class SyncRequest(msgspec.Struct):
    """The body of a stream request; unknown keys are ignored."""

    buckets: list[BucketPosition] | None = None
    client_id: str | None = None
    raw_data: bool | None = None
    streams: StreamSelection | None = None


@dataclass(frozen=True)
class UserId:
    """The user that the request's token was issued to: `auth.user_id()`."""


@dataclass(frozen=True)
class StreamParameter:
    """A parameter of the subscription: `subscription.parameter('name')`."""

    name: str


@dataclass(frozen=True)
class ListParameter:
    """Any value of a list parameter of the subscription: `IN subscription.parameter('name')`."""

    name: str


Scalar = UserId | StreamParameter


@dataclass(frozen=True)
class Lookup:
    """Values found in other rows: `IN (SELECT column FROM table WHERE …)`."""

    table: str
    column: str
    conditions: tuple[tuple[str, Scalar], ...]
    constants: tuple[tuple[str, Value], ...]


@dataclass(frozen=True)
class RowQuery:
    """The rows of a table that match `constants`, partitioned by the values of `columns`."""

    table: str
    columns: tuple[str, ...]
    constants: tuple[tuple[str, Value], ...]

    def parameters_of(self, row: Mapping[str, Any]) -> tuple[Value, ...] | None:
        """The bucket parameters of `row`, or None if the query does not match it."""
        if any(row[column] != value for column, value in self.constants):
            return None
        values = tuple(row[column] for column in self.columns)
        # As in SQL, null equals nothing.
        return None if None in values else values


@dataclass(frozen=True)
class BucketSource:
    """Queries whose rows share buckets; `name` is the prefix of the bucket names."""

    name: str
    queries: tuple[RowQuery, ...]

    def bucket(self, parameters: Iterable[Value]) -> str:
        """The name of the bucket for these parameters."""
        return f"{self.name}{encode(tuple(parameters))}"


@dataclass(frozen=True)
class Querier:
    """How a stream selects buckets of `source`: the operands that each bucket parameter must match, all at once."""

    source: BucketSource
    operands: tuple[tuple[Scalar | ListParameter | Lookup, ...], ...]

    @property
    def is_dynamic(self) -> bool:
        """Whether the selected buckets depend on other rows."""
        return any(isinstance(operand, Lookup) for parameter in self.operands for operand in parameter)


@dataclass(frozen=True)
class Stream:
    """A stream that clients can subscribe to; default streams are included unless the client opts out."""

    name: str
    is_default: bool
    priority: int
    queriers: tuple[Querier, ...]


class LookupEntry(NamedTuple):
    """One result of a lookup, given by its number: `value` for `parameters`, both as JSON."""

    lookup: int
    parameters: str
    value: str


def encode(value: Any) -> str:
    """`value` as JSON text, as used in the names of buckets and in lookup entries."""
    return msgspec.json.encode(value).decode()


@dataclass(frozen=True)
class SyncRules:
    """All streams of a sync config, with the buckets and lookup results that a row belongs to."""

    streams: tuple[Stream, ...]
    sources: tuple[BucketSource, ...] = field(init=False)
    lookups: tuple[Lookup, ...] = field(init=False)

    def __post_init__(self) -> None:
        queriers = [querier for stream in self.streams for querier in stream.queriers]
        object.__setattr__(self, "sources", tuple(dict.fromkeys(querier.source for querier in queriers)))
        operands = [operand for querier in queriers for parameter in querier.operands for operand in parameter]
        object.__setattr__(self, "lookups", tuple(dict.fromkeys(it for it in operands if isinstance(it, Lookup))))

    def buckets_of(self, table: str, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The names, without prefix, of all buckets that `row` of `table` belongs to."""
        found: dict[str, None] = {}
        for source in self.sources:
            for query in source.queries:
                parameters = query.parameters_of(row) if query.table == table else None
                if parameters is not None:
                    found[source.bucket(parameters)] = None
        return tuple(found)

    def lookup_entries_of(self, table: str, row: Mapping[str, Any]) -> frozenset[LookupEntry]:
        """The lookup results that `row` of `table` contributes. As in SQL, null equals nothing."""
        found: set[LookupEntry] = set()
        for number, lookup in enumerate(self.lookups):
            if lookup.table != table or any(row[column] != value for column, value in lookup.constants):
                continue
            parameters = [row[column] for column, _ in lookup.conditions]
            value = row[lookup.column]
            if value is not None and None not in parameters:
                found.add(LookupEntry(number, encode(parameters), encode(value)))
        return frozenset(found)

    def buckets_behind(self, entry: LookupEntry) -> list[tuple[Querier, int]]:
        """The queriers that use `entry` to select buckets, each with the position of the parameter it provides."""
        lookup = self.lookups[entry.lookup]
        return [
            (querier, position)
            for stream in self.streams
            for querier in stream.queriers
            for position, parameter in enumerate(querier.operands)
            if lookup in parameter
        ]


@dataclass(frozen=True)
class BucketDescription:
    """A bucket of a connection: its priority (0 first) and the subscriptions that include it."""

    name: str
    priority: int
    subscriptions: tuple[dict[str, int | str], ...]


@dataclass(frozen=True)
class LookupCall:
    """A lookup with the values of a request; if `among` is given, only these results matter."""

    number: int
    lookup: Lookup
    parameters: tuple[Value, ...]
    among: tuple[Value, ...] | None

    def is_changed_by(self, entry: LookupEntry) -> bool:
        """Whether adding or removing `entry` may change the result."""
        if entry.lookup != self.number or entry.parameters != encode(self.parameters):
            return False
        return self.among is None or entry.value in {encode(value) for value in self.among}


RunLookup = Callable[[LookupCall], list[Value]]


@dataclass(frozen=True)
class _BucketRequest:
    """One subscription, applied to one querier of a stream."""

    querier: Querier
    priority: int
    subscription: dict[str, int | str]
    values: Mapping[str, Any]
    user_id: str


class Target:
    """What a connection syncs: its streams and its buckets, which may change as other rows change."""

    def __init__(
        self, rules: SyncRules, streams: list[dict[str, Any]], requests: list[_BucketRequest], prefix: str
    ) -> None:
        self.streams = tuple(streams)
        self._rules = rules
        self._prefix = prefix
        self._dynamic = [request for request in requests if request.querier.is_dynamic]
        self._static = self._describe([request for request in requests if not request.querier.is_dynamic], _no_lookup)

    @property
    def lookup_calls(self) -> list[LookupCall]:
        """The lookups on which the buckets depend."""
        calls: list[LookupCall] = []

        def collect(call: LookupCall) -> list[Value]:
            calls.append(call)
            return []

        self._describe(self._dynamic, collect)
        return calls

    def buckets(self, run: RunLookup) -> tuple[BucketDescription, ...]:
        """The current buckets, in the order of their streams; `run` evaluates lookups.

        A bucket that is selected both with and without a lookup is listed twice, as in the PowerSync Service; the
        second one counts.

        Raises RequestError 500 PSYNC_S2305 for more than 1,000 buckets, as the PowerSync Service does.
        """
        found = (*self._static, *self._describe(self._dynamic, run)) if self._dynamic else self._static
        _check_number(len({bucket.name for bucket in found}))
        return found

    def _describe(self, requests: list[_BucketRequest], run: RunLookup) -> tuple[BucketDescription, ...]:
        found: dict[str, BucketDescription] = {}
        for request in requests:
            for parameters in _parameter_sets(self._rules, request, run):
                name = f"{self._prefix}#{request.querier.source.bucket(parameters)}"
                bucket = found.get(name) or BucketDescription(name, request.priority, ())
                served = (*bucket.subscriptions, request.subscription)
                found[name] = BucketDescription(name, min(bucket.priority, request.priority), served)
            _check_number(len(found))
        return tuple(found.values())


def _no_lookup(_call: LookupCall) -> list[Value]:
    raise AssertionError("a static bucket does not use lookups")


def _check_number(buckets: int) -> None:
    if buckets > MAX_BUCKETS:
        description = f"Too many buckets on one connection: {buckets}; the limit is {MAX_BUCKETS}."
        raise RequestError(500, "PSYNC_S2305", description, name="ServiceError")


def _comparable(value: Any) -> Value:
    """A value of a request in the form in which SQL compares it with a column."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, str | float) or (isinstance(value, int) and value in _INT64):
        return value
    return encode(value)


def _scalar(operand: Scalar, request: _BucketRequest) -> Value:
    return request.user_id if isinstance(operand, UserId) else _comparable(request.values.get(operand.name))


def _parameter_sets(rules: SyncRules, request: _BucketRequest, run: RunLookup) -> list[tuple[Value, ...]]:
    """The parameters of all buckets that `request` selects."""
    candidates: list[tuple[Value, ...]] = []
    for parameter in request.querier.operands:
        # Values from the request come first, so that lookups only have to check these.
        values: tuple[Value, ...] | None = None
        for operand in sorted(parameter, key=lambda it: isinstance(it, Lookup)):
            if isinstance(operand, Lookup):
                given = tuple(_scalar(condition, request) for _, condition in operand.conditions)
                found = tuple(run(LookupCall(rules.lookups.index(operand), operand, given, values)))
            elif isinstance(operand, ListParameter):
                elements = [_comparable(value) for value in request.values[operand.name]]
                found = tuple(dict.fromkeys(value for value in elements if value is not None))
            else:
                found = (_scalar(operand, request),)
            values = found if values is None else tuple(value for value in values if value in found)
        candidates.append(values or ())
    _check_number(math.prod(len(values) for values in candidates))
    return list(product(*candidates))


def _error_of(querier: Querier, values: Mapping[str, Any]) -> str | None:
    for parameter in querier.operands:
        for operand in parameter:
            if isinstance(operand, ListParameter) and not isinstance(values.get(operand.name), list):
                return f"The parameter {operand.name!r} must be a list."
    return None


def resolve(rules: SyncRules, request: SyncRequest, *, prefix: str, user_id: str) -> Target:
    """The streams and buckets that `request` selects for `user_id`; unknown streams are ignored.

    Raises RequestError 500 PSYNC_S2305 for more than 1,000 buckets, as the PowerSync Service does.
    """
    selection = request.streams or StreamSelection()
    streams: list[dict[str, Any]] = []
    requests: list[_BucketRequest] = []
    for stream in rules.streams:
        # An explicit subscription to a default stream comes before the default subscription.
        subscriptions: list[tuple[dict[str, int | str], int | None, Mapping[str, Any]]] = [
            ({"sub": index}, subscription.override_priority, subscription.parameters or {})
            for index, subscription in enumerate(selection.subscriptions)
            if subscription.stream == stream.name
        ]
        if stream.is_default and selection.include_defaults:
            subscriptions.append(({"default": len(streams)}, None, {}))
        if not subscriptions:
            continue
        errors: list[dict[str, Any]] = []
        for source, priority, values in subscriptions:
            problems = [_error_of(querier, values) for querier in stream.queriers]
            errors += [{"subscription": source.get("sub", "default"), "message": it} for it in problems if it]
            requests += [
                _BucketRequest(querier, stream.priority if priority is None else priority, source, values, user_id)
                for querier, problem in zip(stream.queriers, problems, strict=True)
                if problem is None
            ]
        streams.append({"name": stream.name, "is_default": stream.is_default, "errors": errors})
    return Target(rules, streams, requests, prefix)
