"""The SQL of a sync config: parses the few forms of queries that this backend supports, and nothing else.

Turns text into values of `streams`. Knows only the tables passed to it, and must not know YAML. Everything else is
rejected with an error message that lists the supported alternatives; the text of a query never reaches a database.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from app.backend.rules.streams import ListParameter, Lookup, RowQuery, Scalar, StreamParameter, UserId, Value

Tables = Mapping[str, tuple[str, ...]]

_TOKEN = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\"(?P<quoted>[^\"]+)\"|'(?P<text>(?:[^']|'')*)'"
    r"|(?P<number>-?[0-9]+)|(?P<sign>==|[=*().,;])|(?P<other>\S))"
)
_USER_IDS = {"auth.user_id()", "request.user_id()", "token_parameters.user_id"}
_SUPPORTED = (
    "supported values are auth.user_id(), subscription.parameter('name'), a string, an integer, true and false after =,"
    " and subscription.parameter('name') and (SELECT column FROM table WHERE …) after IN"
)


class QueryError(Exception):
    """A query is invalid or not supported; the message is one sentence, `position` the offset in the query."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class BucketParameter(NamedTuple):
    """`bucket.name` in a data query of a bucket definition."""

    name: str


Operand = Scalar | ListParameter | Lookup | BucketParameter


@dataclass(frozen=True)
class DataQuery:
    """The rows to sync, with the operands of each bucket parameter in the order of the query's columns."""

    rows: RowQuery
    operands: tuple[tuple[Operand, ...], ...]


@dataclass(frozen=True)
class ParameterQuery:
    """The parameters of the buckets of a bucket definition, by name."""

    operands: dict[str, Scalar | Lookup]


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def _unknown_column(table: str, column: _Token, known: Iterable[str]) -> QueryError:
    return QueryError(
        f"Unknown column {column.text!r} in {table}; expected one of: {', '.join(known)}.", column.position
    )


def data_query(sql: str, tables: Tables) -> DataQuery:
    """Parse `SELECT * FROM table [WHERE …]`. Raises QueryError for anything else."""
    reader = _Reader(sql, tables)
    reader.keyword("SELECT")
    start = reader.next()
    if start.kind == "name" and reader.accept_sign("."):
        star = reader.next()
    else:
        star, start = start, None
    if star.text != "*":
        raise QueryError("Only whole rows can be synced: use SELECT * instead of a list of columns.", star.position)
    reader.keyword("FROM")
    table = reader.table()
    if start is not None and start.text != table:
        raise QueryError(f"{start.text!r} is not the table after FROM.", start.position)
    columns, constants = reader.conditions(table)
    reader.end()
    rows = RowQuery(table, tuple(columns), tuple(constants))
    return DataQuery(rows, tuple(tuple(operands) for operands in columns.values()))


def parameter_query(sql: str, tables: Tables) -> ParameterQuery:
    """Parse `SELECT request.user_id() AS name` or `SELECT column AS name FROM table [WHERE …]`.

    Raises QueryError for anything else.
    """
    reader = _Reader(sql, tables)
    reader.keyword("SELECT")
    found: dict[str, Scalar | Lookup] = {}
    if reader.is_column():
        column = reader.next()
        name = reader.next().text if reader.accept_keyword("AS") else column.text
        reader.keyword("FROM")
        found[name] = reader.lookup_of(column)
        reader.end()
        return ParameterQuery(found)
    while True:
        token = reader.peek()
        operand = reader.operand()
        if not isinstance(operand, UserId):
            raise QueryError("A parameter must be request.user_id() or a column of a table.", token.position)
        reader.keyword("AS")
        found[reader.next().text] = operand
        if not reader.accept_sign(","):
            break
    reader.end()
    return ParameterQuery(found)


class _Reader:
    """Reads the tokens of one query from left to right."""

    def __init__(self, sql: str, tables: Tables) -> None:
        self._tables = tables
        self._tokens: list[_Token] = []
        self._index = 0
        for match in _TOKEN.finditer(sql):
            kind = match.lastgroup or ""
            text = match[kind].replace("''", "'") if kind == "text" else match[kind]
            self._tokens.append(_Token(kind, text, match.start(kind)))
        self._tokens.append(_Token("end", "the end of the query", len(sql)))

    def peek(self, ahead: int = 0) -> _Token:
        return self._tokens[min(self._index + ahead, len(self._tokens) - 1)]

    def next(self) -> _Token:
        token = self.peek()
        self._index += 1
        return token

    def accept_keyword(self, word: str) -> bool:
        token = self.peek()
        if token.kind == "name" and token.text.upper() == word:
            self._index += 1
            return True
        return False

    def accept_sign(self, sign: str) -> bool:
        token = self.peek()
        if token.kind == "sign" and token.text == sign:
            self._index += 1
            return True
        return False

    def keyword(self, word: str) -> None:
        if not self.accept_keyword(word):
            token = self.peek()
            raise QueryError(f"Expected {word}, not {token.text!r}.", token.position)

    def sign(self, sign: str) -> None:
        if not self.accept_sign(sign):
            token = self.peek()
            raise QueryError(f"Expected {sign!r}, not {token.text!r}.", token.position)

    def end(self) -> None:
        self.accept_sign(";")
        token = self.peek()
        if token.kind != "end":
            raise QueryError(
                f"Unexpected {token.text!r}; conditions must be joined by AND, and nothing may follow them.",
                token.position,
            )

    def table(self) -> str:
        token = self.next()
        if token.kind not in {"name", "quoted"} or token.text not in self._tables:
            raise QueryError(
                f"Unknown table {token.text!r}; expected one of: {', '.join(self._tables)}.", token.position
            )
        return token.text

    def is_column(self) -> bool:
        """Whether the next token is a plain name, not a function call or a qualified name."""
        after = self.peek(1)
        return self.peek().kind in {"name", "quoted"} and not (after.kind == "sign" and after.text in {".", "("})

    def column(self, table: str) -> str:
        token = self.next()
        if token.kind in {"name", "quoted"} and token.text == table and self.accept_sign("."):
            token = self.next()
        columns = self._tables[table]
        if token.kind not in {"name", "quoted"} or token.text not in columns:
            raise _unknown_column(table, token, columns)
        return token.text

    def conditions(self, table: str) -> tuple[dict[str, list[Operand]], list[tuple[str, Value]]]:
        """The WHERE clause: the operands that columns are compared with, and the columns compared with constants."""
        columns: dict[str, list[Operand]] = {}
        constants: list[tuple[str, Value]] = []
        if not self.accept_keyword("WHERE"):
            return columns, constants
        while True:
            self._condition(table, columns, constants)
            if not self.accept_keyword("AND"):
                return columns, constants

    def _condition(self, table: str, columns: dict[str, list[Operand]], constants: list[tuple[str, Value]]) -> None:
        if not (self.is_column() or (self.peek().text == table and self.peek(1).text == ".")):
            # The operands may be swapped: value = column.
            operand = self.operand()
            self._equals()
            column = self.column(table)
        else:
            column = self.column(table)
            if self.accept_keyword("IN"):
                columns.setdefault(column, []).append(self._membership())
                return
            self._equals()
            operand = self.operand()
        if isinstance(operand, str | int):
            constants.append((column, operand))
        else:
            columns.setdefault(column, []).append(operand)

    def _equals(self) -> None:
        if not (self.accept_sign("=") or self.accept_sign("==")):
            token = self.peek()
            raise QueryError(f"Unexpected {token.text!r}; only = and IN are supported.", token.position)

    def _membership(self) -> ListParameter | Lookup:
        if self.accept_sign("("):
            self.keyword("SELECT")
            column = self.next()
            self.keyword("FROM")
            lookup = self.lookup_of(column)
            self.sign(")")
            return lookup
        token = self.peek()
        operand = self.operand()
        if not isinstance(operand, StreamParameter):
            raise QueryError(f"Unsupported value after IN; {_SUPPORTED}.", token.position)
        return ListParameter(operand.name)

    def lookup_of(self, column: _Token) -> Lookup:
        """Parse the rest of `SELECT column FROM`."""
        table = self.table()
        if column.text not in self._tables[table]:
            raise _unknown_column(table, column, self._tables[table])
        at = self.peek().position
        columns, constants = self.conditions(table)
        conditions: list[tuple[str, Scalar]] = []
        for name, operands in columns.items():
            for operand in operands:
                if not isinstance(operand, UserId | StreamParameter):
                    raise QueryError("Only = is supported in a subquery.", at)
                conditions.append((name, operand))
        return Lookup(table, column.text, tuple(conditions), tuple(constants))

    def operand(self) -> UserId | StreamParameter | BucketParameter | str | int:
        """Parse a value of the request or a constant."""
        token = self.next()
        if token.kind == "text":
            return token.text
        if token.kind == "number":
            return int(token.text)
        if token.kind == "name" and token.text.upper() in {"TRUE", "FALSE"}:
            return int(token.text.upper() == "TRUE")
        if token.kind == "name" and self.accept_sign("."):
            name = f"{token.text}.{self.next().text}"
            if token.text == "bucket":
                return BucketParameter(name.partition(".")[2])
            if self.accept_sign("("):
                name += "("
                argument = self.next() if self.peek().kind == "text" else None
                self.sign(")")
                if name == "subscription.parameter(" and argument is not None:
                    return StreamParameter(argument.text)
                name += ")" if argument is None else "…)"
            if name in _USER_IDS:
                return UserId()
            raise QueryError(f"{name} is not supported; {_SUPPORTED}.", token.position)
        raise QueryError(f"Unexpected {token.text!r}; {_SUPPORTED}.", token.position)
