"""Tables declared by classes."""

from __future__ import annotations

import ast
import enum
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
    Union,
    get_type_hints,
)
from uuid import UUID

import msgspec
import pydantic.dataclasses
import pytest

from sync import Column, Index, PowerSyncDatabase, Schema, SchemaError, Table
from sync.schema.tables import TableOptions

T = TypeVar("T")
TodoId = NewType("TodoId", str)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Share(enum.Enum):
    HALF = 0.5
    ALL = 1


@dataclass
class Point:
    x: int


class Struct(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    x: int


class Keys(TypedDict):
    x: int


def columns(model: type) -> dict[str, str]:
    return {column.name: column.type for column in Table.from_model(model, name="t").columns}


TYPES: list[tuple[Any, str]] = [
    (str, "text"),
    (int, "integer"),
    (bool, "integer"),
    (float, "real"),
    (datetime, "text"),
    (date, "text"),
    (time, "text"),
    (timedelta, "text"),
    (UUID, "text"),
    (Decimal, "text"),
    (Color, "text"),
    (Level, "integer"),
    (Share, "real"),
    (Literal["a", "b"], "text"),
    (Literal[1, None], "integer"),  # noqa: PYI061 - it is another object at run time
    (Literal[True], "integer"),
    (str | None, "text"),
    (Optional[int], "integer"),  # noqa: UP045 - the older spelling is another object at run time
    (Union[bool, None], "integer"),  # noqa: UP007
    (int | float, "real"),
    (str | datetime | None, "text"),
    (Annotated[int, "even"], "integer"),
    (Annotated[int | None, "even"], "integer"),
    (TodoId, "text"),
    (list[int], "text"),
    (list, "text"),
    (dict[str, int] | None, "text"),
    (tuple[int, ...], "text"),
    (set[str], "text"),
    (frozenset[str], "text"),
    (Sequence[int], "text"),
    (Mapping[str, int], "text"),
    (Point, "text"),
    (Struct, "text"),
    (Model, "text"),
    (Keys, "text"),
]


@pytest.mark.parametrize(("hint", "column_type"), TYPES, ids=str)
def test_each_type_has_its_column_type_in_every_kind_of_class(hint: Any, column_type: str) -> None:
    @dataclass
    class ADataclass:
        id: str
        value: Any

    ADataclass.__annotations__["value"] = hint
    kinds = [
        ADataclass,
        msgspec.defstruct("AStruct", [("id", str), ("value", hint)]),
        TypedDict("ADict", {"id": str, "value": hint}),
        NamedTuple("ATuple", [("id", str), ("value", hint)]),
    ]
    if hint not in (Struct, Keys):  # pydantic takes neither
        kinds.append(pydantic.create_model("AModel", id=(str, ...), value=(hint, ...)))
    for kind in kinds:
        assert columns(kind) == {"value": column_type}, kind


@pytest.mark.parametrize(
    "hint",
    [bytes, bytearray, Any, object, complex, Path, None, str | int, bool | str, Literal["a", 1], T, type, str | bytes],
    ids=str,
)
def test_a_type_that_no_column_can_hold_is_refused_by_class_and_field(hint: Any) -> None:
    @dataclass
    class Bad:
        id: str
        value: Any

    Bad.__annotations__["value"] = hint
    with pytest.raises(SchemaError, match=r"^Bad\.value is of type "):
        Table.from_model(Bad, name="t")


def test_an_enum_without_one_column_type_is_refused() -> None:
    class Mixed(enum.Enum):
        ONE = 1
        TWO = "2"

    class Empty(enum.Enum):
        pass

    for kind, why in ((Mixed, "integer and text"), (Empty, "no values")):
        model = msgspec.defstruct("Bad", [("id", str), ("value", kind)])
        with pytest.raises(SchemaError, match=rf"^Bad\.value is of type .*{kind.__name__}, which .*{why}"):
            Table.from_model(model, name="t")


@pytest.mark.parametrize("hint", [str, UUID, TodoId, Annotated[str, "uuid"]], ids=str)
def test_the_id_is_text_and_no_column(hint: Any) -> None:
    assert columns(msgspec.defstruct("A", [("id", hint), ("name", str)])) == {"name": "text"}


@pytest.mark.parametrize("hint", [int, str | None, UUID | str, bytes, Any, Color], ids=str)
def test_another_id_is_refused(hint: Any) -> None:
    with pytest.raises(SchemaError, match=r"^A\.id is of type "):
        Table.from_model(msgspec.defstruct("A", [("id", hint), ("name", str)]), name="t")


def test_a_class_without_an_id_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"^Point has no field 'id'"):
        Table.from_model(Point, name="t")


class Plain:
    id: str


@pytest.mark.parametrize("model", [Plain, str, tuple, int])
def test_a_class_without_fields_is_refused(model: type) -> None:
    with pytest.raises(SchemaError, match=f"^{model.__name__} cannot declare a table"):
        Table.from_model(model, name="t")


def test_what_no_row_can_give_is_no_column() -> None:
    @dataclass
    class Todo:
        LIMIT: ClassVar[int] = 3
        id: str
        seed: InitVar[bytes]
        description: str = "none"
        tags: list[str] = field(default_factory=list)
        shown: bytes = field(init=False, default=b"")

        @property
        def is_long(self) -> bool:
            return len(self.description) > self.LIMIT

    class TodoModel(pydantic.BaseModel):
        limit: ClassVar[int] = 3
        id: str = pydantic.Field(default_factory=str)
        description: str = "none"
        tags: list[str] = []
        _cache: bytes = pydantic.PrivateAttr(default=b"")

        @pydantic.computed_field
        @property
        def is_long(self) -> bool:
            return False

    @pydantic.dataclasses.dataclass
    class TodoModelDataclass:
        id: str
        seed: InitVar[bytes]
        description: str = "none"
        tags: list[str] = pydantic.Field(default_factory=list)
        shown: bytes = pydantic.Field(init=False, default=b"")

    found = [columns(model) for model in (Todo, TodoModel, TodoModelDataclass)]
    assert found == [{"description": "text", "tags": "text"}] * 3


def test_inherited_fields_come_first() -> None:
    @dataclass
    class Base:
        id: str
        created_at: datetime

    @dataclass
    class Todo(Base):
        done: bool

    class Struct(msgspec.Struct):
        id: str
        created_at: datetime

    class TodoStruct(Struct):
        done: bool

    class Model(pydantic.BaseModel):
        id: str
        created_at: datetime

    class TodoModel(Model):
        done: bool

    for model in (Todo, TodoStruct, TodoModel):
        assert list(columns(model).items()) == [("created_at", "text"), ("done", "integer")]


def test_a_field_of_a_generic_class_that_is_not_bound_is_refused() -> None:
    @dataclass
    class Box(Generic[T]):
        id: str
        content: T

    with pytest.raises(SchemaError, match=r"^Box\.content is of type ~T"):
        Table.from_model(Box, name="t")


def test_columns_have_the_names_of_aliases() -> None:
    class Todo(pydantic.BaseModel):
        key: str = pydantic.Field(alias="id")
        list_id: str = pydantic.Field(alias="listId")
        done: Annotated[bool, pydantic.Field(alias="is_done")] = False

    class Camel(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(alias_generator=lambda name: name.replace("_id", "Id"))
        id: str
        list_id: str

    @pydantic.dataclasses.dataclass
    class Aliased:
        id: str
        list_id: str = pydantic.Field(alias="listId")

    class Renamed(msgspec.Struct, rename="camel"):
        id: str
        list_id: str

    assert columns(Todo) == {"listId": "text", "is_done": "integer"}
    assert columns(Camel) == columns(Aliased) == columns(Renamed) == {"listId": "text"}


@pytest.mark.parametrize(
    "options",
    [
        {"validation_alias": "a"},
        {"serialization_alias": "a"},
        {"validation_alias": pydantic.AliasChoices("a", "b"), "serialization_alias": "a"},
        {"validation_alias": pydantic.AliasPath("a", 0), "serialization_alias": "a"},
    ],
)
def test_a_field_that_is_read_and_written_by_different_names_is_refused(options: dict[str, Any]) -> None:
    model = pydantic.create_model("Todo", id=(str, ...), name=(str, pydantic.Field(**options)))
    with pytest.raises(SchemaError, match=r"^Todo\.name is read as .* and written as "):
        Table.from_model(model, name="t")


def test_a_key_that_may_be_absent_is_a_column() -> None:
    class Todo(TypedDict):
        id: str
        note: NotRequired[str]

    assert columns(Todo) == {"note": "text"}


def test_a_type_that_cannot_be_resolved_is_refused() -> None:
    @dataclass
    class Todo:
        id: str
        other: Missing  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(SchemaError, match="of Todo cannot be resolved: name 'Missing'"):
        Table.from_model(Todo, name="t")


def test_options_and_rules_are_those_of_a_table() -> None:
    @dataclass
    class Todo:
        id: str
        list_id: str

    index = Index("list", ["list_id"])
    table = Table.from_model(Todo, name="todos", indexes=[index], local_only=True)
    assert table == Table("todos", [Column.text("list_id")], indexes=[index], local_only=True)
    with pytest.raises(SchemaError, match="unknown column 'lists'"):
        Table.from_model(Todo, name="todos", indexes=[Index("list", ["lists"])])
    with pytest.raises(SchemaError, match="'ps_todos'"):
        Table.from_model(Todo, name="ps_todos")


def test_every_option_of_a_table_can_be_given() -> None:
    assert set(get_type_hints(TableOptions)) == set(get_type_hints(Table.__init__)) - {"name", "columns", "return"}


async def test_values_keep_their_form_in_the_file(tmp_path: Path) -> None:
    """A row as its type's own encoder writes it can be read back from the view, column by column."""

    class Todo(msgspec.Struct):
        id: str
        done: bool
        due: datetime
        price: Decimal
        key: UUID
        share: float
        count: int
        color: Color
        tags: list[str]
        place: Struct | None

    todo = Todo(
        "1", True, datetime(2026, 1, 2, tzinfo=UTC), Decimal("1.10"), UUID(int=7), 0.5, 2**62, Color.RED, ["a"], None
    )
    plain = msgspec.to_builtins(todo)
    values = {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in plain.items()}
    async with PowerSyncDatabase(tmp_path / "t.db", Schema([Table.from_model(Todo, name="todos")])) as database:
        places = ", ".join("?" * len(values))
        await database.execute(f"INSERT INTO todos({', '.join(values)}) VALUES ({places})", list(values.values()))
        stored = dict(await database.get("SELECT * FROM todos"))
    stored["tags"] = json.loads(stored["tags"])
    assert (stored["done"], stored["count"], stored["share"]) == (1, 2**62, 0.5)
    assert msgspec.convert(stored, Todo, strict=False) == todo


def test_the_example_of_the_document_runs(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    (example,) = re.findall(r"```python\n(.*?)```", (root / "docs" / "typed-schema.md").read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, b"")
    shown, declared = done.stdout.decode().splitlines()
    assert shown == "[('Milk', 1)]"
    assert ast.literal_eval(declared) == [
        ("list_id", "text"),
        ("description", "text"),
        ("completed", "integer"),
        ("completed_at", "text"),
        ("urgency", "text"),
        ("tags", "text"),
    ]


def test_pydantic_is_not_imported_by_the_engine() -> None:
    """Not even for its models: who has one has imported it."""
    program = (
        "import sys, dataclasses, sync\n"
        "model = dataclasses.make_dataclass('Todo', [('id', str), ('done', bool)])\n"
        "assert sync.Table.from_model(model, name='todos').columns == (sync.Column.integer('done'),)\n"
        "assert 'pydantic' not in sys.modules"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
