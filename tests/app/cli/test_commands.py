"""The commands through the real entry point: what they print, what they leave, and how they fail."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.app.backend.harness import free_port
from tests.app.cli.test_cli import Terminal, backend_process, refused
from tests.app.commands import PROGRAM, WAIT_SECONDS, Run, data, out


def texts(run: Run, *arguments: object) -> list[str]:
    return [todo["text"] for todo in data(run, "list", "--json", *arguments)]


def test_a_to_do_from_adding_to_deleting(run: Run):
    added = run("add", "Pay", "rent", "2026-12-01", "9am", "p1", "#home", "every month")
    todo_id = out(added)
    assert added.stderr == "Added 1 to-do to To-dos: due Tue 1 Dec 2026 at 09:00 · priority 1 · #home · every month.\n"
    (todo,) = data(run, "list", "--json")
    assert todo["id"] == todo_id
    assert todo["text"] == "Pay rent due:2026-12-01T09:00 p1 #home rec:1m"
    assert (todo["title"], todo["due"], todo["priority"], todo["tags"]) == ("Pay rent", "2026-12-01T09:00", 1, ["home"])
    assert out(run("list")).startswith(f"{todo_id[:8]} [ ] Pay rent  To-dos  #home  ↻  p1  ")
    assert "list:         To-dos" in out(run("show", todo_id[:6]))
    assert data(run, "show", todo_id, "--json")["list"] == "To-dos"
    assert run("done", "rent").stderr == "Completed “Pay rent”.\n"
    assert texts(run) == ["Pay rent due:2027-01-01T09:00 p1 #home rec:1m"]
    assert texts(run, "--done") == ["Pay rent due:2026-12-01T09:00 p1 #home rec:1m"]
    assert run("undo").stderr == "Undone: Completed “Pay rent”.\n"
    assert run("redo").stderr == "Redone: Completed “Pay rent”.\n"
    assert run("undo").returncode == 0
    out(run("edit", todo_id[:8], "Pay", "the", "rent", "tom"))
    assert data(run, "show", todo_id, "--json")["title"] == "Pay the rent"
    out(run("rm", todo_id[:8]))
    assert texts(run, "--all") == []
    out(run("undo"))
    assert len(texts(run)) == 1


def test_lists_are_named_by_a_part(run: Run):
    for name in ("Groceries", "House and garden", "Holidays"):
        out(run("lists", "add", name))
    out(run("add", "-l", "groc", "Milk"))
    out(run("add", "-l", "garden", "Paint"))
    out(run("move", "Milk", "-l", "holi"))
    assert texts(run, "Holidays") == ["Milk"]
    assert [(each["name"], each["open"]) for each in data(run, "lists", "--json")] == [
        ("Groceries", 0),
        ("House and garden", 1),
        ("Holidays", 1),
    ]
    assert "Several lists match 'ho'; did you mean one of: House and garden, Holidays?" in refused(run("list", "ho"), 1)
    assert "There is no list 'Grocerys'; did you mean one of: Groceries?" in refused(run("list", "Grocerys"), 1)
    assert "There is no list 'zzz'" in refused(run("list", "zzz"), 1)
    out(run("lists", "rename", "groc", "Food"))
    out(run("lists", "rm", "Food"))
    assert [each["name"] for each in data(run, "lists", "--json")] == ["House and garden", "Holidays"]


def test_to_dos_are_found_by_words_and_never_guessed_without_a_terminal(run: Run):
    out(run("add", "-", text="Buy milk\nBuy bread\n\nRead tomorrow\n"))
    assert texts(run) == ["Buy milk", "Buy bread", "Read tomorrow"]
    out(run("done", "milk"))
    assert run("done", "buy").stderr == "Completed “Buy bread”.\n"
    out(run("add", "-", text="Buy oil\nBuy salt\n"))
    assert "Several to-dos match 'buy'; did you mean one of:" in refused(run("done", "buy"), 1)
    assert "There is no to-do 'zzz'" in refused(run("done", "zzz"), 1)


def test_a_question_is_asked_on_a_terminal(run: Run, environment: dict[str, str], data_dir: Path):
    out(run("add", "-", text="Buy milk\nBuy bread\n"))
    terminal = Terminal({**environment, "TODO_TUI_DATA_DIR": str(data_dir)}, PROGRAM, "done", "buy")
    try:
        terminal.read_until(b"Number")
        os.write(terminal._master, b"2\n")
        assert terminal.read_to_end() == 0
    finally:
        terminal.close()
    assert texts(run) == ["Buy milk"]


def test_texts_are_printed_harmless(run: Run):
    out(run("add", "--plain", "\x1b[31mred\x07 \u202e"))
    printed = out(run("list"))
    assert "\x1b" not in printed
    assert "␛[31mred␇" in printed
    assert texts(run) == ["\x1b[31mred\x07 \u202e"]


def test_quiet_says_only_what_went_wrong(run: Run):
    assert run("-q", "add", "Milk").stderr == ""
    assert run("-q", "done", "milk").stderr == ""
    assert run("-q", "done", "zzz").stderr != ""


def test_status_and_queue_connect_to_nothing(run: Run):
    out(run("add", "Milk"))
    assert out(run("status")) == "1 open · 2 waiting"
    status = data(run, "status", "--json")
    assert (status["open"], status["waiting"], status["rejected"], status["last_synced_at"]) == (1, 2, 0, None)
    assert out(run("queue")).splitlines() == ["Add the list “To-dos”", "Add the to-do “Milk” to “To-dos”"]
    assert [len(each["changes"]) for each in data(run, "queue", "--json")] == [1, 1]
    assert out(run("rejected")) == ""
    assert data(run, "rejected", "export") == []


def test_sync_uploads_and_fetches_without_an_interface(run: Run, environment: dict[str, str], tmp_path: Path):
    with backend_process(environment, "--open", "--port", 0, "--database", tmp_path / "b.db") as (_, url):
        out(run("add", "Milk"))
        assert run("--backend", url, "sync", "--wait", 20).stderr == "Everything is synced.\n"
        assert data(run, "--backend", url, "status", "--json")["waiting"] == 0
        other = {"TODO_TUI_DATA_DIR": str(tmp_path / "other"), "TODO_TUI_BACKEND_URL": url}
        done = run("sync", "--wait", 20, **other)
        assert (done.returncode, done.stderr) == (0, "Everything is synced.\n")
        assert [todo["text"] for todo in json.loads(out(run("list", "--json", **other)))] == ["Milk"]


def test_sync_without_a_network_tells_what_waits(run: Run):
    out(run("add", "Milk"))
    done = run("--backend", "http://127.0.0.1:9", "sync", "--wait", 0.5)
    assert done.returncode == 4
    assert done.stderr.startswith("Not finished after 0.5 seconds: 2 changes wait to be uploaded.")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["json", "todo.txt", "markdown"])
def test_a_thousand_to_dos_come_back_from_each_format(run: Run, tmp_path: Path, name: str):
    lines = [
        f"Number {number} p{1 + number % 4} #t{number % 7} due:2026-12-{1 + number % 28:02}" for number in range(1000)
    ]
    names = ["One", "Two words", "#3 [x] (A)"]
    for part, list_name in enumerate(names):
        out(run("lists", "add", list_name))
        out(run("add", "-l", list_name, "-", text="\n".join(lines[part::3])))
    out(run("done", *(todo["id"] for todo in data(run, "list", "--json")[:30])))
    file = tmp_path / "out"
    out(run("export", file, "-f", name))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    fresh = {"TODO_TUI_DATA_DIR": str(tmp_path / "fresh")}
    done = run("import", file, "-f", name, **fresh)
    assert done.stderr == "Imported 1,000 to-dos in 3 lists.\n", done
    before, after = (
        [(todo["text"], todo["completed"]) for todo in json.loads(out(run("list", "--all", "--json", **environment)))]
        for environment in ({}, fresh)
    )
    assert sorted(before) == sorted(after)
    assert [each["name"] for each in json.loads(out(run("lists", "--json", **fresh)))] == [
        "One",
        "Two words",
        "#3 [x] (A)",
    ]
    out(run("undo", **fresh))
    assert json.loads(out(run("lists", "--json", **fresh))) == []


@pytest.mark.parametrize(
    ("arguments", "text", "code", "told"),
    [
        (["import", "-", "-f", "json"], "{", 1, "Line 1 is not valid JSON"),
        (["import", "-", "-f", "todo.txt"], "", 1, "contains no lists and no to-dos"),
        (["import", "-"], "x", 2, "Give the format of -"),
        (["import", "missing.json"], "", 1, "missing.json cannot be read: No such file or directory."),
        (["export", "/nowhere/x.json"], "", 1, "/nowhere/x.json cannot be written: No such file or directory."),
        (["add"], "", 2, "Missing argument"),
        (["add", " "], "", 2, "There is no text to add."),
        (["add", "x" * 10_001], "", 1, "longer than 10,000 characters"),
        (["list", "a", "--today"], "", 2, "Name a list or a view, not both."),
        (["edit", "a"], "", 1, "There is no to-do 'a'"),
        (["rejected", "retry", "1"], "", 2, "There is no rejected change 1"),
        (["dance"], "", 2, "No such command 'dance'"),
        (["completions", "tcsh"], "", 2, "'tcsh' is not one of"),
    ],
)
def test_wrong_input_is_one_sentence(run: Run, arguments: list[str], text: str, code: int, told: str):
    assert told in refused(run(*arguments, text=text), code)


def test_a_reader_that_has_enough_is_no_failure(run: Run, environment: dict[str, str], data_dir: Path):
    out(run("add", "-", text="\n".join(f"Number {number} {'x' * 200}" for number in range(2_000))))
    done = subprocess.run(
        ["sh", "-c", f"'{PROGRAM}' list --json 2>err | head -c 10 > /dev/null; cat err"],
        env={**environment, "TODO_TUI_DATA_DIR": str(data_dir)},
        cwd=data_dir,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.stdout == ""


def test_a_data_directory_that_cannot_be_made(run: Run, tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert "cannot be used" in refused(run("list", TODO_TUI_DATA_DIR=str(tmp_path / "file" / "data")), 1)


def test_a_database_that_is_none(run: Run, data_dir: Path):
    data_dir.mkdir()
    (data_dir / "todo.db").write_text("no database, " * 1000)
    assert "todo.db" in refused(run("list"), 1)
    found = run("doctor")
    assert found.returncode == 1
    assert "is damaged" in found.stdout


def test_a_file_that_another_program_holds(run: Run, data_dir: Path):
    out(run("add", "Milk"))
    with closing(sqlite3.connect(data_dir / "todo.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "todo.db cannot be opened: database is locked" in refused(run("add", "Bread"), 1)
        other.execute("ROLLBACK")
    out(run("add", "Bread"))
    assert texts(run) == ["Milk", "Bread"]


def test_what_a_command_adds_appears_in_the_open_interface(run: Run, environment: dict[str, str], data_dir: Path):
    out(run("add", "Milk"))
    own = {**environment, "TODO_TUI_DATA_DIR": str(data_dir), "TODO_TUI_BACKEND_URL": "http://127.0.0.1:9"}
    terminal = Terminal(own, PROGRAM)
    try:
        terminal.read_until(b"Milk")
        out(run("add", "Wholemeal bread", TODO_TUI_BACKEND_URL="http://127.0.0.1:9"))
        terminal.read_until(b"Wholemeal")
    finally:
        terminal.close()


def test_commands_never_load_the_interface(run: Run, environment: dict[str, str], data_dir: Path):
    out(run("add", "Milk"))
    code = (
        "import sys; sys.argv = ['todo-tui', *sys.argv[1:]]\n"
        "from app.cli.main import command_line\n"
        "command_line.main(standalone_mode=False)\n"
        "print([name for name in ('textual', 'httpx', 'starlette') if name in sys.modules], file=sys.stderr)"
    )
    for arguments in (["list"], ["status"], ["queue"], ["lists"], ["keys"], ["config", "show"], ["export"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**environment, "TODO_TUI_DATA_DIR": str(data_dir)},
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=True,
        )
        assert done.stderr.splitlines()[-1] == "[]", arguments


def test_one_is_told_as_one(run: Run, tmp_path: Path) -> None:
    done = run("import", "--format", "markdown", "-", text="# One\n- [ ] Milk\n")
    assert done.stderr == "Imported 1 to-do in 1 list.\n", done
    assert run("export", tmp_path / "one.json").stderr == "Exported 1 to-do in 1 list.\n"


# Settings and health


def test_settings_are_shown_without_passwords(run: Run):
    shown = out(run("config", "show", TODO_TUI_DATABASE="postgresql://me:hunter2@host/db"))
    assert "hunter2" not in shown
    assert "database = 'postgresql://me:…@host/db'" in shown
    assert data(run, "config", "show", "--json")["keymap"] == "default"
    keys = {
        "TODO_TUI_SIGN_IN_KEY": "laptop:hunter2",
        "TODO_TUI_PROFILES": '{"home": {"sign_in_key": "me:hunter3", "user_id": "7"}}',
    }
    for shown in (out(run("config", "show", **keys)), out(run("config", "show", "--json", **keys))):
        assert "hunter" not in shown
        assert "laptop:" in shown
        assert "me:" in shown
    assert run("config", "check").stderr == "The settings are valid.\n"
    assert "must be" in refused(run("config", "check", TODO_TUI_PORT="x"), 2)
    assert out(run("config", "path")).endswith("config.toml")
    assert "keymap" in data(run, "config", "schema")["properties"]


def test_keys_follow_the_settings(run: Run):
    done = run("keys", "--json", TODO_TUI_KEYMAP="vim", TODO_TUI_KEYS='{"todos.copy_todo": "ctrl+y"}')
    keys = json.loads(out(done))
    assert keys["todos.new_todo"] == ["o", "a"]
    assert keys["todos.copy_todo"] == ["ctrl+y"]
    assert "there is no action 'x.y'" in refused(run("keys", TODO_TUI_KEYS='{"x.y": "a"}'), 2)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_are_made(run: Run, shell: str):
    assert "_TODO_TUI_COMPLETE" in out(run("completions", shell))


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands(run: Run):
    done = run(_TODO_TUI_COMPLETE="bash_complete", COMP_WORDS="todo-tui reje", COMP_CWORD="1")
    assert done.stdout.strip() == "plain,rejected"


def test_the_interface_in_a_browser_is_this_machines_own(run: Run, environment: dict[str, str], data_dir: Path):
    assert "Other machines can reach 0.0.0.0" in refused(run("serve", "--host", "0.0.0.0"), 2)
    port = free_port()
    own = {**environment, "TODO_TUI_DATA_DIR": str(data_dir)}
    with subprocess.Popen(
        [PROGRAM, "serve", "--port", str(port)], env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + WAIT_SECONDS
            page = ""
            while "todo-tui" not in page:
                assert time.monotonic() < deadline
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    page = answer.read().decode()
        finally:
            process.kill()


def test_no_colour_by_an_option(environment: dict[str, str], data_dir: Path):
    terminal = Terminal({**environment, "TODO_TUI_DATA_DIR": str(data_dir)}, PROGRAM, "--no-color")
    try:
        terminal.read_until(b"A fresh start")
        assert b"\x1b[38;" not in terminal.output
        assert b"\x1b[48;" not in terminal.output
    finally:
        terminal.close()
