"""What the README and the other documents say is so."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import sync
from app.cli.main import command_line
from app.settings.keymap import ACTIONS, DEFAULT, Place
from app.settings.settings import Settings
from sync import Table
from tests.test_architecture import ROOMS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_ci_runs_exactly_the_test_command_of_the_readme() -> None:
    commands = [block.strip() for block in blocks("sh") if "pytest" in block]
    assert len(commands) == 1
    assert commands[0] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_run_command_is_there() -> None:
    assert "pip install . && todo-tui\n" in blocks("sh")


def test_every_setting_is_told() -> None:
    for name in Settings.model_fields:
        assert f"`{name}`" in README, name
        assert f"`TODO_TUI_{name.upper()}`" in README, name


def test_the_keys_are_those_of_the_app() -> None:
    table = README.partition("## Keys")[2].partition("##")[0]
    places = {
        "Anywhere": Place.ANYWHERE,
        "Lists": Place.LISTS,
        "To-dos": Place.TODOS,
        "Sync screen": Place.SYNC,
        "Moving": Place.ROWS,
    }
    known = {(action.place, key) for action in ACTIONS for key in DEFAULT.shown(action.id)}
    place = Place.ANYWHERE
    told: set[Place] = set()
    for row in table.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if not row.startswith("|") or "`" not in row:
            continue
        place = places[cells[0]] if cells[0] else place
        told.add(place)
        for key in re.findall(r"`([^`]+)`", row):
            assert (place, key) in known, (place, key)
    assert told == set(places.values())


def test_every_option_in_the_readme_exists() -> None:
    texts = [
        subprocess.run(
            [sys.executable, "-m", "app", *command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=30
        ).stdout
        for command in ([], ["backend"], ["backend", "user", "add"], ["login"], ["list"], ["sync"])
    ]
    for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", README):
        if option not in {"--check", "--snapshot-update"}:
            assert any(option in text for text in texts), option


@pytest.mark.parametrize("path", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda path: path.name)
def test_every_link_into_the_project_resolves(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_the_engine_example_runs(tmp_path: Path) -> None:
    (example,) = blocks("python")
    tree = ast.parse(example)
    assert isinstance(tree.body[-1], ast.Expr)  # asyncio.run(main()), which never ends
    with subprocess.Popen(
        [sys.executable, "-u", "-c", example],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            output = ""
            while not ("['Groceries']" in output and "to the backend: (CrudEntry(" in output):
                line = process.stdout.readline()
                assert line, process.stderr.read()
                output += line
            assert process.poll() is None
        finally:
            process.kill()
        assert process.stderr.read() == ""


def test_the_schema_example_prints_what_is_told() -> None:
    text = (ROOT / "docs" / "schema.md").read_text()
    (example,), (told,) = blocks("python", text), blocks("text", text)
    done = subprocess.run(
        [sys.executable, "-c", example], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr) == (told, "")


def test_every_option_of_a_table_is_told() -> None:
    text = (ROOT / "docs" / "schema.md").read_text()
    parameters = inspect.signature(Table).parameters.values()
    options = {parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == options


def test_the_examples_of_raw_tables_run(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "raw-tables.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (statements,) = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    exec(compile(statements, "statements", "exec"), dict(vars(sync)))
    for expected in (["Milk"], ["Milk", "Milk"]):  # and once more, on the file that it made
        done = subprocess.run(
            [sys.executable, "-c", example],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert str(expected) in done.stdout
        assert done.stdout.count("waits for upload: (CrudEntry(") == len(expected)


def test_the_reference_pages_are_those_of_the_code() -> None:
    command = [sys.executable, "docs/reference.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_command_setting_and_action_is_documented() -> None:
    texts = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
    for name in sync.__all__:
        assert f"| `{name}` |" in texts["api.md"], name
    for action in ACTIONS:
        assert f"`{action.id}`" in texts["keys.md"], action.id
    for command in command_line.list_commands(click.Context(command_line)):
        assert f"## todo-tui {command}\n" in texts["commands.md"], command
    for name in Settings.model_fields:
        assert f"`{name}`" in texts["configuration.md"], name


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def part_of_architecture(heading: str) -> str:
    """The text below a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


@pytest.mark.parametrize(
    ("package", "heading"),
    [
        ("sync", "The engine, `sync/`"),
        ("app", "The application, `app/`"),
        ("app/backend", "The demo backend, `app/backend/`"),
    ],
)
def test_the_architecture_page_has_every_room_in_its_order(package: str, heading: str) -> None:
    part = part_of_architecture(heading)
    rooms = re.findall(r"^\| `([\w.]+)/?` \|", part, re.MULTILINE)
    assert tuple(room.removesuffix(".py") for room in rooms) == ROOMS[package]
    for path in (ROOT / package).iterdir():
        if path.name != "__pycache__":
            name = f"{path.name}/" if path.is_dir() else path.name
            assert f"`{name}`" in part, name


@pytest.mark.parametrize(("owner", "listen"), [("pool", "ConnectionPool.listen"), ("board", "StatusBoard.listen")])
def test_the_architecture_page_names_every_listener(owner: str, listen: str) -> None:
    rows = [row for row in part_of_architecture("In the engine").splitlines() if f"`{listen}`" in row]
    listening = [
        path.relative_to(ROOT / "sync").as_posix()
        for path in (ROOT / "sync").rglob("*.py")
        if f"{owner}.listen(self." in path.read_text()
    ]
    assert listening
    for name in listening:
        assert f"`{name}`" in rows[0].split("|")[2], name


def test_the_architecture_page_names_only_files_that_exist() -> None:
    paths = [path.relative_to(ROOT) for package in ("sync", "app", "tests") for path in (ROOT / package).rglob("*")]
    known = {f"/{path.as_posix()}{'/' if (ROOT / path).is_dir() else ''}" for path in paths} | {"/sync/", "/app/"}
    for name in re.findall(r"`([\w/]+\.py|[\w/]+/)`", ARCHITECTURE):
        assert any(path.endswith(f"/{name}") for path in known), name
