"""Settings: their order, their example file, and one clear sentence for each mistake."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import click
import pytest

from app.cli.main import command_line
from app.cli.setting_options import SETTING_OPTIONS
from app.settings.settings import DEFAULT_USER_ID, SETTINGS, Settings, json_schema
from app.settings.sources import SettingsError, default_config_path, load_settings

EXAMPLE = Path(__file__).parents[3] / "config.example.toml"
OTHER_USER = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("TODO_TUI_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)


def config_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text, "utf-8")
    return path


def mistake(config: Path | None = None, **options: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(config, options)
    sentence = str(caught.value)
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence
    assert "pydantic" not in sentence
    return sentence


def test_defaults(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.data_dir.is_relative_to(tmp_path)
    assert settings.data_dir.name == "todo-tui"
    assert settings.backend_url is None
    assert settings.service_url is None
    assert settings.user_id == DEFAULT_USER_ID
    assert settings.port == 6161


def test_each_source_overrides_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config_file(tmp_path, f'port = 1001\nuser_id = "{OTHER_USER}"\nbackend_url = "https://file.example"\n')
    monkeypatch.setenv("TODO_TUI_PORT", "1002")
    monkeypatch.setenv("TODO_TUI_BACKEND_URL", "https://environment.example/")
    settings = load_settings(path, {"port": "1003", "user_id": None})
    assert settings.port == 1003
    assert settings.backend_url == "https://environment.example"
    assert str(settings.user_id) == OTHER_USER
    assert load_settings(path).port == 1002


def test_the_users_own_config_file_is_read(tmp_path: Path) -> None:
    path = default_config_path()
    assert path.is_relative_to(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("port = 1001\n")
    assert load_settings().port == 1001
    assert load_settings(config_file(tmp_path, "")).port == 6161


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TODO_TUI_PORT", "")
    assert load_settings().port == 6161


def test_paths_are_absolute_and_know_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_settings(options={"data_dir": "~/lists"}).data_dir == tmp_path / "lists"
    assert load_settings(options={"data_dir": "lists"}).data_dir == elsewhere / "lists"
    path = config_file(tmp_path, 'data_dir = "lists"')
    assert load_settings(path).data_dir == tmp_path / "lists", "a relative path in a file counts from the file"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prot = 1\n", ("unknown key 'prot'", "did you mean port?")),
        ("backend-url = ''\n", ("unknown key 'backend-url'", "did you mean backend_url?")),
        (
            "zzz = 1\n",
            (
                "unknown key 'zzz'",
                "data_dir, backend_url, upload_interface, checkpoint_mode, service_url, sign_in_key, user_id, port",
            ),
        ),
        ("[profil]\nname = 'x'\n", ("unknown key 'profil'",)),
        ("port = '6161'\n", ("port must be a whole number", "not text in quotes")),
        ("port = true\n", ("port must be a whole number", "not true or false")),
        ("port = 6161.5\n", ("port must be a whole number", "not a number")),
        ("port = 65536\n", ("port must be a whole number from 1 to 65535",)),
        ("port = 0\n", ("port must be a whole number from 1 to 65535",)),
        ("data_dir = 5\n", ("data_dir must be the path of a directory", "not a number")),
        ("data_dir = ''\n", ("data_dir must be the path of a directory",)),
        ("data_dir = 1979-05-27\n", ("data_dir must be", "not a date")),
        ("upload_interface = 'row'\n", ('upload_interface must be "batch", "transactions" or "rows"',)),
        ("user_id = 'me'\n", ("user_id must be a UUID",)),
        ("backend_url = ['x']\n", ("backend_url must be an http:// or https:// address", "not a list")),
        ("backend_url = 'ftp://x'\n", ("backend_url must be an http:// or https:// address",)),
        ("backend_url = 'http://'\n", ("backend_url must be an http:// or https:// address",)),
        ("backend_url = 'http://x:99999'\n", ("backend_url must be an http:// or https:// address",)),
        ("service_url = 'localhost:6161'\n", ("service_url must be an http:// or https:// address",)),
        ("port = 1\nport = \n", ("not valid TOML", "line 2")),
        ("port = 1\n\nuser_id = '", ("not valid TOML", "line 3")),
        ("a = " + "[" * 10_000, ("not valid TOML", "too large")),
        ("port = " + "1" * 10_000, ("not valid TOML", "too large")),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    path = config_file(tmp_path, text)
    sentence = mistake(path)
    assert str(path) in sentence
    for part in expected:
        assert part in sentence


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "does not exist" in mistake(tmp_path / "no.toml")
    assert "cannot be read" in mistake(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert "not valid UTF-8" in mistake(binary)


def test_a_mistake_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TODO_TUI_PORT", "soon")
    assert mistake(config_file(tmp_path, "port = 7")).startswith("Environment variable TODO_TUI_PORT must be a whole")
    monkeypatch.delenv("TODO_TUI_PORT")
    monkeypatch.setenv("TODO_TUI_PROT", "7")
    assert mistake() == "Environment variable TODO_TUI_PROT is not a setting; did you mean TODO_TUI_PORT?"


def test_a_mistake_in_an_option_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TODO_TUI_PORT", "7")
    assert mistake(port="x").startswith("Option --port must be a whole number")
    assert mistake(user_id="x").startswith("Option --user must be a UUID")
    assert mistake(backend_url="x").startswith("Option --backend must be an http:// or https:// address")
    assert mistake(data_dir="").startswith("Option --data-dir must be the path")


def test_a_user_may_have_a_number_instead_of_a_uuid(tmp_path: Path) -> None:
    assert str(load_settings(config_file(tmp_path, 'user_id = "1"\n')).user_id) == "1"
    assert str(load_settings(options={"user_id": OTHER_USER.upper().replace("-", "")}).user_id) == OTHER_USER
    for wrong in ("0", "01", "-1", "1\n", "1.5", "9" * 19):
        assert mistake(user_id=wrong).endswith("or a positive whole number.")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("HTTP://Example.ORG:80/", "http://example.org"),
        ("https://example.org:443/Base//", "https://example.org/Base"),
        ("https://example.org:80", "https://example.org:80"),
        ("http://example.org:6060/?", "http://example.org:6060"),
        ("http://[::1]:6161", "http://[::1]:6161"),
    ],
)
def test_an_address_has_one_spelling(given: str, kept: str) -> None:
    assert load_settings(options={"backend_url": given}).backend_url == kept


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    assert "hunter2" not in mistake(backend_url="http://me:hunter2@host.example")


def test_the_example_is_complete_and_changes_nothing_as_it_is() -> None:
    text = EXAMPLE.read_text("utf-8")
    documented = re.findall(r"^#\[?(\w+)(?: = |\]$|\.)", text, flags=re.MULTILINE)
    assert list(dict.fromkeys(documented)) == list(Settings.model_fields)
    for key in Settings.model_fields:
        assert f"TODO_TUI_{key.upper()}" in text
    assert load_settings(EXAMPLE) == load_settings()


def test_the_example_is_valid_and_gives_the_defaults_when_taken_in(tmp_path: Path) -> None:
    text = EXAMPLE.read_text("utf-8").replace('#profile = "embedded"', "")
    text = re.sub(r"^#(?=(?:\w+|\"[\w.]+\") = |\[)", "", text, flags=re.MULTILINE)
    settings = load_settings(config_file(tmp_path, text))
    assert (settings.port, settings.user_id) == (load_settings().port, DEFAULT_USER_ID)
    assert settings.data_dir == tmp_path / ".local/share/todo-tui"
    assert settings.backend_url == settings.service_url == "http://127.0.0.1:6161"


# Profiles


PROFILES = """
backend_url = "http://top.example"
[profiles.self-hosted]
backend_url = "https://todo.example.com"
user_id = "00000000-0000-4000-8000-000000000001"
upload_interface = "transactions"
checkpoint_mode = "backend"
[profiles.mine]
backend_url = "http://mine.example"
data_dir = "mine"
"""
KEY = 'sign_in_key = "laptop:9f3k"\nuser_id = "7"\n'


def test_a_profile_switches_everything_about_the_backend_together(tmp_path: Path) -> None:
    file = config_file(tmp_path, PROFILES)
    assert load_settings(file).backend_url == "http://top.example"
    chosen = load_settings(file, {"profile": "self-hosted"})
    assert (chosen.backend_url, chosen.upload_interface, chosen.checkpoint_mode, str(chosen.user_id)) == (
        "https://todo.example.com",
        "transactions",
        "backend",
        OTHER_USER,
    )
    assert chosen.data_dir == tmp_path / ".local/share/todo-tui/profiles/self-hosted"
    mine = load_settings(file, {"profile": "mine"})
    assert (mine.backend_url, mine.data_dir) == ("http://mine.example", tmp_path / "mine")
    embedded = load_settings(file, {"profile": "embedded"})
    assert (embedded.backend_url, embedded.data_dir) == (None, tmp_path / ".local/share/todo-tui")


def test_a_key_goes_with_its_backend_only(tmp_path: Path) -> None:
    file = config_file(tmp_path, KEY + PROFILES + 'sign_in_key = "me:secret"\nuser_id = "8"\n')
    assert load_settings(file).sign_in_key == "laptop:9f3k"
    assert load_settings(file, {"profile": "self-hosted"}).sign_in_key is None
    mine = load_settings(file, {"profile": "mine"})
    assert (mine.sign_in_key, mine.user_id) == ("me:secret", "8")
    assert "secret" not in repr(mine)
    assert "9f3k" not in repr(load_settings(file))


def test_what_is_named_goes_before_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = config_file(tmp_path, PROFILES)
    monkeypatch.setenv("TODO_TUI_PROFILE", "mine")
    monkeypatch.setenv("TODO_TUI_BACKEND_URL", "http://named.example")
    assert load_settings(file).backend_url == "http://named.example"
    assert load_settings(file, {"backend_url": "http://option.example"}).backend_url == "http://option.example"
    assert load_settings(file).data_dir == tmp_path / "mine"


@pytest.mark.parametrize(
    ("text", "profile", "told"),
    [
        ("", "self-hosted", "the profile self-hosted needs its backend_url, in [profiles.self-hosted]."),
        ("", "slef-hosted", "There is no profile 'slef-hosted'; did you mean self-hosted?"),
        ("[profiles.x]\nport = '1'", "x", "unknown key 'port' in profiles.x"),
        ("[profiles.x]\nbackend_url = 1", "x", "profiles.x must be a table of text."),
        ("profiles = 1", None, "profiles must be tables of text, one for each profile, not a number."),
        ("[profiles.x]\nbackend_url = 'ftp://a'", "x", "backend_url must be an http:// or https:// address"),
    ],
)
def test_a_profile_that_cannot_be_used_is_told(tmp_path: Path, text: str, profile: str | None, told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(config_file(tmp_path, text), {"profile": profile})
    assert told in str(raised.value)


def test_every_setting_has_its_words_and_its_example_sets_it() -> None:
    assert list(SETTINGS) == list(Settings.model_fields)
    for name, setting in SETTINGS.items():
        values = tomllib.loads(setting.example)
        assert list(values) == [name]
        assert type(values[name]) is setting.toml
        assert setting.summary.endswith("."), name
        assert setting.expected, name
        assert setting.option_help or not setting.option, name


def test_the_options_of_the_command_line_are_those_of_the_settings() -> None:
    context = click.Context(command_line)
    commands = {"todo-tui": command_line, "todo-tui backend": command_line.get_command(context, "backend")}
    expected = {name: setting for name, setting in SETTINGS.items() if setting.option}
    assert list(SETTING_OPTIONS) == list(expected)
    for name, setting in expected.items():
        command = commands[setting.option_of]
        assert command is not None
        (option,) = (each for each in command.params if each.name == name)
        assert isinstance(option, click.Option)
        assert (option.opts, option.metavar, option.help) == ([setting.option], setting.metavar, setting.option_help)


def test_the_schema_for_editors_is_the_one_that_is_published() -> None:
    published = json.loads((EXAMPLE.parent / "docs" / "config.schema.json").read_text("utf-8"))
    assert published == json_schema()
    assert published["properties"].keys() == Settings.model_fields.keys()
