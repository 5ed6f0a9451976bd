"""What can be set, field by field: type, default, words and validation.

Owns the names of the settings and everything that is said about them. Where values come from is
`app.settings.sources`'. Must not import the interface, the engine or the backend.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

from platformdirs import user_data_path
from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.settings.keymap import Keymap, KeymapError, Preset
from app.system.sign_in_keys import parse_key

ENVIRONMENT_PREFIX = "TODO_TUI_"

# Without further settings, every todo-tui of a machine shows the same lists.
DEFAULT_USER_ID = UUID("6f0d5c1e-8a43-4d0b-9d0e-3c1b7a52e4f9")

POSTGRES = ("postgresql://", "postgres://")
"""How the address of a PostgreSQL database begins."""

_ADDRESS = (
    "an http:// or https:// address such as http://127.0.0.1:6161, without user name, password, query or fragment"
)
_UserNumber = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,17}$")]
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The words of one setting. Messages, `--help`, `config.example.toml` and the pages of docs/ are made from them.

    More than five fields, all of them text for one place each.

    Attributes:
        summary: what it is, in a few words.
        details: what else one has to know to set it, in sentences.
        example: the lines of TOML that set it in the example file.
        expected: what a value has to be, to go after "must be".
        default: what holds when it is not set, where the example shows something else.
        option: the command-line option that sets it, if there is one.
        metavar: what `--help` calls the option's value.
        option_of: the command that has this option.
        option_help: what `--help` says about it.
        toml: the type of the value in the config file.
        in_profile: whether a profile can set it.
        variable: the environment variable that sets it; known once the setting is in `SETTINGS`.
    """

    summary: str
    details: str = ""
    example: str
    expected: str
    default: str = ""
    option: str = ""
    metavar: str = ""
    option_of: str = "todo-tui"
    option_help: str = ""
    toml: type = str
    in_profile: bool = False
    variable: str = ""


class Settings(BaseSettings):
    """All settings, validated. Make one with `app.settings.sources.load_settings`, which knows where they come from.

    The annotations tell what each of them is. Addresses have one spelling, and paths are absolute. `sign_in_key`,
    `database` and `profiles` may hold secrets.
    """

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    profile: Annotated[
        str | None,
        Setting(
            summary="The profile to use.",
            details="A profile decides with whom lists are synced: its values override those outside of its "
            "table, and it has a data directory of its own.",
            example='profile = "embedded"',
            expected="the name of a profile",
            default="none",
            option="--profile",
            metavar="NAME",
            option_help="Use the backend, user and data directory of this profile.",
        ),
    ] = None
    data_dir: Annotated[
        Path,
        Setting(
            summary="Directory of the database, the log, and the data of the backend inside todo-tui.",
            details="A relative path counts from the directory of the config file.",
            example='data_dir = "~/.local/share/todo-tui"',
            expected="the path of a directory",
            default="your user data directory, on Linux `~/.local/share/todo-tui`",
            option="--data-dir",
            metavar="DIR",
            option_help="Keep the data in this directory.",
            in_profile=True,
        ),
    ] = Field(default_factory=lambda: user_data_path("todo-tui", appauthor=False))
    backend_url: Annotated[
        str | None,
        Setting(
            summary="Address of the backend, which accepts changes and issues tokens.",
            example='backend_url = "http://127.0.0.1:6161"',
            expected=_ADDRESS,
            default="the demo backend inside todo-tui",
            option="--backend",
            metavar="URL",
            option_help="Sync with the backend at this address.",
            in_profile=True,
        ),
    ] = None
    upload_interface: Annotated[
        Literal["batch", "transactions", "rows"],
        Setting(
            summary="The upload API of the backend.",
            details='"batch" for PowerSync\'s Node.js demo backend, "transactions" for its reference write API, or '
            '"rows" for its Django demo backend. Not used without backend_url.',
            example='upload_interface = "batch"',
            expected='"batch", "transactions" or "rows"',
            in_profile=True,
        ),
    ] = "batch"
    checkpoint_mode: Annotated[
        Literal["service", "backend"],
        Setting(
            summary="Who issues write checkpoints.",
            details='"service", or "backend" if the sync config of the PowerSync Service uses custom write '
            "checkpoints. Not used without backend_url.",
            example='checkpoint_mode = "service"',
            expected='"service" or "backend"',
            in_profile=True,
        ),
    ] = "service"
    service_url: Annotated[
        str | None,
        Setting(
            summary="Address of the PowerSync Service.",
            example='service_url = "http://127.0.0.1:6161"',
            expected=_ADDRESS,
            default="the address that the backend returns with each token",
            in_profile=True,
        ),
    ] = None
    sign_in_key: Annotated[
        str | None,
        Setting(
            summary="The key to sign in at the backend with, as printed by `todo-tui backend user add`.",
            details="It needs user_id. Prefer `todo-tui login`, which stores the key elsewhere, or the environment "
            "variable: nobody else should be able to read a config file with a key.",
            example='sign_in_key = "laptop:9f3kP2"',
            expected="a key as printed by todo-tui backend user add, such as laptop:9f3k…",
            default="the key stored by `todo-tui login`, if there is one",
            in_profile=True,
        ),
    ] = Field(default=None, repr=False)
    user_id: Annotated[
        UUID | _UserNumber,
        Setting(
            summary="The user whose lists are shown and synced.",
            details='A UUID, or a number such as "1" with PowerSync\'s Django demo backend. The same user sees the '
            "same lists everywhere.",
            example=f'user_id = "{DEFAULT_USER_ID}"',
            expected=f"a UUID such as {DEFAULT_USER_ID}, or a positive whole number",
            default="the user who is signed in at the backend, else a user that all have in common",
            option="--user",
            metavar="ID",
            option_help="Show and sync the lists of this user (a UUID or a number).",
            in_profile=True,
        ),
    ] = DEFAULT_USER_ID
    port: Annotated[
        int,
        Setting(
            summary="Port of the demo backend inside todo-tui, which listens on this machine only.",
            details="Not used with backend_url.",
            example="port = 6161",
            expected="a whole number from 1 to 65535",
            option="--port",
            metavar="N",
            option_help="Port of the demo backend inside todo-tui.  [default: 6161]",
            toml=int,
        ),
    ] = Field(default=6161, ge=1, le=65535)
    keymap: Annotated[
        Preset,
        Setting(
            summary="The set of keys to start from.",
            details='"default", "vim" (more like vi) or "plain" (arrows and function keys instead of letters). `?` in '
            "todo-tui shows the keys in use.",
            example='keymap = "default"',
            expected='"default", "vim" or "plain"',
        ),
    ] = "default"
    reduced_motion: Annotated[
        bool,
        Setting(
            summary="Turns off smooth scrolling and blinking.",
            example="reduced_motion = false",
            expected="true or false",
            toml=bool,
        ),
    ] = False
    database: Annotated[
        str | None,
        Setting(
            summary="Where `todo-tui backend` keeps the lists: a file or a PostgreSQL database (docs/self-hosting.md).",
            details="Use the environment variable for an address with a password, or let nobody else read the config "
            "file. Not used by the backend inside todo-tui.",
            example='database = "postgresql://user:password@127.0.0.1:5432/todo"',
            expected="the path of a file, or an address postgresql://…",
            default="`backend.db` in the data directory",
            option="--database",
            metavar="FILE|URL",
            option_of="todo-tui backend",
            option_help="Keep the lists in this file, or in PostgreSQL (postgresql://…).  "
            "[default: backend.db in the data directory]",
        ),
    ] = Field(default=None, repr=False)
    sync_config: Annotated[
        Path | None,
        Setting(
            summary="The sync config of `todo-tui backend`: which rows each user syncs (docs/sync-config.md).",
            details="Not used by the backend inside todo-tui. A relative path counts from the directory of the config "
            "file.",
            example='sync_config = "sync-config.yaml"',
            expected="the path of a file",
            default="each user syncs their own lists",
            option="--sync-config",
            metavar="FILE",
            option_of="todo-tui backend",
            option_help="Take the sync config from this file.  [default: each user syncs their own lists]",
        ),
    ] = None
    keys: Annotated[
        dict[str, str | list[str]],
        Setting(
            summary="Other keys for single actions, by the id of the action (docs/keys.md).",
            details="One key or several; [] for none. Tables have to be at the end of the config file.",
            example='[keys]\n"todos.toggle_todo" = ["x", "ctrl+d"]\n"anywhere.jump" = "ctrl+k"',
            expected="a table of actions, each with a key or a list of keys",
            default="the keys of the keymap",
            toml=dict,
        ),
    ] = Field(default_factory=dict[str, "str | list[str]"])
    profiles: Annotated[
        dict[str, dict[str, str]],
        Setting(
            summary="Profiles, by name.",
            details='"embedded" is the backend inside todo-tui; "self-hosted" and "powersync-cloud" need a '
            "backend_url. Each can set {in_profile}. If it does not set data_dir, that is profiles/NAME in the data "
            "directory.",
            example='[profiles.self-hosted]\nbackend_url = "https://todo.example.com"',
            expected="tables of text, one for each profile",
            default="`embedded`, `self-hosted` and `powersync-cloud`",
            toml=dict,
        ),
    ] = Field(default_factory=dict[str, "dict[str, str]"], repr=False)

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


def _words() -> Mapping[str, Setting]:
    words: dict[str, Setting] = {}
    for name, field in Settings.model_fields.items():
        (setting,) = (each for each in field.metadata if isinstance(each, Setting))
        words[name] = replace(setting, variable=f"{ENVIRONMENT_PREFIX}{name.upper()}")
    in_profile = [name for name, setting in words.items() if setting.in_profile]
    details = words["profiles"].details.format(in_profile=f"{', '.join(in_profile[:-1])} and {in_profile[-1]}")
    return words | {"profiles": replace(words["profiles"], details=details)}


SETTINGS: Final = _words()
"""The words of all settings, by name."""


def json_schema() -> dict[str, Any]:
    """A JSON schema of the config file."""
    schema = Settings.model_json_schema()
    schema["title"] = "Settings of todo-tui"
    schema["description"] = "The config file of todo-tui; config.example.toml explains each key."
    for name, setting in SETTINGS.items():
        schema["properties"][name]["description"] = " ".join(f"{setting.summary} {setting.details}".split())
    return schema
