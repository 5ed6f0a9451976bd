"""Lists and to-dos as text: todo.txt, Markdown check lists, JSON, and CSV to look at.

Owns how they are written and read again without loss. Pure functions; must not know where the text is kept, nor where
the lists are.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote

from app.todo_text import read

_WORD_SAFE: Final = "-_.~/@"
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TODO_TXT_PRIORITY: Final = re.compile(r"\(([A-Z])\) ")
_HEADING: Final = re.compile(r"#{1,6} (.*)", re.DOTALL)
_ITEM: Final = re.compile(r"\s*[-*+] \[([ xX])\](?: (.*))?", re.DOTALL)


class TransferError(Exception):
    """A text cannot be read. The message is one sentence that names the line."""


@dataclass(frozen=True, slots=True)
class ExportedTodo:
    """A to-do as it is exported and imported.

    Attributes:
        description: its text.
        completed: whether it is done.
        created_at: ISO 8601, or None where the format does not say it.
        completed_at: ISO 8601, or None.
    """

    description: str
    completed: bool = False
    created_at: str | None = None
    completed_at: str | None = None


@dataclass(frozen=True, slots=True)
class ExportedList:
    """A list as it is exported and imported.

    Attributes:
        name: its name.
        todos: in their order.
    """

    name: str
    todos: list[ExportedTodo] = field(default_factory=list[ExportedTodo])


# JSON


def summary(lists: Sequence[ExportedList]) -> str:
    """How many to-dos and lists there are, in words."""
    count = sum(len(each.todos) for each in lists)
    todos = "1 to-do" if count == 1 else f"{count:,} to-dos"
    return f"{todos} in {'1 list' if len(lists) == 1 else f'{len(lists):,} lists'}"


def write_json(lists: Sequence[ExportedList]) -> str:
    """Everything, without loss."""
    data = {
        "format": "todo-tui",
        "version": 1,
        "lists": [
            {
                "name": each.name,
                "todos": [
                    {
                        "text": todo.description,
                        "completed": todo.completed,
                        "created_at": todo.created_at,
                        "completed_at": todo.completed_at,
                    }
                    for todo in each.todos
                ],
            }
            for each in lists
        ],
    }
    return json.dumps(data, ensure_ascii=False, indent=1) + "\n"


def read_json(text: str) -> list[ExportedList]:
    """What `write_json` wrote.

    Raises:
        TransferError: it is something else.
    """
    try:
        data: Any = json.loads(text)
        return [_json_list(each) for each in data["lists"]]
    except json.JSONDecodeError as error:
        raise TransferError(f"Line {error.lineno} is not valid JSON: {error.msg}.") from error
    except (TypeError, KeyError, RecursionError, ValueError) as error:
        raise TransferError("This JSON was not written by todo-tui export.") from error


def _json_list(value: Any) -> ExportedList:
    return ExportedList(_text(value["name"]), [_json_todo(each) for each in value["todos"]])


def _json_todo(value: Any) -> ExportedTodo:
    if not isinstance(value["completed"], bool):
        raise TypeError
    stamps = [value.get(key) for key in ("created_at", "completed_at")]
    if not all(stamp is None or isinstance(stamp, str) for stamp in stamps):
        raise TypeError
    return ExportedTodo(_text(value["text"]), value["completed"], *stamps)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


# todo.txt: one to-do a line, with the list and the exact times in words at its end


def write_todo_txt(lists: Sequence[ExportedList]) -> str:
    """Lines as todo.txt programs read them; the first letters of the alphabet are the priorities."""
    return "".join(f"{line}\n" for line in _todo_txt_lines(lists))


def _todo_txt_lines(lists: Sequence[ExportedList]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for each in lists:
        seen[each.name] = number = seen.get(each.name, 0) + 1
        list_word = f"list:{quote(each.name, safe=_WORD_SAFE)}" + (f"#{number}" if number > 1 else "")
        if not each.todos:
            yield list_word
        for todo in each.todos:
            words = ["x"] if todo.completed else []
            priority = read(todo.description).priority
            if priority is not None and not todo.completed:
                words.append(f"({'ABCD'[priority - 1]})")
            words += [stamp[:10] for stamp in (todo.completed_at, todo.created_at) if stamp and _DATE.match(stamp)]
            words.append(_escaped(todo.description))
            words.append(list_word)
            words += [
                f"{key}:{quote(stamp, safe=_WORD_SAFE)}"
                for key, stamp in (("created", todo.created_at), ("completed", todo.completed_at))
                if stamp is not None
            ]
            yield " ".join(words)


def read_todo_txt(text: str) -> list[ExportedList]:
    """Lists of a todo.txt, ours or another program's; to-dos without a list come into one called todo.txt."""
    found: dict[tuple[str, str], ExportedList] = {}
    for line in text.split("\n"):
        if not line.strip():
            continue
        todo, in_list = _todo_txt_line(line.removesuffix("\r"))
        name, _, number = in_list.partition("#")
        target = found.setdefault((name, number), ExportedList(unquote(name)))
        if todo is not None:
            target.todos.append(todo)
    return list(found.values())


def _todo_txt_line(line: str) -> tuple[ExportedTodo | None, str]:
    known: dict[str, str] = {}
    rest = line
    for key in ("completed", "created", "list"):
        before, _, last = rest.rpartition(" ")
        if last.startswith(f"{key}:"):
            known[key] = last.removeprefix(f"{key}:")
            rest = before
    in_list = known.get("list", "todo.txt")
    if not rest and "list" in known and not line.startswith(" "):
        return None, in_list
    completed = rest.startswith("x ")
    rest = rest[2:] if completed else rest
    priority = _TODO_TXT_PRIORITY.match(rest)
    rest = rest[4:] if priority else rest
    dates: list[str] = []
    ours = known.keys() & {"created", "completed"}
    while len(dates) < (len([key for key in ours if _DATE.match(unquote(known[key]))]) if "list" in known else 2):
        head, space, tail = rest.partition(" ")
        if not space or not _DATE.fullmatch(head):
            break
        dates.append(head)
        rest = tail
    description = _unescaped(rest) if "list" in known else rest
    if priority is not None and priority[1] in "ABCD" and read(description).priority is None:
        description += f" p{'ABCD'.index(priority[1]) + 1}"
    if "list" in known:
        created, done = (unquote(known[key]) if key in known else None for key in ("created", "completed"))
    else:
        created, done = _foreign_dates(dates, completed=completed)
    return ExportedTodo(description, completed, created, done), in_list


def _foreign_dates(dates: list[str], *, completed: bool) -> tuple[str | None, str | None]:
    """The dates of another program's line: of a completed one the completion comes first."""
    if not completed:
        return (f"{dates[0]}T00:00:00Z" if dates else None), None
    done = f"{dates[0]}T00:00:00Z" if dates else None
    return (f"{dates[1]}T00:00:00Z" if len(dates) > 1 else None), done


# Markdown: a heading for each list, a check box for each to-do, notes below it


def write_markdown(lists: Sequence[ExportedList]) -> str:
    """Check lists; the times, which Markdown cannot express, are left out."""
    lines: list[str] = []
    for each in lists:
        lines.append(f"# {_escaped(each.name)}")
        for todo in each.todos:
            first, *notes = _with_escaped_returns(todo.description).split("\n")
            lines.append(f"- [{'x' if todo.completed else ' '}] {first}")
            lines += [f"  {note}" for note in notes]
        lines.append("")
    return "\n".join(lines)


def read_markdown(text: str) -> list[ExportedList]:
    """Lists of Markdown, ours or another's: headings and check boxes count, and what is indented below a check box."""
    lists: list[ExportedList] = []
    notes: list[str] | None = None
    for raw in text.split("\n"):
        line = raw.removesuffix("\r")
        heading, item = _HEADING.fullmatch(line), _ITEM.fullmatch(line)
        if heading is not None:
            lists.append(ExportedList(_unescaped(heading[1])))
            notes = None
        elif notes is not None and line.startswith("  "):
            notes.append(line[2:])
            last = lists[-1].todos[-1]
            lists[-1].todos[-1] = ExportedTodo(_unescaped("\n".join(notes)), last.completed)
        elif item is not None:
            if not lists:
                lists.append(ExportedList("Markdown"))
            notes = [item[2] or ""]
            lists[-1].todos.append(ExportedTodo(_unescaped(notes[0]), item[1] in "xX"))
        else:
            notes = None
    return lists


_CSV_COLUMNS: Final = (
    *("list", "title", "completed", "due", "priority", "tags", "repeats"),
    *("notes", "created", "done", "text"),
)


def write_csv(lists: Sequence[ExportedList]) -> str:
    """A table to look at; it is not read again."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(_CSV_COLUMNS)
    for each in lists:
        for todo in each.todos:
            text = read(todo.description)
            writer.writerow(
                [
                    each.name,
                    text.title,
                    "yes" if todo.completed else "no",
                    text.due.word.removeprefix("due:") if text.due else "",
                    text.priority or "",
                    " ".join(text.tags),
                    text.recurrence.word.removeprefix("rec:") if text.recurrence else "",
                    text.notes,
                    todo.created_at or "",
                    todo.completed_at or "",
                    todo.description,
                ]
            )
    return table.getvalue()


def _escaped(text: str) -> str:
    """On one line; a backslash is doubled only where it could be taken for such an escape."""
    return re.sub(r"\\(?=[\\nr])|\\$", r"\\\\", text).replace("\n", r"\n").replace("\r", r"\r")


def _with_escaped_returns(text: str) -> str:
    return re.sub(r"\\(?=[\\nr])|\\$", r"\\\\", text, flags=re.MULTILINE).replace("\r", r"\r")


def _unescaped(text: str) -> str:
    return re.sub(r"\\([\\nr])", lambda found: {"n": "\n", "r": "\r", "\\": "\\"}[found[1]], text)


WRITERS: Final[Mapping[str, Callable[[Sequence[ExportedList]], str]]] = {
    "json": write_json,
    "todo.txt": write_todo_txt,
    "markdown": write_markdown,
    "csv": write_csv,
}
READERS: Final[Mapping[str, Callable[[str], list[ExportedList]]]] = {
    "json": read_json,
    "todo.txt": read_todo_txt,
    "markdown": read_markdown,
}
