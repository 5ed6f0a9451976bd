"""Who the user is: decided in one place, from the settings, the key that was kept, and whom the lists belong to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.connection.account import account_of
from app.connection.data_owner import DataOwner, Ownership
from app.connection.sign_in import SignedIn, SignInFile
from app.settings.settings import DEFAULT_USER_ID, Settings
from app.settings.sources import load_settings
from app.system.user_error import UserError

APP = Path(__file__).parents[2] / "app"
ANN = "11111111-1111-4111-8111-111111111111"
BOB = "22222222-2222-4222-8222-222222222222"
HERE = "http://here.example:6060"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    monkeypatch.setattr("os.environ", environment)


def settings(data_dir: Path, **options: str) -> Settings:
    return load_settings(options={"data_dir": data_dir, **options})


def test_without_anything_else_it_is_the_user_of_the_settings(tmp_path: Path) -> None:
    assert account_of(settings(tmp_path)).user_id == str(DEFAULT_USER_ID)
    assert account_of(settings(tmp_path, user_id=ANN, backend_url=HERE)).user_id == ANN
    assert not (tmp_path / "backend.json").exists(), "asking records nothing"


async def test_who_is_signed_in_is_the_user(tmp_path: Path) -> None:
    SignInFile(tmp_path).keep(HERE, SignedIn(ANN, "laptop:9f3k"))
    account = account_of(settings(tmp_path, backend_url=HERE))
    key = await account.sign_in_key()
    assert account.user_id == ANN
    assert key is not None
    assert key.name == "laptop"
    assert account_of(settings(tmp_path, backend_url=HERE, user_id=ANN)).user_id == ANN
    assert account_of(settings(tmp_path, backend_url="http://there.example")).user_id == str(DEFAULT_USER_ID)
    with pytest.raises(UserError, match=f"You are signed in at {HERE} as user {ANN}, not as {BOB}"):
        account_of(settings(tmp_path, backend_url=HERE, user_id=BOB))


async def test_a_key_of_the_settings_goes_before_the_one_that_was_kept(tmp_path: Path) -> None:
    SignInFile(tmp_path).keep(HERE, SignedIn(ANN, "laptop:9f3k"))
    account = account_of(settings(tmp_path, backend_url=HERE, user_id=BOB, sign_in_key="phone:abc"))
    key = await account.sign_in_key()
    assert account.user_id == BOB
    assert key is not None
    assert key.name == "phone"


async def test_lists_of_another_are_refused_before_and_while_they_are_open(tmp_path: Path) -> None:
    account = account_of(settings(tmp_path, user_id=ANN, backend_url=HERE))
    await account.verify()
    DataOwner(tmp_path).claim(BOB, None)
    for attempt in (account.verify(), account.claim(None)):
        with pytest.raises(UserError, match=f"belong to user {BOB}"):
            await attempt
    with pytest.raises(UserError, match=f"belong to user {BOB}"):
        account_of(settings(tmp_path, user_id=ANN))


async def test_what_is_claimed_is_recorded(tmp_path: Path) -> None:
    account = account_of(settings(tmp_path, user_id=ANN, backend_url=HERE))
    account.claim_user()
    assert DataOwner(tmp_path).recall() == Ownership(ANN)
    await account.claim("x")
    assert DataOwner(tmp_path).recall() == Ownership(ANN, HERE, "x")


def test_nobody_else_decides_who_the_user_is_or_opens_the_lists() -> None:
    places = {
        r"\bDataOwner\(": {"account.py", "embedded_backend.py"},
        r"\bSignInFile\(": {"sign_in.py", "login.py"},
        r"\bsettings\.user_id\b": {"sign_in.py", "doctor.py"},  # doctor hides it in a report
        r"\bPowerSyncDatabase\(": {"open_store.py"},
        r"\bHttpConnector\(": {"open_connector.py", "connector.py", "doctor.py"},
    }
    for pattern, allowed in places.items():
        found = {
            path.name
            for path in APP.rglob("*.py")
            if any(re.search(pattern, line) and "class " not in line for line in path.read_text().splitlines())
        }
        assert found <= allowed, pattern
