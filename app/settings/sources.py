"""Where settings come from: defaults < config file < environment variables < command-line options.

Owns that order, how the config file is read, and the one sentence that a mistake becomes. What can be set is
`app.settings.settings`'. Must not create anything on disk.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from platformdirs import user_config_path, user_data_path
from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from app.settings.settings import ENVIRONMENT_PREFIX, POSTGRES, SETTINGS, Settings
from app.system.clock import NOW_VARIABLE

_PROFILES: dict[str, dict[str, str]] = {"embedded": {}, "self-hosted": {}, "powersync-cloud": {}}
_NEED_A_BACKEND = ("self-hosted", "powersync-cloud")


class SettingsError(Exception):
    """A setting cannot be used. The message is one sentence: where, which key, what was expected."""


def load_settings(config: Path | None = None, options: Mapping[str, object] | None = None) -> Settings:
    """The settings of this run.

    Args:
        config: the config file to read, which must exist; None for the user's own, which need not exist.
        options: settings given on the command line, by setting name; those with the value None are ignored.

    Raises:
        SettingsError: a file, a variable or an option cannot be used.
    """
    given = {key: value for key, value in (options or {}).items() if value is not None}
    path = default_config_path() if config is None else config
    in_file = _read_file(path, required=config is not None)
    _refuse_unknown_variables()
    # `Settings` could read the environment itself, but then an error could not name the variable.
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
            where = f"Option {SETTINGS[key].option}"
        elif key in in_environment:
            where = f"Environment variable {SETTINGS[key].variable}"
        else:
            where = f"Config file {path}: {key}"
        raise SettingsError(f"{where} must be {SETTINGS[key].expected}.") from None
    signs_in = settings.sign_in_key is not None and settings.backend_url is not None
    if signs_in and "user_id" not in settings.model_fields_set:
        raise SettingsError("sign_in_key needs user_id: whose lists it opens (see todo-tui backend user list).")
    return settings


def _profile(path: Path, in_file: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """What a profile sets: with whom lists are synced, and a data directory of its own."""
    if name is None:
        return {}
    tables: Mapping[str, Mapping[str, str]] = in_file.get("profiles", {})
    if name not in _PROFILES and name not in tables:
        raise SettingsError(f"There is no profile {name!r}{_nearest(str(name), {**_PROFILES, **tables})}")
    values: dict[str, Any] = {**_PROFILES.get(name, {}), **tables.get(name, {})}
    if name in _NEED_A_BACKEND and "backend_url" not in values:
        raise SettingsError(f"Config file {path}: the profile {name} needs a backend_url, in [profiles.{name}].")
    if "data_dir" not in values and name != "embedded":
        # The lists of a data directory belong to one backend for good.
        base = in_file.get("data_dir") or user_data_path("todo-tui", appauthor=False)
        values["data_dir"] = str(Path(base) / "profiles" / str(name))
    return {"backend_url": None, "service_url": None, "sign_in_key": None, **values}


def default_config_path() -> Path:
    """The path of the user's own config file, which need not exist."""
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
        raise SettingsError(f"Config file {path} is not valid UTF-8.") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = max(1, len(text.splitlines()))
        problem = str(error).replace("at end of document", f"at line {line}, the last one")
        raise SettingsError(f"Config file {path} is not valid TOML: {problem}.") from None
    except (ValueError, RecursionError):
        # The parser fails for numbers of thousands of digits, and for thousands of nested brackets.
        raise SettingsError(f"Config file {path} is not valid TOML: a value in it is too large.") from None

    _check_keys(path, values)
    _check_profiles(path, values.get("profiles", {}))
    for key in {"data_dir", "sync_config", "database"} & values.keys():
        if key != "database" or not values[key].startswith(POSTGRES):
            values[key] = _beside(path, values[key])
    return values


def _check_keys(path: Path, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key not in SETTINGS:
            raise SettingsError(f"Config file {path} has an unknown key {key!r}{_nearest(key, SETTINGS)}")
        if type(value) is not SETTINGS[key].toml:
            raise SettingsError(f"Config file {path}: {key} must be {SETTINGS[key].expected}, not {_toml_type(value)}.")


def _check_profiles(path: Path, profiles: dict[str, Any]) -> None:
    allowed = [key for key, setting in SETTINGS.items() if setting.in_profile]
    for name, table in profiles.items():
        if not isinstance(table, dict):
            raise SettingsError(f"Config file {path}: profiles.{name} must be a table of text.")
        values = cast("dict[str, Any]", table)
        if any(type(value) is not str for value in values.values()):
            raise SettingsError(f"Config file {path}: profiles.{name} must be a table of text.")
        for key in values:
            if key not in allowed:
                nearest = _nearest(key, allowed)
                raise SettingsError(f"Config file {path} has an unknown key {key!r} in profiles.{name}{nearest}")
        if "data_dir" in values:
            values["data_dir"] = _beside(path, values["data_dir"])


def _beside(path: Path, text: str) -> str:
    """An absolute path: a relative one counts from the file, wherever todo-tui is started."""
    expanded = os.path.expanduser(text)  # noqa: PTH111 - pathlib's fails for an unknown user
    return expanded and str(path.parent.absolute() / expanded)


def _refuse_unknown_variables() -> None:
    known = [setting.variable for setting in SETTINGS.values()]
    for name in sorted(os.environ):
        if name.upper().startswith(ENVIRONMENT_PREFIX) and name.upper() not in {*known, NOW_VARIABLE}:
            raise SettingsError(f"Environment variable {name} is not a setting{_nearest(name.upper(), known)}")


def _nearest(key: str, known: Iterable[str]) -> str:
    names = list(known)
    matches = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}?" if matches else f"; the known ones are {', '.join(names)}."


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
