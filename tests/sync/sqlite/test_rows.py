"""Rows as they come, and typed rows: what each kind of column becomes, and what is said of data that does not fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from sync import NoRowError, PowerSyncDatabase, RowTypeError
from tests.sync.rig import rows


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Place:
    city: str
    floors: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class AsDataclass:
    id: str
    done: bool
    at: datetime
    day: date | None
    tags: list[str]
    place: Place | None
    colour: Colour
    price: float
    kind: Literal["a", "b"]
    note: str = "none"
    length: int = field(init=False, default=0)


class AsStruct(msgspec.Struct, frozen=True):
    id: str
    done: bool
    at: datetime
    day: date | None
    tags: list[str]
    place: Place | None
    colour: Colour
    price: float
    kind: Literal["a", "b"]
    note: str = "none"


class AsModel(pydantic.BaseModel):
    id: str
    done: bool
    at: datetime
    day: date | None
    tags: list[str]
    place: Place | None
    colour: Colour
    price: float
    kind: Literal["a", "b"]
    note: str = "none"

    @pydantic.computed_field
    @property
    def length(self) -> int:
        return len(self.tags)


@pydantic.dataclasses.dataclass(frozen=True)
class AsModelDataclass:
    id: str
    done: bool
    at: datetime
    day: date | None
    tags: list[str]
    place: Place | None
    colour: Colour
    price: float
    kind: Literal["a", "b"]
    note: str = "none"
    length: int = pydantic.Field(init=False, default=0)


class AsTypedDict(TypedDict):
    id: str
    done: bool
    at: datetime
    day: date | None
    tags: list[str]
    place: Place | None
    colour: Colour
    price: float
    kind: Literal["a", "b"]
    note: NotRequired[str]


class AsNamedTuple(NamedTuple):
    id: str
    done: bool
    at: datetime
    day: date | None
    tags: list[str]
    place: Place | None
    colour: Colour
    price: float
    kind: Literal["a", "b"]
    note: str = "none"


SELECT = """
    SELECT 'i' AS id, 1 AS done, '2026-02-03T04:05:06.789Z' AS at, '2026-02-03' AS day, '["x","y"]' AS tags,
    '{"city":"Ghent","floors":[1,2]}' AS place, 'red' AS colour, 3 AS price, 'b' AS kind, 'left out' AS other
"""
VALUES: dict[str, Any] = {
    "id": "i",
    "done": True,
    "at": datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=UTC),
    "day": date(2026, 2, 3),
    "tags": ["x", "y"],
    "place": Place("Ghent", [1, 2]),
    "colour": Colour.RED,
    "price": 3.0,
    "kind": "b",
}
TYPES = [AsDataclass, AsStruct, AsModel, AsModelDataclass, AsTypedDict, AsNamedTuple]


@pytest.mark.parametrize("row_type", TYPES)
async def test_each_kind_of_type_gets_its_values(database: PowerSyncDatabase, row_type: type[Any]) -> None:
    assert await database.get(SELECT, row_type=row_type) == row_type(**VALUES)
    nothing = f"SELECT * FROM ({SELECT}) WHERE id = 'none'"
    assert await database.get_optional(nothing, row_type=row_type) is None
    assert await database.get_all(nothing, row_type=row_type) == []
    with pytest.raises(NoRowError):
        await database.get(nothing, row_type=row_type)


async def test_null_is_none_where_that_is_allowed(database: PowerSyncDatabase) -> None:
    sql = SELECT.replace("'2026-02-03' AS", "NULL AS").replace("""'{"city":"Ghent","floors":[1,2]}'""", "NULL")
    found = await database.get_all(sql, row_type=AsDataclass)
    assert (found[0].day, found[0].place) == (None, None)


@pytest.mark.parametrize("row_type", TYPES)
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("done", "2"),
        ("done", "'x'"),
        ("id", "NULL"),
        ("at", "'yesterday'"),
        ("day", "'2026-13-01'"),
        ("tags", "'[1'"),
        ("tags", "NULL"),
        ("colour", "'blue'"),
        ("kind", "'c'"),
        ("price", "'much'"),
    ],
)
async def test_data_that_does_not_fit_names_column_and_type(
    database: PowerSyncDatabase, row_type: type[Any], column: str, value: str
) -> None:
    columns = ", ".join(f"{value} AS {column}" if name == column else name for name in VALUES)
    with pytest.raises(RowTypeError, match=f"column '{column}.*{row_type.__name__}") as told:
        await database.get_all(f"SELECT {columns} FROM ({SELECT})", row_type=row_type)
    assert (told.value.column, told.value.row_type) == (column, row_type)


@pytest.mark.parametrize("row_type", TYPES)
async def test_a_column_that_is_missing_is_named(database: PowerSyncDatabase, row_type: type[Any]) -> None:
    with pytest.raises(RowTypeError, match="'id'"):
        await database.get_all(SELECT.replace("'i' AS id,", ""), row_type=row_type)


async def test_a_type_that_refuses_the_row_as_a_whole(database: PowerSyncDatabase) -> None:
    @dataclass
    class Positive:
        number: int

        def __post_init__(self) -> None:
            if self.number <= 0:
                raise ValueError("not positive")

    with pytest.raises(RowTypeError, match="A row does not match Positive: not positive"):
        await database.get("SELECT -1 AS number", row_type=Positive)


async def test_other_types_are_refused_before_anything_runs(database: PowerSyncDatabase) -> None:
    with pytest.raises(TypeError, match="are not supported"):
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')", row_type=int)
    assert await database.get_all("SELECT * FROM lists") == []


async def test_plain_rows_by_index_by_name_and_as_mappings(database: PowerSyncDatabase) -> None:
    row = await database.get("SELECT 1 AS one, 'two' AS two")
    assert (row[0], row[-1], row["one"], row["TWO"]) == (1, "two", 1, "two")
    assert row.keys() == ["one", "two"]
    assert dict(row) == {"one": 1, "two": "two"}
    assert dict(**row) == {"one": 1, "two": "two"}
    assert tuple(row) == (1, "two")
    assert await database.get("SELECT 1 AS one", row_type=dict) == {"one": 1}
    with pytest.raises(IndexError):
        row["three"]


async def test_parameters_by_name(database: PowerSyncDatabase) -> None:
    row = await database.get("SELECT :a AS a, :b AS b", {"a": 1, "b": "x"})
    assert tuple(row) == (1, "x")


async def test_typed_rows_in_transactions_watches_and_streams(database: PowerSyncDatabase) -> None:
    @dataclass
    class List:
        id: str
        name: str

    inserted = await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x') RETURNING id, name", row_type=List)
    expected = [List("a", "x")]
    assert inserted == expected
    sql = "SELECT id, name FROM lists"
    async with database.write_transaction() as transaction:
        assert await transaction.get_all(sql, row_type=List) == expected
    async with database.read_transaction() as reading:
        assert [await reading.get(sql, row_type=List)] == expected
    assert [row async for row in database.iterate(sql, row_type=List)] == expected
    assert await anext(database.watch(sql, row_type=List)) == expected


async def test_a_row_that_does_not_fit_undoes_its_write(database: PowerSyncDatabase) -> None:
    @dataclass
    class Wrong:
        id: int

    with pytest.raises(RowTypeError):
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x') RETURNING id", row_type=Wrong)
    assert await database.get_all("SELECT * FROM lists") == []


async def queue(database: PowerSyncDatabase) -> list[tuple[str, str, dict[str, Any] | None]]:
    return [(e.op, e.id, e.data) async for t in database.crud_transactions() for e in t.crud]


async def test_upsert_puts_a_new_row_and_patches_what_changed_in_an_old_one(database: PowerSyncDatabase) -> None:
    await database.upsert("lists", {"id": "a", "name": "x", "owner_id": "o"})
    await database.upsert("lists", {"id": "a", "name": "y"})
    await database.upsert("lists", {"id": "a", "name": "y", "owner_id": "o"})
    await database.upsert("lists", {"id": "a"})
    assert await rows(database, "SELECT id, name, owner_id FROM lists") == [["a", "y", "o"]]
    assert await queue(database) == [("PUT", "a", {"name": "x", "owner_id": "o"}), ("PATCH", "a", {"name": "y"})]
    with pytest.raises(ValueError, match="needs the row's id"):
        await database.upsert("lists", {"name": "x"})
    async with database.write_transaction() as transaction:
        await transaction.upsert("lists", {"id": "b", "name": "z"})
    assert (await queue(database))[-1] == ("PUT", "b", {"name": "z"})


@pytest.mark.parametrize("row_type", TYPES)
async def test_what_a_type_stores_it_reads_again(database: PowerSyncDatabase, row_type: type[Any]) -> None:
    names = ["id", *VALUES.keys() - {"id"}, "note"]
    await database.execute(f"CREATE TABLE stored({', '.join(names)})")
    row = row_type(**VALUES, note="n")
    await database.upsert("stored", row)
    assert await database.get("SELECT * FROM stored", row_type=row_type) == row
    stored = await database.get("SELECT done, day, tags, colour FROM stored")
    assert tuple(stored) == (1, "2026-02-03", '["x","y"]', "red")


async def test_what_is_no_row_cannot_be_stored(database: PowerSyncDatabase) -> None:
    with pytest.raises(TypeError, match="A row must be a mapping"):
        await database.upsert("lists", 5)
    with pytest.raises(TypeError):
        await database.upsert("lists", {"id": "a", "name": object()})
