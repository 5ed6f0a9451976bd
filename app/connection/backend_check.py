"""What a connector asks around each request for a token: which key to sign in with, and whether the backend is right.

Owns the questions only. `app.connection.account` answers them for a named backend, and
`app.connection.embedded_backend` for the one inside todo-tui. Must not know how requests are made.
"""

from __future__ import annotations

from typing import ClassVar

from app.system.sign_in_keys import SignInKey


class BackendCheck:
    """Accepts any backend, and signs in with one key or with none.

    Args:
        key: the key to sign in with, if the backend needs one.

    Attributes:
        claims_backend: whether `claim` is to be called with the id of the backend's data, which costs a request.
    """

    claims_backend: ClassVar[bool] = False

    def __init__(self, key: SignInKey | None = None) -> None:
        self._key = key

    async def sign_in_key(self) -> SignInKey | None:
        """The key to sign in with, or None if there is none.

        Raises:
            Exception: there should be one, but it cannot be read. No token is requested then.
        """
        return self._key

    async def verify(self) -> None:
        """Return if the backend may be used; called before a token is requested, and before it is used.

        Raises:
            Exception: it may not be used.
        """

    async def claim(self, backend_id: str | None) -> None:
        """Record that the lists belong to this backend; called when it has given a token, before that is used.

        Args:
            backend_id: the id of its data, if it gives one (the demo backend does, others need not).

        Raises:
            Exception: the lists belong to another one. The token is not used then.
        """
