"""Signing in: the backend says whose lists a key opens, and the key is kept.

Owns the order of that, and its sentences. Must not read what the user types.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.connection.connector import BackendRefusedError, BackendUnreachableError, user_of_key
from app.connection.sign_in import SignedIn, SignInFile
from app.system.sign_in_keys import parse_key
from app.system.user_error import UserError


class LoginError(Exception):
    """The key was not kept. The message is one sentence."""


def sign_in(data_dir: Path, backend_url: str, secret: str, *, in_keyring: bool = False) -> str:
    """Keep a key in a data directory, once the backend has taken it. Returns the user whose lists it opens.

    Args:
        data_dir: where it is kept.
        backend_url: of the backend.
        secret: the key as it was printed, `NAME:SECRET`.
        in_keyring: whether the key itself goes into the keyring of the desktop.

    Raises:
        LoginError: it was not kept.
    """
    key = parse_key(secret)
    if key is None:
        raise LoginError("That is no sign-in key; it looks like laptop:9f3k…, as todo-tui backend user add prints it.")
    try:
        user_id = asyncio.run(user_of_key(backend_url, key))
        SignInFile(data_dir).keep(backend_url, SignedIn(user_id, secret.strip()), in_keyring=in_keyring)
    except (BackendRefusedError, BackendUnreachableError, UserError) as error:
        raise LoginError(str(error)) from error
    return user_id
