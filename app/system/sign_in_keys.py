"""Signing in with a key that never travels: what both sides compute, and nothing else.

A client proves that it knows the key of a user, for one request and a few minutes; the backend proves in its answer
that it knows it too. Whoever has taken the backend's address learns nothing that is of use elsewhere, and is found out.
Pure functions, but for the file of the key of the backend's own machine. Cheap to import.
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
"""Of the header Authorization of a request for a token."""

ANSWER_HEADER = "X-Sign-In-Proof"
"""Of the answer to it."""

LOCAL_NAME = "this-machine"
"""The name that goes with the key beside the database: it signs in as any user."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_PROOF = re.compile(r"([A-Za-z0-9._-]{1,40}):([0-9]{1,12}):([A-Za-z0-9_-]{16,64}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class SignInKey:
    """A key and the name that goes with it.

    Attributes:
        name: says which key it is; no secret.
        key: what proofs are made with.
    """

    name: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a request brings: whose key, when it was made (seconds since the epoch), and that the key is known."""

    name: str
    made_at: int
    nonce: str
    mac: str

    @property
    def header(self) -> str:
        """The header Authorization."""
        return f"{SCHEME} {self.name}:{self.made_at}:{self.nonce}:{self.mac}"


def new_secret() -> str:
    """A secret for a new key, to be written down once."""
    return secrets.token_urlsafe(24)


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: what the backend keeps instead of the secret."""
    return hashlib.sha256(b"todo-tui sign-in key\0" + secret.encode()).digest()


def parse_key(text: str) -> SignInKey | None:
    """The key that was written down as `NAME:SECRET`, or None if it is none."""
    name, _, secret = text.strip().partition(":")
    return SignInKey(name, key_of(secret)) if NAME.fullmatch(name) and secret and secret.isascii() else None


def prove(key: SignInKey, user_id: str, host: str, now: float) -> Proof:
    """A proof for one request.

    Args:
        key: the key.
        user_id: the user that is asked for; empty for the key's own.
        host: the request's header Host, so that nobody can hand the proof on to a backend elsewhere.
        now: seconds since the epoch.
    """
    nonce = secrets.token_urlsafe(18)
    made_at = int(now)
    return Proof(key.name, made_at, nonce, _request_mac(key.key, key.name, made_at, nonce, user_id, host))


def parse_proof(header: str) -> Proof | None:
    """The proof in a header Authorization, or None if there is none."""
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
    """What the backend puts into its answer: that it knows the key, and that this is its token."""
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
    """Where the key of a backend's own machine lies: beside its database, readable by its owner only."""
    return database.with_name(f"{database.name}.key")


def read_local_key(database: Path) -> SignInKey | None:
    """The key beside a database, or None if there is none or it may not be read. Run it in a thread."""
    try:
        secret = local_key_path(database).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return SignInKey(LOCAL_NAME, key_of(secret)) if secret else None


def make_local_key(database: Path) -> SignInKey:
    """The key beside a database, made with mode 0600 if there is none.

    Raises:
        OSError: it can be neither read nor made.
    """
    path = local_key_path(database)
    if (known := read_local_key(database)) is not None:
        path.chmod(0o600)
        return known
    secret = new_secret()
    replace_file(path, secret)
    return SignInKey(LOCAL_NAME, key_of(secret))
