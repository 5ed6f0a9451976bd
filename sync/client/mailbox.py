"""News for the two loops: from the app, from commits, and from each other.

Owns what a loop can be asked for between two turns of its own. Posting never waits, and the same news twice counts
once; the loops read it when they get to it. A mailbox lives as long as the database: what is posted while no session
runs is found by the next one. Must not know the loops.
"""

from __future__ import annotations

import asyncio

from sync.client.backoff import RetrySignal


class DownloadMailbox:
    """News for the download loop.

    Attributes:
        retry: connect again now.
        subscriptions_changed: the subscriptions in the file, or those in use, are others.
        uploads_completed: the queue was emptied: what was held back may be published.
    """

    def __init__(self) -> None:
        self.retry = RetrySignal()
        self.subscriptions_changed = asyncio.Event()
        self.uploads_completed = asyncio.Event()


class UploadMailbox:
    """News for the upload loop.

    Attributes:
        retry: upload again now.
        due: look at the upload queue, unless a failed attempt is being waited for.
        progressed: a transaction left the queue.
    """

    def __init__(self) -> None:
        self.retry = RetrySignal()
        self.due = asyncio.Event()
        self.progressed = asyncio.Event()

    def retry_now(self, *, force: bool = False) -> None:
        """Look at the queue, and cut a wait after a failure short; with `force` also one that was asked for."""
        self.due.set()
        self.retry.cut_short(force=force)


class SyncMail:
    """The mailboxes of one database.

    Attributes:
        downloads: of the download loop.
        uploads: of the upload loop.
    """

    def __init__(self) -> None:
        self.downloads = DownloadMailbox()
        self.uploads = UploadMailbox()

    def retry_now(self, *, force: bool = False) -> None:
        """Cut the waits of both loops short: something was written, the network changed, or the app connects.

        Only the app's own `connect` forces: then waits that the service or the backend asked for end too.
        """
        self.downloads.retry.cut_short(force=force)
        self.uploads.retry_now(force=force)
