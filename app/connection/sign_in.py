"""The sign-in keys that this device has for named backends: those of the settings, or of the file `sign-in.json`.

Owns that file (mode 0600) in the data directory. `todo-tui login` stores a key there or in the keyring; from then on it
is used only to make proofs. Must not know how a backend is reached.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from app.system.private_file import replace_file
from app.system.sign_in_keys import SignInKey, parse_key
from app.system.user_error import UserError

if TYPE_CHECKING:
    from app.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What `todo-tui login` has stored for one backend.

    Attributes:
        user_id: whose lists the key opens.
        secret: the key as it was entered, `NAME:SECRET`.
    """

    user_id: str
    secret: str = field(repr=False)

    @property
    def key(self) -> SignInKey | None:
        """The key, or None if what was stored is not a valid one."""
        return parse_key(self.secret)


class SignInFile:
    """The keys of one data directory, by the address of their backend."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "sign-in.json"

    def recall(self, backend_url: str) -> SignedIn | None:
        """What was stored for a backend, or None. May block while a keyring is unlocked.

        Raises:
            UserError: the file or the keyring cannot be read, or the keyring no longer has the key.
        """
        kept = self._read().get(backend_url)
        if not isinstance(kept, dict):
            return None
        fields = cast("dict[str, Any]", kept)
        user_id, secret = fields.get("user_id"), fields.get("key")
        if fields.get("in_keyring") is True:
            from app.connection.keyrings import recall_secret

            secret = recall_secret(_name(backend_url, user_id))
            if secret is None:
                raise UserError(
                    f"The keyring no longer has a key for {backend_url}; sign in again with todo-tui login."
                )
        return SignedIn(user_id, secret) if isinstance(user_id, str) and isinstance(secret, str) else None

    def keep(self, backend_url: str, signed_in: SignedIn, *, in_keyring: bool = False) -> None:
        """Store a key, in place of the one that was stored for this backend.

        Args:
            backend_url: of the backend.
            signed_in: the key, and whose lists it opens.
            in_keyring: store the key itself in the keyring; the file records only that it is there.

        Raises:
            UserError: the file cannot be read or written, or there is no keyring.
        """
        known: dict[str, Any] = {"user_id": signed_in.user_id}
        if in_keyring:
            from app.connection.keyrings import keep_secret

            keep_secret(_name(backend_url, signed_in.user_id), signed_in.secret)
            known["in_keyring"] = True
        else:
            known["key"] = signed_in.secret
        kept = self._read() | {backend_url: known}
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, json.dumps(kept, indent=1))
        except OSError as error:
            raise UserError(f"The sign-in key cannot be stored in {self._path}: {error.strerror or error}.") from error

    def _read(self) -> dict[str, Any]:
        try:
            kept: Any = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"{self._path} cannot be read; delete it, and sign in again with todo-tui login."
            ) from error
        return cast("dict[str, Any]", kept) if isinstance(kept, dict) else {}


def _name(backend_url: str, user_id: Any) -> str:
    """The name of a key in the keyring, which all data directories share."""
    return f"{user_id} at {backend_url}"


def sign_in_key(settings: Settings) -> SignInKey | None:
    """The key for the named backend of these settings, or None if there is none. May block, as `SignInFile.recall` may.

    Raises:
        UserError: what was stored cannot be read.
    """
    if settings.sign_in_key is not None:
        return parse_key(settings.sign_in_key)
    if settings.backend_url is None:
        return None
    signed_in = SignInFile(settings.data_dir).recall(settings.backend_url)
    return None if signed_in is None else signed_in.key


def signed_in_user(settings: Settings) -> str:
    """The user who is signed in at the backend of these settings (`todo-tui login`), else the one whom they name.

    May block, as `SignInFile.recall` may.

    Raises:
        UserError: both are given and differ, or what was stored cannot be read.
    """
    named = str(settings.user_id)
    if settings.backend_url is None or settings.sign_in_key is not None:
        return named
    signed_in = SignInFile(settings.data_dir).recall(settings.backend_url)
    if signed_in is None or signed_in.user_id == named:
        return named
    if "user_id" in settings.model_fields_set:
        raise UserError(
            f"You are signed in at {settings.backend_url} as user {signed_in.user_id}, not as {named}; "
            "leave out --user (user_id), or sign in with another key by todo-tui login, in another --data-dir."
        )
    return signed_in.user_id
