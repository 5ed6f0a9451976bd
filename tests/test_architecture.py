"""The layout of the house holds: who may import whom, what is public, and what is loaded when."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sync

ROOT = Path(__file__).parents[1]
ENGINE = sorted((ROOT / "sync").rglob("*.py"))
APP = sorted((ROOT / "app").rglob("*.py"))

ROOMS = {
    "sync": (
        "sqlalchemy",
        "__init__",
        "api",
        "client",
        "storage",
        "watch",
        "status",
        "sqlite",
        "schema",
        "protocol",
        "errors",
    ),
    "app": ("__main__", "cli", "tui", "store", "connection", "settings", "todo_text", "backend", "system", "__init__"),
    "app/backend": ("__init__", "http", "data", "rules", "config", "errors"),
}
"""The rooms from the top floor down. A room imports rooms that come after it, never one that comes before it."""

LOOSE = {
    "sync": {"__init__.py", "errors.py", "sqlalchemy.py", "py.typed", "pyproject.toml", "README.md", "LICENSE.md"},
    "app": {"__init__.py", "__main__.py", "py.typed"},
}
"""What stands beside the rooms at the top of a package."""

MOST_NAMES = 12


# The three rules


def crowded_tops(root: Path) -> Iterator[str]:
    """What stands at the top of a package and should not, or is one name too many."""
    for package, loose in LOOSE.items():
        names = [path for path in (root / package).iterdir() if path.name != "__pycache__"]
        for path in names:
            if not path.is_dir() and path.name not in loose:
                yield f"{package}/{path.name} stands at the top"
        counted = [path for path in names if path.suffix not in {".toml", ".md"}]
        if len(counted) > MOST_NAMES:
            yield f"{package}/ shows {len(counted)} names"


def upward_arrows(root: Path) -> Iterator[str]:
    """The imports from one room into a room above it, and the rooms that the table does not name."""
    graph = imports_between_files(root)
    for package, rooms in ROOMS.items():
        for importer, imported in ((a, b) for a, those in graph.items() for b in those):
            here, there = room_of(package, importer), room_of(package, imported)
            if here is None or there is None or here == there:
                continue
            for room in (here, there):
                if room not in rooms:
                    yield f"{package}/{room} has no place in the table"
            if here in rooms and there in rooms and rooms.index(there) < rooms.index(here):
                yield f"{importer} -> {imported}"


def circles(root: Path) -> list[list[str]]:
    """Files that import each other, in a round of any length."""
    graph = imports_between_files(root)
    found: list[list[str]] = []
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            circle = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def imports_between_files(root: Path) -> dict[str, set[str]]:
    """Which file imports which, by module name. Imports in functions and for type checkers count too."""
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for package in LOOSE
        for path in (root / package).rglob("*.py")
    }

    def file_of(name: str) -> str | None:
        return next((each for each in (name, f"{name}.__init__") if each in files), None)

    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        found: set[str | None] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {file_of(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name} imports relatively"
                module = str(node.module)
                found |= {file_of(f"{module}.{alias.name}") or file_of(module) for alias in node.names}
        graph[name] = {other for other in found if other is not None and other != name}
    return graph


def room_of(package: str, module: str) -> str | None:
    """The room of a package in which a module is, or None if it is elsewhere."""
    inside = f"{package.replace('/', '.')}."
    return module.removeprefix(inside).split(".")[0] if module.startswith(inside) else None


def test_the_tops_show_only_rooms() -> None:
    assert not list(crowded_tops(ROOT))


def test_arrows_go_down() -> None:
    assert not list(upward_arrows(ROOT))


def test_no_files_import_each_other_in_a_circle() -> None:
    assert not circles(ROOT)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the house, in which an offence can be planted."""
    for package in LOOSE:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def plant(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + text)


def test_a_loose_file_is_noticed(copy: Path) -> None:
    plant(copy / "sync" / "leases.py", "")
    assert list(crowded_tops(copy)) == ["sync/leases.py stands at the top", "sync/ shows 13 names"]


def test_one_room_too_many_is_noticed(copy: Path) -> None:
    for room in ("reminders", "attachments"):
        plant(copy / "app" / room / "__init__.py", "")
    assert list(crowded_tops(copy)) == ["app/ shows 13 names"]


@pytest.mark.parametrize(
    ("importer", "planted", "arrow"),
    [
        ("sync/sqlite/rows.py", "from sync.watch import window\n", "sync.sqlite.rows -> sync.watch.window"),
        (
            "sync/client/connector.py",
            "def late():\n    from sync.api.database import PowerSyncDatabase\n",
            "sync.client.connector -> sync.api.database",
        ),
        (
            "app/store/rows.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import app.tui.words\n",
            "app.store.rows -> app.tui.words",
        ),
        (
            "app/backend/rules/tables.py",
            "import app.backend.http.auth\n",
            "app.backend.rules.tables -> app.backend.http.auth",
        ),
        ("sync/errors.py", "import sync\n", "sync.errors -> sync.__init__"),
    ],
)
def test_an_arrow_up_is_noticed(copy: Path, importer: str, planted: str, arrow: str) -> None:
    plant(copy / importer, planted)
    assert list(upward_arrows(copy)) == [arrow]


def test_a_room_that_the_table_does_not_name_is_noticed(copy: Path) -> None:
    plant(copy / "app" / "reminders" / "__init__.py", "from app.store import Store\n")
    assert list(upward_arrows(copy)) == ["app/reminders has no place in the table"]


@pytest.mark.parametrize("planted", ["import sync.sqlite.pool\n", "def late():\n    from sync.sqlite import pool\n"])
def test_a_circle_is_noticed(copy: Path, planted: str) -> None:
    plant(copy / "sync" / "sqlite" / "transaction.py", planted)
    assert circles(copy) == [["sync.sqlite.pool", "sync.sqlite.transaction"]]


# What each room keeps to itself


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages_of(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(path)}


@pytest.mark.parametrize("path", [*ENGINE, *APP], ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_says_what_it_owns(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_engine_imports_nothing_of_the_app_nor_of_textual() -> None:
    for path in ENGINE:
        assert not packages_of(path) & {"app", "textual", "rich", "starlette", "uvicorn"}, path


def test_the_rooms_of_the_engine_keep_to_themselves() -> None:
    sql = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE) ")
    internal = re.compile(r"(?<!`)\bps_\w*(?!\w*`)")
    for path in ENGINE:
        room = path.relative_to(ROOT / "sync").parts[0]
        text = path.read_text()
        if room in {"protocol", "schema", "status"}:
            assert not packages_of(path) & {"httpx", "aiosqlite", "sqlite3"}, path
        if room in {"protocol", "schema"}:
            assert "asyncio" not in packages_of(path), path
        if room != "client":
            assert "httpx" not in packages_of(path), path
        if room in {"api", "client", "status", "protocol"} and path.name != "database.py":
            assert not sql.search(text), path
        if room != "storage":
            assert not internal.search(text.replace('("ps_", "sqlite_")', "")), path  # reserved for the engine


def test_widgets_know_the_store_and_neither_sql_nor_the_engines_inside() -> None:
    for path in (ROOT / "app" / "tui").rglob("*.py"):
        inside = {name for name in imports_of(path) if name.startswith("sync.")}
        assert inside <= {"sync.SyncStatus", "sync.errors"}, path
        assert not re.search(r"(?<!_)SELECT |INSERT INTO|DELETE FROM", path.read_text()), path


def test_no_file_outgrows_its_room() -> None:
    for path in [*ENGINE, *APP]:
        assert len(path.read_text().splitlines()) <= 500, path


def test_a_constructor_with_many_parameters_says_why() -> None:
    for path in [*ENGINE, *APP]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef):
                continue
            for function in node.body:
                if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                    parameters = [*function.args.args[1:], *function.args.kwonlyargs]
                    written = [ast.unparse(each.annotation) for each in parameters if each.annotation is not None]
                    if len(parameters) > 5 or sum("Callable" in annotation for annotation in written) > 2:
                        assert "more than five" in (ast.get_docstring(node) or "").lower(), f"{path}: {node.name}"


def test_all_that_is_public_is_exported() -> None:
    assert sync.__all__ == sorted(sync.__all__)
    for name in sync.__all__:
        assert hasattr(sync, name)
    errors = {name for name, value in vars(sync.errors).items() if isinstance(value, type) and name.endswith("Error")}
    assert errors <= set(sync.__all__)


def test_only_what_is_public_shows() -> None:
    assert dir(sync) == sorted([*sync.__all__, "__version__"])


def loaded_by(statement: str) -> set[str]:
    program = f"{statement}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import sync", {"textual", "httpx", "app", "starlette", "sqlalchemy"}),
        ("import app.cli.main", {"textual", "httpx", "pydantic", "asyncio", "sqlite3"}),
        ("import app.backend", {"textual", "httpx", "starlette", "uvicorn", "joserfc"}),
        ("import app.store", {"textual", "httpx", "pydantic"}),
    ],
)
def test_what_is_heavy_is_loaded_when_it_is_needed(statement: str, heavy: set[str]) -> None:
    assert not loaded_by(statement) & heavy
