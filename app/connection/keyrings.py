"""The desktop keyring, where a sign-in key can be stored instead of in a file.

Owns the library `keyring` (an extra of todo-tui), which is loaded on first use, and its error messages. A locked
keyring may ask the user for a password: calls can block for long, so they must not run on the event loop.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from app.system.user_error import UserError

_SERVICE = "todo-tui"


def keep_secret(name: str, secret: str) -> None:
    """Store a secret under a name, in place of the one that was stored there.

    Raises:
        UserError: there is no usable keyring.
    """
    keyring = _library()
    try:
        keyring.set_password(_SERVICE, name, secret)
    except keyring.errors.KeyringError as error:
        raise UserError(f"The keyring did not store the key: {_describe(error)}; sign in without --keyring.") from error


def recall_secret(name: str) -> str | None:
    """The secret that was stored under a name, or None.

    Raises:
        UserError: there is no usable keyring.
    """
    keyring = _library()
    try:
        return keyring.get_password(_SERVICE, name)
    except keyring.errors.KeyringError as error:
        raise UserError(f"The keyring did not return the key: {_describe(error)}; unlock it and try again.") from error


def _library() -> ModuleType:
    try:
        return importlib.import_module("keyring")
    except ImportError as error:
        raise UserError("Support for keyrings is not installed; run pip install 'todo-tui[keyring]'.") from error


def _describe(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
