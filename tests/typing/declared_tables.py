# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Tables declared by classes, as a type checker sees them. Each `ignore` is an error that must be there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict, assert_type

import msgspec
import pydantic

from sync import Index, Schema, Table


@dataclass
class Todo:
    id: str
    description: str
    completed: bool = False
    completed_at: datetime | None = None


class TodoStruct(msgspec.Struct):
    id: str
    description: str


class TodoModel(pydantic.BaseModel):
    id: str
    description: str


class TodoKeys(TypedDict):
    id: str
    description: str


assert_type(Table.from_model(Todo, name="todos"), Table)
assert_type(Table.from_model(TodoStruct, name="todos", local_only=True), Table)
assert_type(Table.from_model(TodoModel, name="todos", indexes=[Index("d", ["description"])]), Table)
assert_type(Table.from_model(TodoKeys, name="todos"), Table)
Schema([Table.from_model(Todo, name="todos")])

Table.from_model(Todo)  # pyright: ignore[reportCallIssue]
Table.from_model(Todo, "todos")  # pyright: ignore[reportCallIssue]
Table.from_model(Todo("1", "Milk"), name="todos")  # pyright: ignore[reportArgumentType]
Table.from_model(Todo, name="todos", local_only="yes")  # pyright: ignore[reportArgumentType]
Table.from_model(Todo, name="todos", indexes=["description"])  # pyright: ignore[reportArgumentType]
Table.from_model(Todo, name="todos", unknown=True)  # pyright: ignore[reportCallIssue]
