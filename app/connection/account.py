"""Who the user of a data directory is, and which backend their lists belong to.

Owns that decision: it is made once for each run, from the settings, `sign-in.json` and `backend.json`, and everybody
asks here. The files are `app.connection.sign_in`'s and `app.connection.data_owner`'s.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Final

from app.connection.backend_check import BackendCheck
from app.connection.data_owner import DataOwner
from app.connection.sign_in import sign_in_key, signed_in_user

if TYPE_CHECKING:
    from app.settings.settings import Settings
    from app.system.sign_in_keys import SignInKey


class Account(BackendCheck):
    """The user of one run. Make one with `account_of`. As a `BackendCheck` it stands for the backend of the settings.

    Args:
        settings: those of the run.
        user_id: the user.
        owner: the record of whom the lists belong to.

    Attributes:
        user_id: whose lists are shown and synced.
    """

    claims_backend: ClassVar[bool] = True

    def __init__(self, settings: Settings, user_id: str, owner: DataOwner) -> None:
        super().__init__()
        self.user_id: Final = user_id
        self._settings = settings
        self._owner = owner

    def claim_user(self) -> None:
        """Record that the lists belong to this user, whichever backend they will be synced with.

        Raises:
            UserError: they belong to another user, or that cannot be recorded.
        """
        self._owner.claim(self.user_id, None)

    async def sign_in_key(self) -> SignInKey | None:
        """The key for the backend of the settings, or None if there is none.

        Raises:
            UserError: it cannot be read.
        """
        return await asyncio.to_thread(sign_in_key, self._settings)

    async def verify(self) -> None:
        """Return if the lists still belong to this user and backend: another todo-tui may use the same directory.

        Raises:
            UserError: they belong to another.
        """
        await asyncio.to_thread(self._owner.check, self.user_id, self._settings.backend_url)

    async def claim(self, backend_id: str | None) -> None:
        """Record that the lists belong to the backend of the settings.

        Not before that has given a token: an address with a typing error would keep the lists for good.

        Raises:
            UserError: they belong to another, or that cannot be recorded.
        """
        await asyncio.to_thread(self._owner.claim, self.user_id, self._settings.backend_url, backend_id)


def account_of(settings: Settings) -> Account:
    """The user of these settings: the one who is signed in at their backend, else the one whom they name.

    Changes nothing. May block while a keyring is unlocked: run it in a thread.

    Raises:
        UserError: the settings name another user than the one who is signed in; the lists in the data directory belong
            to another user or backend; or a file or the keyring cannot be read.
    """
    user_id = signed_in_user(settings)
    owner = DataOwner(settings.data_dir)
    owner.check(user_id, settings.backend_url)
    return Account(settings, user_id, owner)
