"""What pip installs: `todo-tui`, and the engine alone as `todo-tui-sync`."""

from __future__ import annotations

import ast
import asyncio
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import NamedTuple

import pytest

import sync
from tests.test_end_to_end import backend_process

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "sync"
PROGRAM = ROOT / "tests" / "engine_alone" / "first_sync_and_upload.py"

pytestmark = pytest.mark.xdist_group("distributions")


class Distribution(NamedTuple):
    """A wheel and its metadata."""

    wheel: Path
    files: dict[str, bytes]
    metadata: Message


class Built(NamedTuple):
    """Both distributions, and the engine's source distribution."""

    whole: Distribution
    engine: Distribution
    engine_source: Path


def build(source: Path, target: str, directory: Path) -> Path:
    """Build one target of a project into an empty directory; returns the file."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(directory)]
    subprocess.run(command, cwd=source, capture_output=True, check=True, timeout=60)
    (built,) = directory.iterdir()
    return built


def read(wheel: Path) -> Distribution:
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    (metadata,) = (content for name, content in files.items() if name.endswith(".dist-info/METADATA"))
    return Distribution(wheel, files, BytesParser().parsebytes(metadata))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(
        read(build(ROOT, "wheel", tmp_path_factory.mktemp("whole"))),
        read(build(ENGINE, "wheel", tmp_path_factory.mktemp("engine"))),
        build(ENGINE, "sdist", tmp_path_factory.mktemp("source")),
    )


def test_both_distributions_ship_the_same_engine(built: Built) -> None:
    """Otherwise one would break the other where both are installed."""
    on_disk = {
        str(path.relative_to(ROOT)): path.read_bytes() for path in [*ENGINE.rglob("*.py"), *ENGINE.rglob("py.typed")]
    }
    for distribution in (built.whole, built.engine):
        assert {name: content for name, content in distribution.files.items() if name.startswith("sync/")} == on_disk


def test_the_engine_comes_without_the_app_and_with_its_licence(built: Built) -> None:
    assert {name.partition("/")[0] for name in built.engine.files} == {
        "sync",
        f"todo_tui_sync-{sync.__version__}.dist-info",
    }
    licence = (ROOT / "LICENSE").read_bytes()
    assert built.engine.files[f"todo_tui_sync-{sync.__version__}.dist-info/licenses/LICENSE.md"] == licence
    assert built.whole.files[f"todo_tui-{sync.__version__}.dist-info/licenses/LICENSE"] == licence


def test_both_distributions_have_the_version_of_the_engine(built: Built) -> None:
    assert built.whole.metadata["Name"] == "todo-tui"
    assert built.engine.metadata["Name"] == "todo-tui-sync"
    assert built.whole.metadata["Version"] == built.engine.metadata["Version"] == sync.__version__


def test_both_distributions_agree_on_what_the_engine_requires(built: Built) -> None:
    required = built.engine.metadata.get_all("Requires-Dist", [])
    assert set(required) <= set(built.whole.metadata.get_all("Requires-Dist", []))
    assert built.engine.metadata.get_all("Provides-Extra") == ["sqlalchemy"]
    assert built.engine.metadata["Requires-Python"] == built.whole.metadata["Requires-Python"]


def test_the_engine_requires_what_it_imports(built: Built) -> None:
    names: set[str] = set()
    for path in ENGINE.rglob("*.py"):
        names |= imported_packages(path)
    extra = {"sqlalchemy"}
    offered_by_the_caller = {"pydantic"}  # imported only for rows of a pydantic model
    used_by_httpx = {"zstandard"}
    required = {
        re.split(r"[^\w-]", line, maxsplit=1)[0]
        for line in built.engine.metadata.get_all("Requires-Dist", [])
        if "extra ==" not in line
    }
    assert names - sys.stdlib_module_names - {"sync"} == required - used_by_httpx | extra | offered_by_the_caller
    assert used_by_httpx <= required


def test_the_sdist_of_the_engine_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.engine_source) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert build(source, "wheel", tmp_path / "wheel").read_bytes() == built.engine.wheel.read_bytes()


def imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.level == 0
            names.add(node.module.partition(".")[0])
    return names


def test_the_program_for_the_engine_alone_imports_nothing_else() -> None:
    assert imported_packages(PROGRAM) - sys.stdlib_module_names == {"sync"}


async def test_the_program_for_the_engine_alone_syncs_and_uploads(tmp_path: Path) -> None:
    """In this environment; `.ci/engine-alone` runs it in one that has only the engine."""
    async with backend_process(tmp_path / "backend.db") as backend:
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", str(PROGRAM), backend.url),
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, complaints = await program.communicate()
    assert (program.returncode, complaints) == (0, b"")
    assert b"has uploaded a list" in printed


def test_the_example_in_the_readme_of_the_engine_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ENGINE / "README.md").read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['Groceries']\nSend to your backend: PUT lists {'name': 'Groceries'}\n"


def test_the_links_in_the_readme_of_the_engine_lead_to_files() -> None:
    """Its links are absolute, since it is also shown where the other files are not."""
    text = (ENGINE / "README.md").read_text()
    assert not [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("https://")]
    targets = re.findall(r"\]\(https://github\.com/todo-tui/todo-tui/blob/main/([^)#]+)", text)
    assert len(targets) >= 5
    for target in targets:
        assert (ROOT / target).is_file(), target
