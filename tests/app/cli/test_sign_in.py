"""Signing in by the command line: a key is made, kept, used, and refused when it is gone."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.app.cli.test_cli import backend_process, refused, run, terminal, until_remembered
from tests.app.commands import PROGRAM


def test_from_a_key_to_a_list(environment: dict[str, str], tmp_path: Path) -> None:
    database, data_dir = tmp_path / "b.db", tmp_path / "data"
    made = run(environment, "backend", "--database", database, "user", "add", "laptop")
    assert made.returncode == 0, made
    key = made.stdout.strip()
    assert key.startswith("laptop:")
    assert "not shown again" in made.stderr
    sentence = refused(run(environment, "backend", "--database", database, "user", "add", "laptop"), 2)
    assert "The user laptop already exists" in sentence
    listed = run(environment, "backend", "--database", database, "user", "list")
    name, user_id = listed.stdout.split()
    assert name == "laptop"
    with backend_process(environment, "--port", 0, "--database", database) as (_, url):
        wrong = run(environment, "--data-dir", data_dir, "login", url, text="laptop:guess\n")
        assert "The sign-in key is unknown or has been removed" in refused(wrong, 1)
        assert "not a valid sign-in key" in refused(
            run(environment, "--data-dir", data_dir, "login", url, text="x\n"), 1
        )
        assert not (data_dir / "sign-in.json").exists()
        signed = run(environment, "--data-dir", data_dir, "login", url, text=f"{key}\n")
        assert signed.returncode == 0, signed
        assert user_id in signed.stderr
        kept = data_dir / "sign-in.json"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert json.loads(kept.read_text())[url]["user_id"] == user_id
        other = "11111111-1111-4111-8111-111111111111"
        with terminal(environment, PROGRAM, "--data-dir", data_dir, "--backend", url, "--user", other) as shown:
            assert shown.read_to_end() == 1
            assert b"You are signed in at" in shown.output
        with terminal(environment, PROGRAM, "--data-dir", data_dir, "--backend", url) as shown:
            until_remembered(shown, data_dir, "backend_url")
            shown.process.send_signal(signal.SIGTERM)
            assert shown.read_to_end() == 128 + signal.SIGTERM
        assert json.loads((data_dir / "backend.json").read_text())["user_id"] == user_id
        removed = run(environment, "backend", "--database", database, "user", "remove", "laptop")
        assert removed.returncode == 0
        assert "The sign-in key is unknown or has been removed" in refused(
            run(environment, "--data-dir", data_dir, "login", url, text=f"{key}\n"), 1
        )
    log = (data_dir / "todo-tui.log").read_text()
    assert key.partition(":")[2] not in log


def test_a_key_in_the_keyring(environment: dict[str, str], tmp_path: Path) -> None:
    database, data_dir, keyring = tmp_path / "b.db", tmp_path / "data", tmp_path / "keyring.json"
    key = run(environment, "backend", "--database", database, "user", "add", "laptop").stdout.strip()
    ours = environment | {
        "PYTHON_KEYRING_BACKEND": "tests.kit.file_keyring.FileKeyring",
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "TEST_KEYRING": str(keyring),
    }
    secret = key.partition(":")[2]
    with backend_process(environment, "--port", 0, "--database", database) as (_, url):
        named = ("--data-dir", data_dir, "--backend", url)
        assert run(ours, "--data-dir", data_dir, "login", "--keyring", url, text=f"{key}\n").returncode == 0
        assert secret in keyring.read_text()
        assert secret not in (data_dir / "sign-in.json").read_text()
        assert run(ours, *named, "add", "Milk").returncode == 0
        assert run(ours, *named, "sync", "--wait", 20).returncode == 0
        # Locked, or gone: a sentence, and the lists stay as they are.
        keyring.unlink()
        assert "✗ token: The keyring no longer has a key for" in run(ours, *named, "doctor").stdout
        assert "sign in again with todo-tui login" in refused(run(ours, *named, "add", "x"), 1)
        keyring.mkdir()
        assert "The keyring did not return the key: it is locked; unlock it" in refused(
            run(ours, *named, "add", "x"), 1
        )
        assert "did not store the key" in refused(
            run(ours, "--data-dir", data_dir, "login", "--keyring", url, text=f"{key}\n"), 1
        )
        keyring.rmdir()
        assert run(ours, "--data-dir", data_dir, "login", url, text=f"{key}\n").returncode == 0
        assert not keyring.exists()
        assert run(ours, *named, "sync", "--wait", 20).returncode == 0


def test_a_key_from_the_environment(environment: dict[str, str], tmp_path: Path) -> None:
    database, data_dir = tmp_path / "b.db", tmp_path / "data"
    key = run(environment, "backend", "--database", database, "user", "add", "laptop").stdout.strip()
    user_id = run(environment, "backend", "--database", database, "user", "list").stdout.split()[1]
    with backend_process(environment, "--port", 0, "--database", database) as (_, url):
        ours = environment | {"TODO_TUI_BACKEND_URL": url, "TODO_TUI_DATA_DIR": str(data_dir)}
        keyed = ours | {"TODO_TUI_SIGN_IN_KEY": key, "TODO_TUI_USER_ID": user_id}
        assert run(keyed, "add", "Milk").returncode == 0
        assert run(keyed, "sync", "--wait", 20).returncode == 0
        assert not (data_dir / "sign-in.json").exists()
        assert "✓ token" in run(keyed, "doctor").stdout
        wrong = run(keyed | {"TODO_TUI_SIGN_IN_KEY": "laptop:guess"}, "doctor").stdout
        assert "✗ token" in wrong
        assert "guess" not in wrong
        other = tmp_path / "other"
        stranger = {"TODO_TUI_USER_ID": "11111111-1111-4111-8111-111111111111", "TODO_TUI_DATA_DIR": str(other)}
        assert "✗ token" in run(keyed | stranger, "doctor").stdout
        del keyed["TODO_TUI_USER_ID"]
        assert "sign_in_key needs user_id" in refused(run(keyed, "lists"), 2)
        sentence = refused(run(ours | {"TODO_TUI_SIGN_IN_KEY": "no key"}, "lists"), 2)
        assert "Environment variable TODO_TUI_SIGN_IN_KEY must be a key" in sentence
        assert "no key" not in sentence


def test_without_a_keyring_the_way_on_is_told(environment: dict[str, str], tmp_path: Path) -> None:
    key = run(environment, "backend", "--database", tmp_path / "b.db", "user", "add", "laptop").stdout
    none = environment | {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    with backend_process(environment, "--port", 0, "--database", tmp_path / "b.db") as (_, url):
        done = run(none, "--data-dir", tmp_path / "data", "login", "--keyring", url, text=key)
        assert "sign in without --keyring" in refused(done, 1)
        assert not (tmp_path / "data" / "sign-in.json").exists()


def test_with_mine_a_key_opens_the_lists_of_this_machine(environment: dict[str, str], tmp_path: Path) -> None:
    user = "22222222-2222-4222-8222-222222222222"
    run(environment, "--user", user, "backend", "--database", tmp_path / "b.db", "user", "add", "me", "--mine")
    listed = run(environment, "backend", "--database", tmp_path / "b.db", "user", "list")
    assert listed.stdout.split() == ["me", user]
    sentence = refused(run(environment, "backend", "--database", tmp_path / "b.db", "user", "remove", "you"), 1)
    assert "There is no user you" in sentence


def test_open_to_all_is_said(environment: dict[str, str], tmp_path: Path) -> None:
    with backend_process(environment, "--open", "--port", 0, "--database", tmp_path / "b.db") as (process, _):
        assert process.stderr is not None
        assert "Anybody who can reach this backend is accepted as any user" in process.stderr.readline()
