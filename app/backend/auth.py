"""Tokens: the signing key, issuing, and checking what a request carries.

Only this module sees the private key and token text; neither is ever logged or put in an error.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.errors import (
    BadSignatureError,
    ExpiredTokenError,
    InvalidClaimError,
    InvalidKeyIdError,
    JoseError,
    MissingClaimError,
)
from joserfc.jwk import KeySet, RSAKey
from starlette.requests import Request

from app.backend.errors import RequestError

AUDIENCE = "todo-tui"
_ALGORITHM = "RS256"
_SCHEMES = ("token", "bearer")


@dataclass(frozen=True)
class Credentials:
    """Whose request it is, and when the token ends (seconds since the epoch)."""

    user_id: str
    expires_at: float


class Tokens:
    """Issues and checks the tokens of one backend with its one RSA key."""

    def __init__(self, key: RSAKey, *, valid_seconds: int) -> None:
        self._key = key
        self._keys = KeySet([key])
        self._valid_seconds = valid_seconds
        self._claims = jwt.JWTClaimsRegistry(
            sub={"essential": True}, aud={"essential": True, "value": AUDIENCE}, exp={"essential": True}
        )

    def issue(self, user_id: str) -> str:
        """A token for `user_id`, valid from now."""
        issued_at = int(time.time())
        claims = {"sub": user_id, "aud": AUDIENCE, "iat": issued_at, "exp": issued_at + self._valid_seconds}
        return jwt.encode({"alg": _ALGORITHM, "kid": self._key.kid}, claims, self._key, algorithms=[_ALGORITHM])

    def public_keys(self) -> dict[str, Any]:
        """The public half of the key as a JSON Web Key Set."""
        return {"keys": [self._key.as_dict(private=False)]}

    def authenticate(self, request: Request) -> Credentials:
        """Who sent `request`, from its header `Authorization: Bearer …` or `Token …`.

        Raises RequestError 401 with the service's code: PSYNC_S2106 no token, S2102 wrong signature or
        key, S2103 expired, S2105 wrong audience, S2101 anything else that is wrong with it.
        """
        scheme, _, token = request.headers.get("authorization", "").strip().partition(" ")
        if scheme.lower() not in _SCHEMES or not token.strip():
            raise _refusal("PSYNC_S2106", "Send a token in the header Authorization, after Bearer or Token.")
        try:
            # A token names its key, but its algorithm is never taken from it: only ours is accepted.
            claims = jwt.decode(token.strip(), self._keys, algorithms=[_ALGORITHM]).claims
            self._claims.validate(claims)
        except (BadSignatureError, InvalidKeyIdError):
            raise _refusal("PSYNC_S2102", "The token is not signed with a key of this backend.") from None
        except ExpiredTokenError:
            raise _refusal("PSYNC_S2103", "The token has expired; get a new one.") from None
        except (InvalidClaimError, MissingClaimError) as error:
            if error.claim == "aud":
                raise _refusal("PSYNC_S2105", "The token is for another audience.") from None
            raise _refusal("PSYNC_S2101", "The token has a missing or wrong claim.") from None
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # The parts of a token are anybody's JSON; joserfc takes their shape for granted.
            raise _refusal("PSYNC_S2101", "The token is not a JSON Web Token signed with RS256.") from None
        return Credentials(claims["sub"], float(claims["exp"]))


def _refusal(code: str, description: str) -> RequestError:
    return RequestError(401, code, description, name="AuthorizationError")


def load_key(connection: sqlite3.Connection) -> RSAKey:
    """The signing key kept in the database, made at the first start."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'signing_key'").fetchone()
    if row is not None:
        return RSAKey.import_key(msgspec.json.decode(row[0]))
    key = RSAKey.generate_key(2048, {"alg": _ALGORITHM, "use": "sig"}, private=True, auto_kid=True)
    text = msgspec.json.encode(key.as_dict(private=True)).decode()
    connection.execute("INSERT INTO meta VALUES ('signing_key', ?)", [text])
    return key
