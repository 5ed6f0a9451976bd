"""The files for self-hosting agree with the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.backend.config import BackendConfig
from app.backend.http.service import Service
from app.backend.http.write_api import WriteApi
from app.backend.rules import sync_config
from app.backend.rules.tables import LISTS, TODOS

DIRECTORY = Path(__file__).parents[1] / "docs" / "self-hosting"
COMPOSE: dict[str, Any] = yaml.safe_load((DIRECTORY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


class _Loader(yaml.SafeLoader):
    """With the tag by which the PowerSync Service takes values from the environment."""


_Loader.add_constructor("!env", lambda loader, node: f"env {loader.construct_scalar(node)}")  # type: ignore[arg-type]
SERVICE: dict[str, Any] = yaml.load((DIRECTORY / "service.yaml").read_text(), _Loader)


def options(command: list[str]) -> dict[str, str]:
    return dict(re.fullmatch(r"--([a-z-]+)(?:=(.*))?", each).groups("") for each in command if each.startswith("--"))  # type: ignore[union-attr,misc]


def test_the_backend_takes_the_options_of_the_compose_file():
    told = subprocess.run(
        [sys.executable, "-m", "app", "backend", "--help"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    for name in ("backend", "tables"):
        for option in options(SERVICES[name]["command"]):
            assert f"--{option}" in told


def test_the_service_checks_the_tokens_that_the_backend_makes(tmp_path: Path):
    given = options(SERVICES["backend"]["command"])
    assert SERVICE["client_auth"]["audience"] == [given["audience"]]
    host, path = re.fullmatch(r"http://([^/]+)(/.*)", SERVICE["client_auth"]["jwks_uri"]).groups()  # type: ignore[union-attr]
    assert host == f"backend:{given['port']}"
    routes = WriteApi(Service(BackendConfig(tmp_path / "backend.db"))).routes()
    assert path in {route.path for route in routes}


def test_everybody_speaks_to_the_same_database():
    addresses = {SERVICES[name]["environment"]["TODO_TUI_DATABASE"] for name in ("backend", "tables")}
    addresses.add(SERVICES["powersync"]["environment"]["PS_DATABASE_URI"])
    (address,) = addresses
    assert f"@postgres:5432/{SERVICES['postgres']['environment']['POSTGRES_DB']}" in address
    assert SERVICE["replication"]["connections"][0]["uri"] == "env PS_DATABASE_URI"
    assert "wal_level=logical" in SERVICES["postgres"]["command"]
    assert SERVICE["storage"]["uri"] == "env PS_STORAGE_URI"
    assert SERVICES["powersync"]["environment"]["PS_STORAGE_URI"] != address


def test_nothing_is_published_beyond_the_machine_and_no_password_is_in_the_file():
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert set(re.findall(r"postgres:([^@:]+)@", (DIRECTORY / "compose.yaml").read_text())) == {"${POSTGRES_PASSWORD}"}


def test_every_mounted_file_is_there():
    mounted = [volume for volume in SERVICES["powersync"]["volumes"] if volume.startswith("./")]
    assert mounted
    for volume in mounted:
        assert (DIRECTORY / volume.split(":")[0]).is_file()
    assert (DIRECTORY.parents[1] / SERVICES["backend"]["build"]["dockerfile"]).is_file()


def test_the_service_syncs_by_the_same_config_as_the_demo_backend():
    tables = {table.name: table.row_names() for table in (LISTS, TODOS)}
    path = DIRECTORY / SERVICE["sync_config"]["path"]
    assert sync_config.load(path, tables) == sync_config.load(sync_config.DEFAULT, tables)


@pytest.mark.parametrize("name", ["backend", "tables"])
def test_the_password_travels_in_the_environment(name: str):
    assert not any("postgresql://" in word for word in SERVICES[name]["command"])
