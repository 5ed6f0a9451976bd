"""Typed rows: SQLite's values ⇄ dataclasses, msgspec Structs, pydantic models, TypedDicts, named tuples and dicts.

Owns the conversion in both directions. SQLite has integers, reals, texts and blobs; a bool is stored as 0 or 1, a date
or time as ISO 8601 text, and a nested value as JSON text. Must not run SQL. pydantic is used only if a model is given.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from enum import Enum
from typing import Annotated, Any, TypeVar, Union, cast

import msgspec

from sync.errors import RowTypeError
from sync.sqlite.sql_connection import Row

T = TypeVar("T")

_Convert = Callable[[Any], Any]

_PLAIN = (int, str, bytes)
_ISO: dict[Any, _Convert] = {datetime: datetime.fromisoformat, date: date.fromisoformat, time: time.fromisoformat}
_CONTAINERS = (list, dict, tuple, set, frozenset, Mapping)
_BOTH_UNIONS = (Union, types.UnionType)


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    name: str
    column: str
    required: bool
    hint: Any
    convert: _Convert


def row_reader(row_type: type[T]) -> Callable[[Row], T]:
    """A function that converts a row to a `row_type`: columns by the names of its fields, in any order.

    Columns without a field are ignored; fields with a default may have no column. `dict` takes all columns as they are.

    Raises (the function):
        RowTypeError: a column is missing, or its value does not match the field's type.
    Raises:
        TypeError: rows of this type are not supported.
    """
    return cast("Callable[[Row], T]", _reader(row_type))


def row_values(row: object) -> dict[str, Any]:
    """The columns of a mapping or a typed instance, as SQLite stores them: the inverse of `row_reader`.

    Raises:
        TypeError: `row` is neither.
    """
    values: Mapping[str, Any]
    if isinstance(row, Mapping):
        values = cast("Mapping[str, Any]", row)
    elif isinstance(row, Row):
        values = dict(row)
    elif isinstance(row, msgspec.Struct):
        encoded = {field.name: field.encode_name for field in msgspec.structs.fields(row)}
        values = {encoded[name]: value for name, value in msgspec.structs.asdict(row).items()}
    elif hasattr(row, "__pydantic_fields__") and not isinstance(row, type):
        adapter, no_columns = _model_adapter(_class_of(row))
        values = cast("dict[str, Any]", adapter.dump_python(row, by_alias=True, exclude=no_columns))
    elif dataclasses.is_dataclass(row) and not isinstance(row, type):
        values = {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.init}
    elif isinstance(row, tuple) and hasattr(cast("Any", row), "_asdict"):
        values = cast("dict[str, Any]", cast("Any", row)._asdict())
    else:
        raise TypeError(
            f"A row must be a mapping, a dataclass, a msgspec Struct, a pydantic model or a named tuple, not {row!r}."
        )
    return {name: _stored(value) for name, value in values.items()}


def _stored(value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (str, bytes, float)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    text = msgspec.json.encode(value, enc_hook=_encode_model).decode()
    decoded = json.loads(text)
    return decoded if isinstance(decoded, str) else text


@functools.lru_cache(maxsize=256)
def _model_adapter(model: Any) -> tuple[Any, frozenset[str]]:
    """Reads and writes a pydantic model or dataclass; and the names of its computed fields, which have no column."""
    from pydantic import TypeAdapter

    computed = {name for name, field in model.__pydantic_fields__.items() if field.init is False}
    return TypeAdapter(model), frozenset(computed | model.__pydantic_decorators__.computed_fields.keys())


def _class_of(value: Any) -> Any:
    return value.__class__


def _encode_model(value: Any) -> Any:
    if hasattr(value, "__pydantic_fields__"):
        return _model_adapter(_class_of(value))[0].dump_python(value, mode="json")
    raise TypeError(f"A value of type {type(value).__name__} cannot be stored in a column: {value!r}")


@functools.lru_cache(maxsize=256)
def _reader(row_type: Any) -> Callable[[Row], Any]:
    if row_type is Row:
        return lambda row: row
    if row_type is dict or typing.get_origin(row_type) is dict:
        return dict[str, Any]
    if hasattr(row_type, "__pydantic_fields__"):
        return _model_reader(row_type)
    fields = _fields(row_type)
    make: Callable[..., Any] = dict[str, Any] if typing.is_typeddict(row_type) else row_type

    def read(row: Row) -> Any:
        names = row.keys()
        values: dict[str, Any] = {}
        for field in fields:
            if field.column not in names:
                if field.required:
                    raise RowTypeError(row_type, field.column, f"no such column, only {', '.join(names)}")
                continue
            value = row[field.column]
            try:
                values[field.name] = field.convert(value)
            except (ValueError, TypeError) as error:
                raise RowTypeError(row_type, field.column, _why(value, field.hint, error)) from error
        try:
            return make(**values)
        except (ValueError, TypeError) as error:  # from a __post_init__ that validates
            raise RowTypeError(row_type, None, str(error)) from error

    return read


def _why(value: Any, hint: Any, error: Exception) -> str:
    expected = hint.__name__ if isinstance(hint, type) else str(hint)
    detail = f" ({error})" if str(error) else ""
    return f"expected {expected}, got {_shortened(value)} of type {type(value).__name__}{detail}"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _fields(row_type: Any) -> list[_Field]:
    def field(name: str, hint: Any, *, required: bool, column: str | None = None) -> _Field:
        return _Field(name, column or name, required, hint, _converter(hint))

    if _is_subclass(row_type, msgspec.Struct):
        return [
            field(each.name, each.type, required=each.required, column=each.encode_name)
            for each in msgspec.structs.fields(row_type)
        ]
    if dataclasses.is_dataclass(row_type):
        hints = typing.get_type_hints(row_type, include_extras=True)
        missing = dataclasses.MISSING
        return [
            field(each.name, hints[each.name], required=each.default is missing and each.default_factory is missing)
            for each in dataclasses.fields(row_type)
            if each.init
        ]
    if typing.is_typeddict(row_type):
        hints = typing.get_type_hints(row_type)
        # Python itself does not detect NotRequired in annotations that are strings.
        marks = typing.get_type_hints(row_type, include_extras=True)
        optional = {name for name, mark in marks.items() if typing.get_origin(mark) is typing.NotRequired}
        required = row_type.__required_keys__ - optional
        return [field(name, hint, required=name in required) for name, hint in hints.items()]
    if _is_subclass(row_type, tuple) and hasattr(row_type, "_fields"):
        hints = typing.get_type_hints(row_type)
        defaults = row_type._field_defaults
        return [field(name, hints.get(name, Any), required=name not in defaults) for name in row_type._fields]
    raise TypeError(
        f"Rows of type {row_type!r} are not supported: use a dataclass, a msgspec Struct, a pydantic model, a"
        " TypedDict, a named tuple, or dict."
    )


def _converter(hint: Any) -> _Convert:
    """A function that converts SQLite's value to this type, or raises ValueError or TypeError."""
    origin = typing.get_origin(hint)
    if origin is Annotated and not any(isinstance(extra, msgspec.Meta) for extra in typing.get_args(hint)[1:]):
        return _converter(typing.get_args(hint)[0])
    if origin in _BOTH_UNIONS:
        return _union(typing.get_args(hint))
    if hint is Any or hint is object:
        return lambda value: value
    if hint is bool:
        return _to_bool
    if hint is float:
        return _to_float
    if hint in _PLAIN:
        return _instance_of(hint)
    if hint in _ISO:
        return _text_to(_ISO[hint])
    if hint is type(None):
        return _to_none
    if hasattr(hint, "__pydantic_fields__"):
        return _text_to(_model_adapter(hint)[0].validate_json)
    if _is_json(hint):
        return _text_to(msgspec.json.Decoder(hint).decode)
    return lambda value: msgspec.convert(value, hint)


def _is_json(hint: Any) -> bool:
    kind: Any = typing.get_origin(hint) or hint
    return (
        _is_subclass(kind, *_CONTAINERS, msgspec.Struct) or dataclasses.is_dataclass(kind) or typing.is_typeddict(kind)
    )


def _is_subclass(kind: Any, *of: type[Any]) -> bool:
    return isinstance(kind, type) and issubclass(kind, of)


def _union(members: tuple[Any, ...]) -> _Convert:
    """The first member that accepts the value. Text comes last: it would accept every date and every JSON text."""
    converters = [_converter(member) for member in sorted(members, key=lambda member: member is str)]

    def convert(value: Any) -> Any:
        errors: list[str] = []
        for each in converters:
            try:
                return each(value)
            except (ValueError, TypeError) as error:
                errors.append(str(error))
        raise ValueError("; ".join(error for error in errors if error))

    return convert


def _to_bool(value: Any) -> bool:
    if isinstance(value, int) and value in {0, 1}:
        return bool(value)
    raise ValueError("a bool is stored as 0 or 1")


def _to_float(value: Any) -> float:
    if isinstance(value, (int, float)):
        return float(value)
    raise TypeError


def _to_none(value: Any) -> None:
    if value is not None:
        raise TypeError


def _instance_of(kind: type[Any]) -> _Convert:
    def convert(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError
        return value

    return convert


def _text_to(parse: Callable[[str], Any]) -> _Convert:
    def convert(value: Any) -> Any:
        if not isinstance(value, str):
            raise TypeError
        return parse(value)

    return convert


def _model_reader(model: Any) -> Callable[[Row], Any]:
    from pydantic import ValidationError

    adapter, _ = _model_adapter(model)
    nested: set[str] = set()
    for name, info in model.__pydantic_fields__.items():
        members = typing.get_args(info.annotation) if typing.get_origin(info.annotation) in _BOTH_UNIONS else ()
        if any(_is_json(hint) or hasattr(hint, "__pydantic_fields__") for hint in (info.annotation, *members)):
            nested |= {name, info.alias or name, str(info.validation_alias or name)}

    def read(row: Row) -> Any:
        values = dict(row)
        for column in nested & values.keys():
            if isinstance(values[column], str):
                try:
                    values[column] = json.loads(values[column])
                except ValueError as error:
                    raise RowTypeError(model, column, _why(values[column], "JSON", error)) from error
        try:
            return adapter.validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            column = ".".join(str(part) for part in first["loc"]) or None
            raise RowTypeError(model, column, f"{first['msg']}, got {_shortened(first['input'])}") from error

    return read
