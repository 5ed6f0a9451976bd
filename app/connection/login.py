"""Signing in: the backend says whose lists a key opens, and the key is stored.

Owns the order of these steps. Must not read what the user types.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.connection.connector import BackendRefusedError, BackendUnreachableError, user_of_key
from app.connection.sign_in import SignedIn, SignInFile
from app.system.sign_in_keys import parse_key
from app.system.user_error import UserError


class LoginError(Exception):
    """The key was not stored. The message is one sentence."""


def sign_in(data_dir: Path, backend_url: str, secret: str, *, in_keyring: bool = False) -> str:
    """Store a key in a data directory, once the backend has accepted it. Returns the user whose lists it opens.

    Args:
        data_dir: where it is stored.
        backend_url: of the backend.
        secret: the key as it was printed, `NAME:SECRET`.
        in_keyring: whether the key itself goes into the desktop keyring.

    Raises:
        LoginError: it was not stored.
    """
    key = parse_key(secret)
    if key is None:
        raise LoginError(
            "That is not a valid sign-in key; keys look like laptop:9f3k…, as printed by todo-tui backend user add."
        )
    try:
        user_id = asyncio.run(user_of_key(backend_url, key))
        SignInFile(data_dir).keep(backend_url, SignedIn(user_id, secret.strip()), in_keyring=in_keyring)
    except (BackendRefusedError, BackendUnreachableError, UserError) as error:
        raise LoginError(str(error)) from error
    return user_id
