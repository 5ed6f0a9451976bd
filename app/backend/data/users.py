"""Who may sign in: users, their keys, and the check of what a request for a token proves.

Owns the table `users` and the rule who gets a token for whom. Works on a connection whose transaction the caller holds;
the proofs themselves are `proof`'s, the tokens `auth`'s. Keys are neither logged nor put into an error.
"""

from __future__ import annotations

import hmac
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.backend.errors import RequestError
from app.system import sign_in_keys
from app.system.sign_in_keys import LOCAL_NAME, NAME, Proof, SignInKey

MAX_USER_ID = 255

_PROOF_SECONDS = 300
"""How far the clocks of both sides may be apart."""

_MAX_NONCES = 100_000

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS users("
    "name TEXT PRIMARY KEY NOT NULL, user_id TEXT NOT NULL, key BLOB NOT NULL, made_at INTEGER NOT NULL) STRICT"
)


@dataclass(frozen=True, slots=True)
class User:
    """A name that may sign in.

    Attributes:
        name: which key it is.
        user_id: whose lists it opens.
        made_at: seconds since the epoch.
    """

    name: str
    user_id: str
    made_at: int


def create_table(connection: sqlite3.Connection) -> None:
    """Make the table if it is not there."""
    connection.execute(SCHEMA)


def add(connection: sqlite3.Connection, name: str, user_id: str, secret: str) -> None:
    """Let a name sign in with a new secret.

    Raises:
        ValueError: the name is none, or is taken; the message is one sentence.
    """
    if not NAME.fullmatch(name) or name == LOCAL_NAME:
        raise ValueError(f"A name has 1 to 40 letters, digits, dots, dashes and underscores, and is not {LOCAL_NAME}.")
    if connection.execute("SELECT 1 FROM users WHERE name = ?", [name]).fetchone():
        raise ValueError(f"There is a user {name} already; remove it first, or choose another name.")
    connection.execute(
        "INSERT INTO users(name, user_id, key, made_at) VALUES (?, ?, ?, ?)",
        [name, user_id, sign_in_keys.key_of(secret), int(time.time())],
    )


def remove(connection: sqlite3.Connection, name: str) -> bool:
    """Let a name sign in no more; tokens that it has go on for their few minutes. Returns whether there was one."""
    return connection.execute("DELETE FROM users WHERE name = ?", [name]).rowcount == 1


def listed(connection: sqlite3.Connection) -> list[User]:
    """Who may sign in, by name."""
    return [User(*row) for row in connection.execute("SELECT name, user_id, made_at FROM users ORDER BY name")]


class SignIn:
    """Decides who gets a token for whom.

    Args:
        local_key: signs in as any user: whoever can read it can read the database as well.
        open_to_all: whether a request without a key is answered too, as the official demo does it.
        now: the clock, in seconds since the epoch.
    """

    def __init__(self, local_key: SignInKey, *, open_to_all: bool, now: Callable[[], float] = time.time) -> None:
        self._local_key = local_key
        self._open_to_all = open_to_all
        self._now = now
        self._seen: dict[str, int] = {}

    def user_of(
        self, connection: sqlite3.Connection, authorization: str, user_id: str, host: str, port: int | None
    ) -> tuple[str, Callable[[str], str] | None]:
        """Whose token a request may have, and what proves to it that the answer comes from here (None: not asked for).

        Args:
            connection: to read users.
            authorization: the request's header.
            user_id: the user that is asked for; empty for the key's own.
            host: the request's header Host.
            port: the port on which the request came.

        Raises:
            RequestError: 401 without a key or with a wrong one; 403 for another user than the key's; 400 for no user.
        """
        if len(user_id) > MAX_USER_ID:
            raise RequestError(400, "missing_field", f"A user_id has at most {MAX_USER_ID} characters.")
        if authorization:
            name, key, answer = self._known_by(connection, authorization, user_id, host, port)
            if name == LOCAL_NAME:
                return self._named(user_id), answer
            return self._own(connection, name, key, user_id), answer
        if not self._open_to_all:
            raise _refusal(
                "This backend wants a sign-in key: whoever runs it makes one with `todo-tui backend user add NAME`, "
                "and `todo-tui login` takes it."
            )
        return self._named(user_id), None

    def _known_by(
        self, connection: sqlite3.Connection, authorization: str, user_id: str, host: str, port: int | None
    ) -> tuple[str, bytes, Callable[[str], str] | None]:
        """Name and key of who asks, and how to answer."""
        if (shown := sign_in_keys.parse_proof(authorization)) is not None:
            key = self._key_of(connection, shown.name)
            if key is None or not sign_in_keys.is_proven(shown, key, user_id, host):
                raise _refusal("The sign-in key is not known here, or not any more.")
            if shown.name == LOCAL_NAME and not _is_port_of(host, port):
                raise _refusal("The key of this machine is of use only at this backend's own port.")
            self._only_once(shown)
            return shown.name, key, lambda token: sign_in_keys.answer(key, shown.nonce, token)
        scheme, _, text = authorization.partition(" ")
        given = sign_in_keys.parse_key(text)
        if scheme.lower() != "key" or given is None or given.name == LOCAL_NAME:
            raise _refusal("The header Authorization holds no sign-in key.")
        key = self._key_of(connection, given.name)
        if key is None or not hmac.compare_digest(key, given.key):
            raise _refusal("The sign-in key is not known here, or not any more.")
        return given.name, key, None

    def _key_of(self, connection: sqlite3.Connection, name: str) -> bytes | None:
        if name == LOCAL_NAME:
            return self._local_key.key
        row = connection.execute("SELECT key FROM users WHERE name = ?", [name]).fetchone()
        return None if row is None else bytes(row[0])

    def _own(self, connection: sqlite3.Connection, name: str, key: bytes, user_id: str) -> str:
        row = connection.execute("SELECT user_id FROM users WHERE name = ? AND key = ?", [name, key]).fetchone()
        if row is None:
            raise _refusal("The sign-in key is not known here, or not any more.")
        if user_id and user_id != row[0]:
            raise RequestError(403, "forbidden", "The sign-in key is that of another user.", name="OwnershipError")
        return str(row[0])

    def _only_once(self, shown: Proof) -> None:
        """Raises RequestError if a proof is too old, from the future, or was used before."""
        now = int(self._now())
        if abs(now - shown.made_at) > _PROOF_SECONDS:
            raise _refusal(
                f"The clocks of both machines are {abs(now - shown.made_at)} seconds apart; set them right to sign in."
            )
        if len(self._seen) >= _MAX_NONCES:
            self._seen = {nonce: until for nonce, until in self._seen.items() if until >= now}
        if shown.nonce in self._seen or len(self._seen) >= _MAX_NONCES:
            raise _refusal("This proof of the sign-in key was used before.")
        self._seen[shown.nonce] = shown.made_at + _PROOF_SECONDS

    @staticmethod
    def _named(user_id: str) -> str:
        if not user_id:
            description = f"Name the user in the query as user_id, with 1 to {MAX_USER_ID} characters."
            raise RequestError(400, "missing_field", description)
        return user_id


def _is_port_of(host: str, port: int | None) -> bool:
    return port is None or host.rpartition(":")[2] == str(port)


def _refusal(description: str) -> RequestError:
    return RequestError(401, "sign_in", description, name="AuthorizationError")
