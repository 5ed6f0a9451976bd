"""News for the two loops: from the app, from commits, and from each other.

Owns what a loop can be asked to do between two iterations. Posting never waits, and posting the same news twice counts
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
        subscriptions_changed: the subscriptions in the file, or those in use, changed.
        uploads_completed: the queue is empty: what was held back may be published.
    """

    def __init__(self) -> None:
        self.retry = RetrySignal()
        self.subscriptions_changed = asyncio.Event()
        self.uploads_completed = asyncio.Event()


class UploadMailbox:
    """News for the upload loop.

    Attributes:
        retry: upload again now.
        due: check the upload queue, unless waiting after a failed attempt.
        progressed: a transaction left the queue.
    """

    def __init__(self) -> None:
        self.retry = RetrySignal()
        self.due = asyncio.Event()
        self.progressed = asyncio.Event()

    def retry_now(self, *, force: bool = False) -> None:
        """Check the queue, and cut short a wait after a failure; with `force`, even a requested wait."""
        self.due.set()
        self.retry.cut_short(force=force)


class SyncMail:
    """The mailboxes of one database.

    Attributes:
        downloads: the download loop's.
        uploads: the upload loop's.
    """

    def __init__(self) -> None:
        self.downloads = DownloadMailbox()
        self.uploads = UploadMailbox()

    def retry_now(self, *, force: bool = False) -> None:
        """Cut short the waits of both loops: something was written, the network changed, or the app connects.

        Only the app's own `connect` forces: then waits requested by the service or the backend end too.
        """
        self.downloads.retry.cut_short(force=force)
        self.uploads.retry_now(force=force)
