"""The layout of the house holds: who may import whom, what is public, and what is loaded when."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sync

ROOT = Path(__file__).parents[1]
ENGINE = sorted((ROOT / "sync").rglob("*.py"))
APP = sorted((ROOT / "app").rglob("*.py"))


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
    for path in ENGINE:
        room = path.relative_to(ROOT / "sync").parts[0]
        text = path.read_text()
        if room == "protocol":
            assert not packages_of(path) & {"httpx", "aiosqlite", "sqlite3", "asyncio"}, path
        if room in {"rows.py", "row_diff.py"}:
            assert not packages_of(path) & {"httpx", "aiosqlite", "asyncio"}, path
            assert "SELECT " not in text, path
        if room == "storage":
            assert "httpx" not in packages_of(path), path
        if room not in {"storage", "client"} and path.name not in {"stored_status.py", "coordinator.py"}:
            assert "ps_" not in text.replace('("ps_", "sqlite_")', "").replace("`ps_", ""), path
        if room in {"client", "status.py", "progress.py", "waiting.py", "streams.py", "explain.py"}:
            assert not any(word in text for word in ("SELECT ", "INSERT ", "UPDATE ", "DELETE ")), path


def test_widgets_know_the_store_and_neither_sql_nor_the_engines_inside() -> None:
    for path in (ROOT / "app" / "tui").rglob("*.py"):
        inside = {name for name in imports_of(path) if name.startswith("sync.")}
        assert inside <= {"sync.SyncStatus", "sync.errors"}, path
        assert not re.search(r"(?<!_)SELECT |INSERT INTO|DELETE FROM", path.read_text()), path


def test_no_file_outgrows_its_room() -> None:
    for path in [*ENGINE, *APP]:
        assert len(path.read_text().splitlines()) <= 500, path


def test_all_that_is_public_is_exported() -> None:
    assert sync.__all__ == sorted(sync.__all__)
    for name in sync.__all__:
        assert hasattr(sync, name)
    errors = {name for name, value in vars(sync.errors).items() if isinstance(value, type) and name.endswith("Error")}
    assert errors <= set(sync.__all__)


def loaded_by(statement: str) -> set[str]:
    program = f"{statement}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import sync", {"textual", "httpx", "app", "starlette", "sqlalchemy"}),
        ("import app.cli", {"textual", "httpx", "pydantic", "asyncio", "sqlite3"}),
        ("import app.backend", {"textual", "httpx", "starlette", "uvicorn", "joserfc"}),
        ("import app.store", {"textual", "httpx", "pydantic"}),
    ],
)
def test_what_is_heavy_is_loaded_when_it_is_needed(statement: str, heavy: set[str]) -> None:
    assert not loaded_by(statement) & heavy
