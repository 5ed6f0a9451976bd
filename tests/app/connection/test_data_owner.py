"""Whom the lists of a data directory belong to: kept for good, whole or not at all, and told in one sentence."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from app.connection.data_owner import DataOwner, InnerBackend, Ownership
from app.system.user_error import UserError

ANN = "11111111-1111-4111-8111-111111111111"
BOB = "22222222-2222-4222-8222-222222222222"
HERE = "http://here.example:6060"


@pytest.fixture
def memory(tmp_path: Path) -> DataOwner:
    return DataOwner(tmp_path)


def test_the_first_start_may_be_anybodys_with_any_backend(memory: DataOwner, tmp_path: Path) -> None:
    assert memory.recall() == Ownership()
    memory.check(ANN, None)
    memory.check(BOB, HERE)
    assert list(tmp_path.iterdir()) == []


def test_lists_of_one_user_are_not_shown_to_another(memory: DataOwner, tmp_path: Path) -> None:
    memory.claim(ANN, None)
    for backend_url in (None, HERE):
        memory.check(ANN, backend_url)
        with pytest.raises(UserError, match=f"The lists in {tmp_path} belong to user {ANN}; use --user {ANN}"):
            memory.check(BOB, backend_url)
    with pytest.raises(UserError, match="belong to user"):
        memory.claim(BOB, None)


def test_lists_of_a_named_backend_stay_with_it(memory: DataOwner, tmp_path: Path) -> None:
    memory.claim(ANN, HERE)
    memory.check(ANN, HERE)
    memory.claim(ANN, None)
    for backend_url in (None, "http://there.example"):
        with pytest.raises(UserError, match=f"are synced with the backend {HERE}; use --backend {HERE}, or"):
            memory.check(ANN, backend_url)
    with pytest.raises(UserError, match="are synced with the backend"):
        memory.claim(ANN, "http://there.example")
    with pytest.raises(UserError, match="are synced with the backend"):
        memory.claim(None, InnerBackend("x", tmp_path / "backend.db"))
    with pytest.raises(UserError, match="are synced with the backend"):
        memory.recall_inner()


def test_a_named_backend_whose_data_was_replaced_is_refused(memory: DataOwner, tmp_path: Path) -> None:
    memory.claim(ANN, HERE)
    memory.claim(ANN, HERE, "first")
    memory.claim(ANN, HERE, None)
    with pytest.raises(UserError, match=f"{HERE} now has other lists than those in {tmp_path}"):
        memory.claim(ANN, HERE, "second")
    memory.claim(ANN, HERE, "first")
    assert memory.recall() == Ownership(ANN, HERE, "first")


def test_lists_of_the_inner_backend_stay_with_it(memory: DataOwner, tmp_path: Path) -> None:
    inner = InnerBackend("x", tmp_path / "backend.db")
    memory.claim(None, inner)
    memory.claim(ANN, None)
    memory.check(ANN, None)
    assert memory.recall_inner() == inner
    with pytest.raises(UserError, match=f"the backend inside todo-tui, not with {HERE}; leave out --backend"):
        memory.check(ANN, HERE)
    with pytest.raises(UserError, match="another backend inside todo-tui"):
        memory.claim(None, InnerBackend("y", tmp_path / "backend.db"))
    assert memory.recall() == Ownership(ANN, inner)


def test_a_memory_without_a_user_is_adopted(memory: DataOwner, tmp_path: Path) -> None:
    (tmp_path / "backend.json").write_text(json.dumps({"backend_id": "x", "database": "backend.db"}))
    memory.check(ANN, None)
    memory.claim(ANN, None)
    assert memory.recall() == Ownership(ANN, InnerBackend("x", tmp_path / "backend.db"))
    assert (tmp_path / "backend.json").stat().st_mode & 0o777 == 0o600


def test_of_many_that_claim_at_once_one_wins(memory: DataOwner, tmp_path: Path) -> None:
    won: list[str] = []
    ready = threading.Barrier(8)

    def run(backend_url: str) -> None:
        ready.wait()
        try:
            DataOwner(tmp_path).claim(ANN, backend_url)
        except UserError:
            return
        won.append(backend_url)

    threads = [threading.Thread(target=run, args=[f"http://host{number}.example"]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [memory.recall().backend] == won


@pytest.mark.parametrize(
    "text", ['{"user_id": 7}', '{"backend_url": 7}', "{}", "[]", '{"backend_id": "x", "database": null}']
)
def test_a_damaged_memory_is_told(memory: DataOwner, tmp_path: Path, text: str) -> None:
    (tmp_path / "backend.json").write_text(text)
    with pytest.raises(UserError, match=r"backend\.json is damaged"):
        memory.check(ANN, None)
