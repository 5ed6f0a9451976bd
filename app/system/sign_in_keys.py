"""Signing in with a key that is never sent: what both sides compute.

A client proves that it knows the key of a user, for one request and a few minutes; the backend proves in its answer
that it knows it too. A program that has taken over the backend's address learns nothing it could use, and is found out.
Owns the proofs, and the file with the key of the backend's own machine. Cheap to import.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from app.system.private_file import replace_file

SCHEME = "Proof"
"""The scheme in the Authorization header of a request for a token."""

ANSWER_HEADER = "X-Sign-In-Proof"
"""The header in the answer to it."""

LOCAL_NAME = "this-machine"
"""The name of the key beside the database, which signs in as any user."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_PROOF = re.compile(r"([A-Za-z0-9._-]{1,40}):([0-9]{1,12}):([A-Za-z0-9_-]{16,64}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class SignInKey:
    """A key and its name.

    Attributes:
        name: identifies the key; not secret.
        key: what proofs are made with.
    """

    name: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proof:
    """Proof that a request comes from somebody who knows a key; `made_at` is in seconds since the epoch."""

    name: str
    made_at: int
    nonce: str
    mac: str

    @property
    def header(self) -> str:
        """The header Authorization."""
        return f"{SCHEME} {self.name}:{self.made_at}:{self.nonce}:{self.mac}"


def new_secret() -> str:
    """A secret for a new key."""
    return secrets.token_urlsafe(24)


def key_of(secret: str) -> bytes:
    """The key derived from a secret: the backend stores it instead of the secret."""
    return hashlib.sha256(b"todo-tui sign-in key\0" + secret.encode()).digest()


def parse_key(text: str) -> SignInKey | None:
    """The key in the text `NAME:SECRET`, or None if it is not one."""
    name, _, secret = text.strip().partition(":")
    return SignInKey(name, key_of(secret)) if NAME.fullmatch(name) and secret and secret.isascii() else None


def prove(key: SignInKey, user_id: str, host: str, now: float) -> Proof:
    """A proof for one request.

    Args:
        key: the key.
        user_id: the user whose token is requested; empty for the key's own.
        host: the Host header of the request, so that nobody can replay the proof at another backend.
        now: seconds since the epoch.
    """
    nonce = secrets.token_urlsafe(18)
    made_at = int(now)
    return Proof(key.name, made_at, nonce, _request_mac(key.key, key.name, made_at, nonce, user_id, host))


def parse_proof(header: str) -> Proof | None:
    """The proof in an Authorization header, or None if there is none."""
    scheme, _, text = header.partition(" ")
    match = _PROOF.fullmatch(text.strip())
    if scheme.lower() != SCHEME.lower() or match is None:
        return None
    return Proof(match[1], int(match[2]), match[3], match[4])


def is_proven(proof: Proof, key: bytes, user_id: str, host: str) -> bool:
    """Whether a proof was made with this key, for this user and host."""
    expected = _request_mac(key, proof.name, proof.made_at, proof.nonce, user_id, host)
    return hmac.compare_digest(expected, proof.mac)


def answer(key: bytes, nonce: str, token: str) -> str:
    """The header with which the backend proves that it knows the key, and that the token is its own."""
    return _mac(key, "answer", nonce, token)


def is_answered(key: SignInKey, proof: Proof, token: str, answered: str) -> bool:
    """Whether an answer to `proof` comes from a backend that knows the key."""
    return hmac.compare_digest(answer(key.key, proof.nonce, token).encode(), answered.encode("utf-8", "replace"))


def _request_mac(key: bytes, name: str, made_at: int, nonce: str, user_id: str, host: str) -> str:
    return _mac(key, "request", name, str(made_at), nonce, user_id, host)


def _mac(key: bytes, *parts: str) -> str:
    text = "\0".join(parts)
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def local_key_path(database: Path) -> Path:
    """The file with the key of a backend's own machine: beside its database, readable by its owner only."""
    return database.with_name(f"{database.name}.key")


def read_local_key(database: Path) -> SignInKey | None:
    """The key beside a database, or None if there is none or it cannot be read. Blocks: run it in a thread."""
    try:
        secret = local_key_path(database).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return SignInKey(LOCAL_NAME, key_of(secret)) if secret else None


def make_local_key(database: Path) -> SignInKey:
    """The key beside a database, created with mode 0600 if there is none.

    Raises:
        OSError: it can be neither read nor created.
    """
    path = local_key_path(database)
    if (known := read_local_key(database)) is not None:
        path.chmod(0o600)
        return known
    secret = new_secret()
    replace_file(path, secret)
    return SignInKey(LOCAL_NAME, key_of(secret))
