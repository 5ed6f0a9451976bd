"""Tokens: the signing key, issuing tokens, and authenticating requests.

Only this module sees the private key and the text of tokens; neither is ever logged or included in an error.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
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
from joserfc.jwk import KeySet, OctKey, RSAKey
from starlette.requests import Request

from app.backend.errors import RequestError

AUDIENCE = "todo-tui"
MAX_LIFETIME_SECONDS = 86_400
"""Tokens with a longer lifetime are rejected, as they are by the PowerSync Service."""

CLOCK_TOLERANCE_SECONDS = 60
"""Leeway for clock differences: how long before and after its period of validity a token is accepted."""

_ALGORITHM = "RS256"
_SHARED_ALGORITHM = "HS256"
_SCHEMES = ("token", "bearer")


@dataclass(frozen=True)
class Credentials:
    """The user who sent a request, and when their token expires (seconds since the epoch)."""

    user_id: str
    expires_at: float


class Tokens:
    """Issues and verifies the tokens of one backend with its RSA key.

    Args:
        key: the key that signs and verifies tokens.
        valid_seconds: the lifetime of a token, in seconds.
        audience: the audience (`aud`) of tokens.
        shared_secret: a secret for tokens that another program signs with HS256, which are then accepted as well; for
            tests.
    """

    def __init__(
        self, key: RSAKey, *, valid_seconds: int, audience: str = AUDIENCE, shared_secret: bytes | None = None
    ) -> None:
        self._key = key
        self._keys = KeySet([key])
        self._shared_key = None if shared_secret is None else OctKey.import_key(shared_secret)
        self._valid_seconds = valid_seconds
        self._audience = audience
        self._claims = jwt.JWTClaimsRegistry(
            leeway=CLOCK_TOLERANCE_SECONDS,
            sub={"essential": True},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            iat={"essential": True},
        )

    def issue(self, user_id: str) -> str:
        """Return a new token for `user_id`, valid from now on."""
        issued_at = int(time.time())
        claims = {"sub": user_id, "aud": self._audience, "iat": issued_at, "exp": issued_at + self._valid_seconds}
        return jwt.encode({"alg": _ALGORITHM, "kid": self._key.kid}, claims, self._key, algorithms=[_ALGORITHM])

    def public_keys(self) -> dict[str, Any]:
        """Return the public key as a JSON Web Key Set."""
        return {"keys": [self._key.as_dict(private=False)]}

    def authenticate(self, request: Request) -> Credentials:
        """Return who sent `request`, according to its `Authorization: Bearer …` or `Token …` header.

        Raises RequestError 401 with the code that the PowerSync Service uses: PSYNC_S2106 no token,
        S2102 wrong signature or key, S2103 expired, S2104 a lifetime of more than a day, S2105 wrong
        audience, S2101 any other defect of the token.
        """
        scheme, _, token = request.headers.get("authorization", "").strip().partition(" ")
        if scheme.lower() not in _SCHEMES or not token.strip():
            raise _refusal(
                "PSYNC_S2106", "Missing token: send an Authorization header with the scheme Bearer or Token."
            )
        try:
            # The token may choose the key but not the algorithm: only our own is accepted.
            claims = self._decoded(token.strip())
            self._claims.validate(claims)
            lifetime = float(claims["exp"]) - float(claims["iat"])
        except (BadSignatureError, InvalidKeyIdError):
            raise _refusal("PSYNC_S2102", "The token was not signed with a key of this backend.") from None
        except ExpiredTokenError:
            raise _refusal("PSYNC_S2103", "The token has expired; get a new one.") from None
        except (InvalidClaimError, MissingClaimError) as error:
            if error.claim == "aud":
                raise _refusal("PSYNC_S2105", "The token was issued for a different audience.") from None
            raise _refusal("PSYNC_S2101", "The token has a missing or invalid claim.") from None
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # A token contains untrusted JSON, and joserfc does not check its shape.
            raise _refusal("PSYNC_S2101", "The token is not a JSON Web Token signed with RS256.") from None
        if not lifetime <= MAX_LIFETIME_SECONDS:
            raise _refusal("PSYNC_S2104", f"The lifetime of a token must not exceed {MAX_LIFETIME_SECONDS} seconds.")
        if not isinstance(claims["sub"], str) or not claims["sub"]:
            raise _refusal("PSYNC_S2101", "The token has a missing or invalid claim.")
        return Credentials(claims["sub"], float(claims["exp"]))

    def _decoded(self, token: str) -> dict[str, Any]:
        if self._shared_key is not None:
            with suppress(JoseError):
                return jwt.decode(token, self._shared_key, algorithms=[_SHARED_ALGORITHM]).claims
        return jwt.decode(token, self._keys, algorithms=[_ALGORITHM]).claims


def _refusal(code: str, description: str) -> RequestError:
    return RequestError(401, code, description, name="AuthorizationError")


def load_key(connection: sqlite3.Connection) -> RSAKey:
    """Return the signing key stored in the database; create it on first use."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'signing_key'").fetchone()
    if row is not None:
        return RSAKey.import_key(msgspec.json.decode(row[0]))
    key = RSAKey.generate_key(2048, {"alg": _ALGORITHM, "use": "sig"}, private=True, auto_kid=True)
    text = msgspec.json.encode(key.as_dict(private=True)).decode()
    connection.execute("INSERT INTO meta VALUES ('signing_key', ?)", [text])
    return key
