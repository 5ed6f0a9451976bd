"""What the files around the code say agrees with each other: the habits of the project, held by tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import sync

ROOT = Path(__file__).parents[1]
PROJECTS: list[dict[str, Any]] = [
    tomllib.loads(path.read_text()) for path in (ROOT / "pyproject.toml", ROOT / "sync" / "pyproject.toml")
]
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
SUPPORTED = ["3.11", "3.12", "3.13", "3.14"]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def test_pre_commit_uses_the_ruff_of_the_tests() -> None:
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (pinned,) = (each for each in PROJECTS[0]["project"]["optional-dependencies"]["test"] if each.startswith("ruff"))
    assert f"ruff=={hooks['rev'].removeprefix('v')}" == pinned
    assert [hook["id"] for hook in hooks["hooks"]] == ["ruff-check", "ruff-format"]


def commands_of_make(*targets: str) -> list[str]:
    done = subprocess.run(
        ["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.splitlines()


@needs_make
def test_make_runs_the_test_command_of_the_readme() -> None:
    (documented,) = re.findall(r"^pip install -e .* && pytest$", (ROOT / "README.md").read_text(), re.MULTILINE)
    (install,) = commands_of_make("setup")[1:]  # after the one that makes the virtual environment
    assert " && ".join([install, *commands_of_make("lint", "test")]) == documented
    assert documented in (ROOT / "CONTRIBUTING.md").read_text().splitlines()


@needs_make
def test_make_has_the_commands_that_are_documented() -> None:
    documented = re.findall(r"^\| `make (\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert documented == ["setup", "lint", "test", "snapshots", "bench"]
    for target in documented:
        assert commands_of_make(target)
    assert "pytest tests/app/tui --snapshot-update" in commands_of_make("snapshots")
    assert list((ROOT / "tests" / "app" / "tui" / "__snapshots__").iterdir())
    assert commands_of_make("bench") == ["python -m tests.benchmarks"]


def test_the_workflow_runs_ci_on_every_system_and_python_that_is_supported() -> None:
    (job,) = WORKFLOW["jobs"].values()
    matrix = job["strategy"]["matrix"]
    assert matrix == {"os": ["ubuntu-latest", "macos-latest"], "python": SUPPORTED}
    assert job["runs-on"] == "${{ matrix.os }}"
    steps = {step.get("uses", "").partition("@")[0] or step["run"]: step for step in job["steps"]}
    assert steps["actions/setup-python"]["with"]["python-version"] == "${{ matrix.python }}"
    assert steps[".ci/run"]["env"] == {"PYTHON": "python"}
    assert '"${PYTHON:-python3}" -m venv' in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project["project"]["name"])
def test_the_metadata_is_complete(project: dict[str, Any]) -> None:
    metadata = project["project"]
    prefix = "Programming Language :: Python :: "
    versions = [each.removeprefix(prefix) for each in metadata["classifiers"] if each.startswith(prefix)]
    assert versions == SUPPORTED
    assert metadata["requires-python"] == f">={SUPPORTED[0]}"
    assert metadata["urls"].keys() == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    for url in metadata["urls"].values():
        assert url.startswith("https://github.com/todo-tui/todo-tui")
        _, _, path = url.partition("/main/")
        assert (ROOT / path).exists(), url
    assert metadata["dynamic"] == ["version"]
    assert "version" not in metadata


def test_the_licence_of_the_engine_is_that_of_the_project() -> None:
    assert (ROOT / "sync" / "LICENSE.md").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_the_issue_forms_can_be_filled_in(name: str) -> None:
    form: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
    assert {"name", "description", "body"} <= form.keys()
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_vulnerabilities_are_reported_in_private() -> None:
    report = "https://github.com/todo-tui/todo-tui/security/advisories/new"
    assert report in (ROOT / "SECURITY.md").read_text()
    (link,) = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml").read_text())["contact_links"]
    assert link["url"] == report


def test_the_pull_request_template_asks_for_what_contributing_asks_for() -> None:
    template = (ROOT / ".github" / "pull_request_template.md").read_text()
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    for text in (template, contributing):
        for wanted in ("Tests", "make lint test", "make snapshots", "CHANGELOG.md"):
            assert wanted in text, wanted
    assert template.count("- [ ] ") == 4


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with just what the release check looks at before it builds, ready for a release."""
    for name in (".ci/release-check", "sync/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {sync.__version__} – 2026-12-01\n")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(directory: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=directory, check=True, timeout=30)


def commit(directory: Path) -> None:
    git(directory, "add", "--all")
    git(directory, "-c", "user.name=Ann", "-c", "user.email=ann@example.com", "commit", "--quiet", "--message", "Ready")


def refusal(directory: Path) -> str:
    """What the release check says. Its Python always fails, so that it gets no further than to the first build."""
    done = subprocess.run(
        [directory / ".ci" / "release-check"],
        env=os.environ | {"PYTHON": "false"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    return done.stderr


@needs_git
def test_the_release_check_accepts_a_version_that_is_ready(checkout: Path) -> None:
    assert refusal(checkout) == ""


@needs_git
def test_the_release_check_refuses_a_version_that_the_changelog_does_not_name(checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n")
    commit(checkout)
    assert f"'## {sync.__version__} – YYYY-MM-DD'" in refusal(checkout)


@needs_git
def test_the_release_check_refuses_uncommitted_changes(checkout: Path) -> None:
    (checkout / "new.py").touch()
    assert refusal(checkout) == "The work tree has uncommitted changes.\n"


@needs_git
def test_the_release_check_refuses_the_version_of_another_commit(checkout: Path) -> None:
    git(checkout, "tag", f"v{sync.__version__}")
    assert refusal(checkout) == ""
    (checkout / "new.py").touch()
    commit(checkout)
    assert f"The tag v{sync.__version__} is on another commit" in refusal(checkout)
