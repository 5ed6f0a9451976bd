"""Who may sign in: users, their keys, and the authentication of token requests.

Owns the table `users` and the rule that decides who gets a token for which user. Uses a connection whose transaction
belongs to the caller. `sign_in_keys` implements the proofs, and `auth` the tokens. Keys must not appear in logs or
errors.
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
"""The maximum difference between the clocks of client and backend."""

_MAX_NONCES = 100_000

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS users("
    "name TEXT PRIMARY KEY NOT NULL, user_id TEXT NOT NULL, key BLOB NOT NULL, made_at INTEGER NOT NULL) STRICT"
)


@dataclass(frozen=True, slots=True)
class User:
    """A name that may sign in.

    Attributes:
        name: the name of the key.
        user_id: the user whose lists it gives access to.
        made_at: when it was added, in seconds since the epoch.
    """

    name: str
    user_id: str
    made_at: int


def create_table(connection: sqlite3.Connection) -> None:
    """Create the table if it does not exist."""
    connection.execute(SCHEMA)


def add(connection: sqlite3.Connection, name: str, user_id: str, secret: str) -> None:
    """Add a name that may sign in with a new secret.

    Raises:
        ValueError: the name is invalid or already taken; the message is one sentence.
    """
    if not NAME.fullmatch(name) or name == LOCAL_NAME:
        raise ValueError(
            f"A name must have 1 to 40 letters, digits, dots, dashes and underscores, and must not be {LOCAL_NAME}."
        )
    if connection.execute("SELECT 1 FROM users WHERE name = ?", [name]).fetchone():
        raise ValueError(f"The user {name} already exists; remove it first, or choose another name.")
    connection.execute(
        "INSERT INTO users(name, user_id, key, made_at) VALUES (?, ?, ?, ?)",
        [name, user_id, sign_in_keys.key_of(secret), int(time.time())],
    )


def remove(connection: sqlite3.Connection, name: str) -> bool:
    """Stop a name from signing in; its tokens remain valid until they expire. Returns whether the name existed."""
    return connection.execute("DELETE FROM users WHERE name = ?", [name]).rowcount == 1


def listed(connection: sqlite3.Connection) -> list[User]:
    """All users who may sign in, sorted by name."""
    return [User(*row) for row in connection.execute("SELECT name, user_id, made_at FROM users ORDER BY name")]


class SignIn:
    """Decides who gets a token for which user.

    Args:
        local_key: a key that can sign in as any user; anyone who can read it can also read the database.
        open_to_all: whether to accept requests without a key, as the official demo does.
        now: returns the current time in seconds since the epoch.
    """

    def __init__(self, local_key: SignInKey, *, open_to_all: bool, now: Callable[[], float] = time.time) -> None:
        self._local_key = local_key
        self._open_to_all = open_to_all
        self._now = now
        self._seen: dict[str, int] = {}

    def user_of(
        self, connection: sqlite3.Connection, authorization: str, user_id: str, host: str, port: int | None
    ) -> tuple[str, Callable[[str], str] | None]:
        """The user to issue a token for, and a function that proves to the client that the answer is from this backend.

        The function is None if the client did not request a proof.

        Args:
            connection: used to read users.
            authorization: the Authorization header of the request.
            user_id: the requested user; empty for the user of the key.
            host: the Host header of the request.
            port: the port that received the request.

        Raises:
            RequestError: 401 if the key is missing or wrong; 403 if it belongs to another user; 400 without a user.
        """
        if len(user_id) > MAX_USER_ID:
            raise RequestError(400, "missing_field", f"A user_id must not be longer than {MAX_USER_ID} characters.")
        if authorization:
            name, key, answer = self._authenticate(connection, authorization, user_id, host, port)
            if name == LOCAL_NAME:
                return self._require_user_id(user_id), answer
            return self._user_of_key(connection, name, key, user_id), answer
        if not self._open_to_all:
            raise _unauthorized(
                "This backend requires a sign-in key: its operator creates one with `todo-tui backend user add NAME`, "
                "and `todo-tui login` stores it."
            )
        return self._require_user_id(user_id), None

    def _authenticate(
        self, connection: sqlite3.Connection, authorization: str, user_id: str, host: str, port: int | None
    ) -> tuple[str, bytes, Callable[[str], str] | None]:
        """The name and key that authenticate the request, and the function that proves the answer."""
        if (shown := sign_in_keys.parse_proof(authorization)) is not None:
            key = self._key_of(connection, shown.name)
            if key is None or not sign_in_keys.is_proven(shown, key, user_id, host):
                raise _unauthorized("The sign-in key is unknown or has been removed.")
            if shown.name == LOCAL_NAME and not _is_port_of(host, port):
                raise _unauthorized("The local key of this machine is only accepted on this backend's own port.")
            self._check_replay(shown)
            return shown.name, key, lambda token: sign_in_keys.answer(key, shown.nonce, token)
        scheme, _, text = authorization.partition(" ")
        given = sign_in_keys.parse_key(text)
        if scheme.lower() != "key" or given is None or given.name == LOCAL_NAME:
            raise _unauthorized("The Authorization header does not contain a sign-in key.")
        key = self._key_of(connection, given.name)
        if key is None or not hmac.compare_digest(key, given.key):
            raise _unauthorized("The sign-in key is unknown or has been removed.")
        return given.name, key, None

    def _key_of(self, connection: sqlite3.Connection, name: str) -> bytes | None:
        if name == LOCAL_NAME:
            return self._local_key.key
        row = connection.execute("SELECT key FROM users WHERE name = ?", [name]).fetchone()
        return None if row is None else bytes(row[0])

    def _user_of_key(self, connection: sqlite3.Connection, name: str, key: bytes, user_id: str) -> str:
        row = connection.execute("SELECT user_id FROM users WHERE name = ? AND key = ?", [name, key]).fetchone()
        if row is None:
            raise _unauthorized("The sign-in key is unknown or has been removed.")
        if user_id and user_id != row[0]:
            raise RequestError(403, "forbidden", "The sign-in key belongs to another user.", name="OwnershipError")
        return str(row[0])

    def _check_replay(self, shown: Proof) -> None:
        """Reject a proof that is too old, from the future, or already used. Raises RequestError."""
        now = int(self._now())
        if abs(now - shown.made_at) > _PROOF_SECONDS:
            raise _unauthorized(
                f"The clocks of the two machines differ by {abs(now - shown.made_at)} seconds; correct them to sign in."
            )
        if len(self._seen) >= _MAX_NONCES:
            self._seen = {nonce: until for nonce, until in self._seen.items() if until >= now}
        if shown.nonce in self._seen or len(self._seen) >= _MAX_NONCES:
            raise _unauthorized("This proof of the sign-in key has already been used.")
        self._seen[shown.nonce] = shown.made_at + _PROOF_SECONDS

    @staticmethod
    def _require_user_id(user_id: str) -> str:
        if not user_id:
            description = f"The query parameter user_id is required and must have 1 to {MAX_USER_ID} characters."
            raise RequestError(400, "missing_field", description)
        return user_id


def _is_port_of(host: str, port: int | None) -> bool:
    return port is None or host.rpartition(":")[2] == str(port)


def _unauthorized(description: str) -> RequestError:
    return RequestError(401, "sign_in", description, name="AuthorizationError")
