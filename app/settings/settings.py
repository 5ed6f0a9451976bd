"""The settings of todo-tui and where they come from.

Owns their names, defaults and validation, and the order defaults < config file < environment < command-line options.
Every mistake becomes one `SettingsError` sentence. Must not import the interface, the engine or the backend, and must
not create anything on disk.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

from platformdirs import user_config_path, user_data_path
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from app.settings.keymap import Keymap, KeymapError, Preset
from app.system.clock import NOW_VARIABLE
from app.system.sign_in_keys import parse_key

ENVIRONMENT_PREFIX = "TODO_TUI_"

# One user for everything that is not told otherwise, so that every todo-tui of a machine shows the same lists.
DEFAULT_USER_ID = UUID("6f0d5c1e-8a43-4d0b-9d0e-3c1b7a52e4f9")

_ADDRESS = (
    "an http:// or https:// address such as http://127.0.0.1:6161, without user name, password, query or fragment"
)
POSTGRES = ("postgresql://", "postgres://")
"""How the address of a PostgreSQL database begins."""

_UserNumber = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,17}$")]
_DEFAULT_PORTS = {"http": 80, "https": 443}
_EXPECTED = {
    "data_dir": "the path of a directory",
    "backend_url": _ADDRESS,
    "upload_interface": '"batch", "transactions" or "rows"',
    "checkpoint_mode": '"service" or "backend"',
    "service_url": _ADDRESS,
    "sign_in_key": "a key as todo-tui backend user add prints it, such as laptop:9f3k…",
    "user_id": f"a UUID such as {DEFAULT_USER_ID}, or the whole number of a user",
    "port": "a whole number from 1 to 65535",
    "sync_config": "the path of a file",
    "profile": "the name of a profile",
    "profiles": "tables of text, one for each profile",
    "keymap": '"default", "vim" or "plain"',
    "keys": "a table of actions with a key, or a list of keys, each",
    "reduced_motion": "true or false",
    "database": "the path of a file, or an address postgresql://…",
}
_TOML_TYPES: dict[str, type] = {"port": int, "reduced_motion": bool, "keys": dict, "profiles": dict}
_IN_PROFILES = (
    "data_dir",
    "backend_url",
    "service_url",
    "upload_interface",
    "checkpoint_mode",
    "sign_in_key",
    "user_id",
)
_PROFILES: dict[str, dict[str, str]] = {"embedded": {}, "self-hosted": {}, "powersync-cloud": {}}
_NEED_A_BACKEND = ("self-hosted", "powersync-cloud")
_OPTIONS = {
    "profile": "--profile",
    "data_dir": "--data-dir",
    "backend_url": "--backend",
    "user_id": "--user",
    "port": "--port",
    "database": "--database",
}


class SettingsError(Exception):
    """A setting cannot be used. The message is one sentence: where, which key, what was expected."""


class Settings(BaseSettings):
    """All settings, validated. Make one with `load_settings`, which knows the sources and their order.

    Attributes:
        profile: the set of values for a backend that is in force, or None.
        data_dir: directory of the database, the log and the inner backend's data; absolute.
        backend_url: base URL of the backend, or None for the demo backend inside todo-tui; in one spelling.
        upload_interface: how a backend named by `backend_url` wants its uploads (`app.connection.upload_interfaces`).
        checkpoint_mode: who is asked for the checkpoint that holds what was uploaded.
        service_url: base URL of the sync service, or None for what the backend says; in one spelling.
        sign_in_key: the key that signs in at the backend, instead of one that `todo-tui login` has kept. A secret.
        user_id: whose lists are shown and synced; a number where the backend counts its users.
        port: loopback TCP port of the demo backend inside todo-tui.
        keymap: the set of keys to begin with.
        reduced_motion: whether nothing moves by itself.
        database: where a demo backend that runs alone keeps the lists: an absolute path, a postgresql:// address, or
            None for a file in the data directory. An address may hold a password.
        sync_config: the sync config of a demo backend that runs alone, or None for the one that comes along; absolute.
        keys: other keys for single actions, by the action's id.
        profiles: sets of values by name: backend, service, upload interface, checkpoint mode, key, user and data
            directory together.
    """

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    profile: str | None = None
    data_dir: Path = Field(default_factory=lambda: user_data_path("todo-tui", appauthor=False))
    backend_url: str | None = None
    upload_interface: Literal["batch", "transactions", "rows"] = "batch"
    checkpoint_mode: Literal["service", "backend"] = "service"
    service_url: str | None = None
    sign_in_key: str | None = Field(default=None, repr=False)
    user_id: UUID | _UserNumber = DEFAULT_USER_ID
    port: int = Field(default=6161, ge=1, le=65535)
    keymap: Preset = "default"
    reduced_motion: bool = False
    database: str | None = Field(default=None, repr=False)
    sync_config: Path | None = None
    keys: dict[str, str | list[str]] = Field(default_factory=dict[str, "str | list[str]"])
    profiles: dict[str, dict[str, str]] = Field(default_factory=dict[str, "dict[str, str]"], repr=False)

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        try:
            Keymap.of(self.keymap, self.keys)
        except KeymapError as error:
            raise PydanticCustomError("keymap", "{reason}", {"reason": str(error)}) from error
        return self

    @field_validator("sign_in_key")
    @classmethod
    def _written_as_a_key(cls, text: str | None) -> str | None:
        if text is not None and parse_key(text) is None:
            raise ValueError("not a key")
        return text

    @field_validator("database")
    @classmethod
    def _file_or_address(cls, text: str | None) -> str | None:
        if text is None or text.startswith(POSTGRES):
            return text
        if not text or "\0" in text:
            raise ValueError("not a path")
        return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 -- as below

    @field_validator("data_dir", "sync_config", mode="before")
    @classmethod
    def _absolute(cls, path: object) -> object:
        if path is None:
            return None
        text = str(path)
        if not text or "\0" in text:
            raise ValueError("not a path")
        # Not pathlib: its `expanduser` fails for an unknown user, and its `resolve` follows symbolic links.
        return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111

    @field_validator("backend_url", "service_url")
    @classmethod
    def _http_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f]", url):
            raise ValueError("not an http(s) address")
        if parts.port == 0 or parts.username is not None or parts.query or parts.fragment:
            raise ValueError("not the base of a service")
        return _canonical(parts)


def _canonical(parts: SplitResult) -> str:
    """One spelling for each address: lists are kept from other backends by comparing it."""
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def load_settings(config: Path | None = None, options: Mapping[str, object] | None = None) -> Settings:
    """The settings of this run.

    Args:
        config: the config file to read, which must exist; None for the user's own, which need not.
        options: settings given on the command line, by setting name; None as a value means not given.

    Raises:
        SettingsError: a file, a variable or an option cannot be used.
    """
    given = {key: value for key, value in (options or {}).items() if value is not None}
    path = default_config_path() if config is None else config
    in_file = _read_file(path, required=config is not None)
    _refuse_unknown_variables()
    # `Settings` would read the environment itself; here it is laid over the file, and an error can name the variable.
    in_environment = EnvSettingsSource(Settings)()
    of_profile = _profile(path, in_file, {**in_file, **in_environment, **given}.get("profile"))
    try:
        settings = Settings.model_validate({**in_file, **of_profile, **in_environment, **given})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        if first["type"] == "keymap":
            variable = f"Environment variable {ENVIRONMENT_PREFIX}KEYS"
            where = variable if "keys" in in_environment else f"Config file {path}"
            raise SettingsError(f"{where}: {first['msg']}") from None
        key = str(first["loc"][0])
        if key in given:
            where = f"Option {_OPTIONS[key]}"
        elif key in in_environment:
            where = f"Environment variable {ENVIRONMENT_PREFIX}{key.upper()}"
        else:
            where = f"Config file {path}: {key}"
        raise SettingsError(f"{where} must be {_EXPECTED[key]}.") from None
    signs_in = settings.sign_in_key is not None and settings.backend_url is not None
    if signs_in and "user_id" not in settings.model_fields_set:
        raise SettingsError("sign_in_key needs user_id: whose lists it opens, as todo-tui backend user list tells.")
    return settings


def _profile(path: Path, in_file: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """What a profile sets: all that says with whom lists are synced, and a data directory of its own."""
    if name is None:
        return {}
    tables: Mapping[str, Mapping[str, str]] = in_file.get("profiles", {})
    if name not in _PROFILES and name not in tables:
        raise SettingsError(f"There is no profile {name!r}{_nearest(str(name), {**_PROFILES, **tables})}")
    values: dict[str, Any] = {**_PROFILES.get(name, {}), **tables.get(name, {})}
    if name in _NEED_A_BACKEND and "backend_url" not in values:
        raise SettingsError(f"Config file {path}: the profile {name} needs its backend_url, in [profiles.{name}].")
    if "data_dir" not in values and name != "embedded":
        # The lists of a data directory belong to one backend for good.
        base = in_file.get("data_dir") or user_data_path("todo-tui", appauthor=False)
        values["data_dir"] = str(Path(base) / "profiles" / str(name))
    return {"backend_url": None, "service_url": None, "sign_in_key": None, **values}


def json_schema() -> dict[str, Any]:
    """A JSON schema of the config file."""
    schema = Settings.model_json_schema()
    schema["title"] = "Settings of todo-tui"
    schema["description"] = "The config file of todo-tui; config.example.toml explains each key."
    return schema


def default_config_path() -> Path:
    """Where the user's own config file is looked for."""
    return user_config_path("todo-tui", appauthor=False) / "config.toml"


def _read_file(path: Path, *, required: bool) -> dict[str, Any]:
    """The settings in the file at `path`, with known names and the right TOML types."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        if not required:
            return {}
        raise SettingsError(f"Config file {path} does not exist.") from None
    except OSError as error:
        raise SettingsError(f"Config file {path} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise SettingsError(f"Config file {path} is not text in UTF-8.") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = max(1, len(text.splitlines()))
        problem = str(error).replace("at end of document", f"at line {line}, the last one")
        raise SettingsError(f"Config file {path} is not valid TOML: {problem}.") from None
    except (ValueError, RecursionError):
        # Numbers of thousands of digits and brackets in thousands of brackets are beyond the parser.
        raise SettingsError(f"Config file {path} is not valid TOML: a value in it is too large.") from None

    _check_keys(path, values)
    _check_profiles(path, values.get("profiles", {}))
    for key in {"data_dir", "sync_config", "database"} & values.keys():
        if key != "database" or not values[key].startswith(POSTGRES):
            values[key] = _beside(path, values[key])
    return values


def _check_keys(path: Path, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key not in Settings.model_fields:
            raise SettingsError(f"Config file {path} has an unknown key {key!r}{_nearest(key, Settings.model_fields)}")
        if type(value) is not _TOML_TYPES.get(key, str):
            raise SettingsError(f"Config file {path}: {key} must be {_EXPECTED[key]}, not {_toml_type(value)}.")


def _check_profiles(path: Path, profiles: dict[str, Any]) -> None:
    for name, table in profiles.items():
        if not isinstance(table, dict):
            raise SettingsError(f"Config file {path}: profiles.{name} must be a table of text.")
        values = cast("dict[str, Any]", table)
        if any(type(value) is not str for value in values.values()):
            raise SettingsError(f"Config file {path}: profiles.{name} must be a table of text.")
        for key in values:
            if key not in _IN_PROFILES:
                nearest = _nearest(key, _IN_PROFILES)
                raise SettingsError(f"Config file {path} has an unknown key {key!r} in profiles.{name}{nearest}")
        if "data_dir" in values:
            values["data_dir"] = _beside(path, values["data_dir"])


def _beside(path: Path, place: str) -> str:
    """Relative to the file, so that the same file means the same place wherever todo-tui is started."""
    expanded = os.path.expanduser(place)  # noqa: PTH111 - pathlib's fails for an unknown user
    return expanded and str(path.parent.absolute() / expanded)


def _refuse_unknown_variables() -> None:
    known = [f"{ENVIRONMENT_PREFIX}{key.upper()}" for key in Settings.model_fields]
    for name in sorted(os.environ):
        if name.upper().startswith(ENVIRONMENT_PREFIX) and name.upper() not in {*known, NOW_VARIABLE}:
            raise SettingsError(f"Environment variable {name} is not a setting{_nearest(name.upper(), known)}")


def _nearest(key: str, known: Iterable[str]) -> str:
    names = list(known)
    matches = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}?" if matches else f"; there are {', '.join(names)}."


def _toml_type(value: object) -> str:
    match value:
        case bool():
            return "true or false"
        case str():
            return "text in quotes"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"
