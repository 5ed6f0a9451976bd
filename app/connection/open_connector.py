"""The way to the backend of a run, opened and closed: one that the settings name, or the one inside todo-tui.

Owns which of the two it is. Must not know the database that is synced.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from app.connection.account import Account
from app.connection.embedded_backend import BackendState, EmbeddedBackend

if TYPE_CHECKING:
    from app.connection.connector import HttpConnector
    from app.settings.settings import Settings


@asynccontextmanager
async def open_connector(
    settings: Settings, account: Account, on_change: Callable[[BackendState], None] | None = None
) -> AsyncGenerator[tuple[HttpConnector, EmbeddedBackend | None]]:
    """The connector to the backend of the settings, and the backend inside todo-tui if it is that one.

    Args:
        settings: those of the run; the data directory exists.
        account: whose lists are synced.
        on_change: called after each change of the state of the backend inside todo-tui.

    Raises:
        UserError: the backend inside todo-tui cannot be used (`EmbeddedBackend.open`).
    """
    if settings.backend_url is not None:
        from app.connection.connector import HttpConnector

        connector = HttpConnector(
            settings.backend_url,
            account.user_id,
            settings.service_url,
            interface=settings.upload_interface,
            checkpoints_by_backend=settings.checkpoint_mode == "backend",
            check=account,
        )
        try:
            yield connector, None
        finally:
            await connector.aclose()
        return
    async with EmbeddedBackend.open(settings.data_dir, settings.port, on_change) as embedded:
        from app.connection.connector import HttpConnector

        connector = HttpConnector(embedded.url, account.user_id, settings.service_url, check=embedded)
        try:
            yield connector, embedded
        finally:
            await connector.aclose()
