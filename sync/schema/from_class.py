"""Columns of a table, declared by a class: dataclass, msgspec Struct, pydantic model, TypedDict or named tuple.

Owns the mapping from Python's types to column types; its public API is `Table.from_model`. Values are stored as typed
rows are read and written: a bool as 0 or 1, a date or time as ISO 8601 text, and a nested value as JSON text. pydantic
is never imported: its models describe themselves.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, cast
from uuid import UUID

import msgspec

from sync.errors import SchemaError
from sync.schema.columns import Column, ColumnType

# The first that a type is, or inherits from, applies: bool is an int, and an Enum may be a str.
_COLUMN_TYPES: tuple[tuple[type, ColumnType], ...] = (
    (str, "text"),
    (int, "integer"),
    (float, "real"),
    (datetime, "text"),
    (date, "text"),
    (time, "text"),
    (timedelta, "text"),
    (UUID, "text"),
    (Decimal, "text"),
)
_JSON_TYPES = (dict, list, tuple, set, frozenset, Mapping, Sequence, AbstractSet, msgspec.Struct)
_UNIONS = (typing.Union, types.UnionType)


def columns_of(model: type) -> tuple[Column, ...]:
    """The columns that a class declares with its fields, in order and without `id`.

    A field with a different external name (pydantic's alias, msgspec's rename) is a column of that name.

    Raises:
        SchemaError: the class has no fields, its `id` is missing or neither `str` nor `UUID`, or a field is of a type
            that no column can store; the message names class and field.
    """
    columns: list[Column] = []
    has_id = False
    for name, hint in _fields(model):
        where = f"{model.__name__}.{name}"
        if name == "id":
            _check_id(hint, where)
            has_id = True
        else:
            columns.append(Column(name, _column_type(hint, where)))
    if not has_id:
        raise SchemaError(f"{model.__name__} has no field 'id'; declare `id: str`, as every row has one.")
    return tuple(columns)


def _fields(model: Any) -> Iterator[tuple[str, Any]]:
    """The name of each column and the type of its field, resolved."""
    name: str = getattr(model, "__name__", repr(model))
    try:
        if _is_struct(model):
            yield from ((field.encode_name, field.type) for field in msgspec.structs.fields(model))
        elif isinstance(getattr(model, "__pydantic_fields__", None), dict):
            for attribute, field in model.__pydantic_fields__.items():
                if field.init is not False and not field.init_var:
                    yield _pydantic_name(f"{name}.{attribute}", attribute, field), field.annotation
        elif dataclasses.is_dataclass(model):
            hints = typing.get_type_hints(model, include_extras=True)
            yield from ((field.name, hints[field.name]) for field in dataclasses.fields(model) if field.init)
        elif typing.is_typeddict(model) or hasattr(model, "_field_defaults"):
            yield from typing.get_type_hints(model, include_extras=True).items()
        else:
            raise SchemaError(
                f"{name} cannot declare a table: it is not a dataclass, msgspec Struct, pydantic model, TypedDict or"
                " named tuple."
            )
    except NameError as error:
        raise SchemaError(f"The type of a field of {name} cannot be resolved: {error}.") from error


def _is_struct(model: Any) -> bool:
    return isinstance(model, type) and issubclass(model, msgspec.Struct)


def _pydantic_name(where: str, name: str, field: Any) -> str:
    """A model reads a field by its validation alias and writes it by its serialization alias: they must be equal."""
    read: Any = name if field.validation_alias is None else field.validation_alias
    written: Any = name if field.serialization_alias is None else field.serialization_alias
    if read != written:
        raise SchemaError(
            f"{where} is read as {read!r} and written as {written!r}; a column has one name. Give the field an `alias`."
        )
    return str(written)


def _check_id(hint: Any, where: str) -> None:
    kind = _plain(hint)
    if not (isinstance(kind, type) and issubclass(kind, (str, UUID)) and not issubclass(kind, Enum)):
        raise SchemaError(f"{where} is of type {_type_name(hint)}; an id is a `str` or a `UUID` and never None.")


def _plain(hint: Any) -> Any:
    """A type without anything that only annotates it, renames it, or marks a key as optional."""
    while True:
        origin = typing.get_origin(hint)
        if origin in {typing.Annotated, typing.Required, typing.NotRequired, typing.Final}:
            hint = typing.get_args(hint)[0]
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        else:
            return hint


def _column_type(hint: Any, where: str) -> ColumnType:
    kind = _plain(hint)
    origin: Any = typing.get_origin(kind)
    if origin in _UNIONS:
        members = [member for member in typing.get_args(kind) if _plain(member) is not type(None)]
        return _common({_column_type(member, where) for member in members}, kind, where)
    if origin is typing.Literal:
        return _type_of_values(typing.get_args(kind), kind, where)
    kind = origin or kind
    if isinstance(kind, type):
        if issubclass(kind, Enum):
            return _type_of_values((member.value for member in kind), kind, where)
        for known, column_type in _COLUMN_TYPES:
            if issubclass(kind, known):
                return column_type
        if _is_json(cast("type[Any]", kind)):
            return "text"
    raise SchemaError(
        f"{where} is of type {_type_name(hint)}, which no column can store. Use text, numbers, dates and times, UUID,"
        " Decimal, enums, or lists, dicts and models of these."
    )


def _is_json(kind: Any) -> bool:
    if issubclass(kind, (bytes, bytearray, memoryview)):
        return False
    return (
        issubclass(kind, _JSON_TYPES)
        or dataclasses.is_dataclass(kind)
        or typing.is_typeddict(kind)
        or hasattr(kind, "__pydantic_fields__")
    )


def _type_of_values(values: Iterable[object], hint: Any, where: str) -> ColumnType:
    found: set[ColumnType] = {_column_type(type(value), where) for value in values if value is not None}
    return _common(found, hint, where)


def _common(found: set[ColumnType], hint: Any, where: str) -> ColumnType:
    """A column casts all its values to one type."""
    if found == {"integer", "real"}:
        return "real"
    if len(found) == 1:
        return found.pop()
    what = "has no values" if not found else f"would need columns of the types {' and '.join(sorted(found))}"
    raise SchemaError(f"{where} is of type {_type_name(hint)}, which {what}; a column has one type.")


def _type_name(hint: Any) -> str:
    return hint.__qualname__ if isinstance(hint, type) and not typing.get_origin(hint) else str(hint)
