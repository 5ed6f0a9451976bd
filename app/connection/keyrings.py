"""The keyring of the desktop, where a sign-in key can be kept instead of a file.

Owns the library `keyring` (an extra of todo-tui) and the sentences for what it cannot do. It is loaded on first use. A
keyring that is locked may ask the user, so its calls can take long: never on the event loop.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from app.system.user_error import UserError

_SERVICE = "todo-tui"


def keep_secret(name: str, secret: str) -> None:
    """Keep a secret under a name, instead of the one that was kept there.

    Raises:
        UserError: there is no keyring that can be used.
    """
    keyring = _library()
    try:
        keyring.set_password(_SERVICE, name, secret)
    except keyring.errors.KeyringError as error:
        raise UserError(f"The keyring did not take the key: {_told(error)}; sign in without --keyring.") from error


def recall_secret(name: str) -> str | None:
    """The secret that was kept under a name, or None.

    Raises:
        UserError: there is no keyring that can be used.
    """
    keyring = _library()
    try:
        return keyring.get_password(_SERVICE, name)
    except keyring.errors.KeyringError as error:
        raise UserError(f"The keyring did not give the key: {_told(error)}; unlock it and try again.") from error


def _library() -> ModuleType:
    try:
        return importlib.import_module("keyring")
    except ImportError as error:
        raise UserError("The library keyring is missing; run pip install 'todo-tui[keyring]'.") from error


def _told(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
