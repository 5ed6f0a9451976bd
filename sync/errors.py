"""The engine's typed errors.

Owns every exception that the public face raises. Each message says what happened and, where the reader can act,
what was kept and what to do. Must not import anything else of the engine.
"""

from __future__ import annotations


class PowerSyncError(Exception):
    """Base of all errors that this engine raises on purpose."""


class SchemaError(PowerSyncError):
    """A schema is invalid; the message names the table and the column."""


class RawTableError(PowerSyncError):
    """Rows of a raw table could not be written, deleted or recorded; the message names the table and the reason.

    Nothing of the checkpoint was published, and nothing is lost: it is tried again when the app's table is mended.
    """


class ConnectedError(PowerSyncError):
    """This cannot be done while the database is connected; nothing was changed. Call `disconnect()` first."""


class DatabaseOpenError(PowerSyncError):
    """The database file cannot be used: not SQLite, not writable, or written by an unknown version.

    The file is left as it was.
    """


class DatabaseInUseError(DatabaseOpenError):
    """Another process has the database open where it must not, or has it for itself alone. Nothing was changed.

    Attributes:
        processes: the numbers of these processes, as far as they are known.
    """

    def __init__(self, description: str, processes: tuple[int, ...] = ()) -> None:
        self.processes = processes
        super().__init__(description)


class RescueError(PowerSyncError):
    """A database file could not be rescued: a file cannot be read, written or moved. The old one is in its place."""


class DatabaseClosedError(PowerSyncError):
    """The database is closed, or was closed while the call waited."""


class NestedUseError(PowerSyncError):
    """The database was used where it would have to wait for its own caller.

    Inside `write_transaction()` the transaction object is the only handle. A connector's call, made by the engine,
    cannot close or clear the database: that waits for the call to end.
    """


class NoRowError(PowerSyncError):
    """`get` found no row; `get_optional` answers None instead."""


class RowTypeError(PowerSyncError):
    """A row does not fit the `row_type` that was asked for. The data was left as it is.

    Attributes:
        row_type: what was asked for.
        column: the column that does not fit, or None if it is the row as a whole.
    """

    def __init__(self, row_type: type, column: str | None, why: str) -> None:
        self.row_type = row_type
        self.column = column
        where = "A row" if column is None else f"The column {column!r}"
        super().__init__(f"{where} does not fit {row_type.__name__}: {why}.")


class RowKeyError(PowerSyncError):
    """The key column of a watched query is missing in its rows, or its values are not unique."""


class ConnectorError(PowerSyncError):
    """The connector gave something that cannot be used, such as an endpoint that is not an http(s) URL."""


class ProtocolError(PowerSyncError):
    """The service sent something that the sync protocol does not allow. The published data was kept."""


class ChecksumError(PowerSyncError):
    """Downloaded buckets did not add up to the checkpoint's checksums.

    Nothing of that checkpoint was published; the buckets named in `buckets` download afresh.
    """

    def __init__(self, buckets: tuple[str, ...]) -> None:
        self.buckets = buckets
        super().__init__(
            f"The checksums of {len(buckets)} downloaded bucket(s) did not match; they are downloaded again: "
            + ", ".join(buckets)
        )


class NetworkError(PowerSyncError):
    """The service could not be reached, or the connection ended or fell silent. It is tried again."""


class ServiceError(PowerSyncError):
    """The service answered with an HTTP error.

    Attributes:
        status: the HTTP status code.
        code: the service's own code, such as `PSYNC_S2302`, or None.
        retry_after: seconds that the service asked to wait, or None.
    """

    def __init__(self, status: int, code: str | None, description: str, retry_after: float | None = None) -> None:
        self.status = status
        self.code = code
        self.retry_after = retry_after
        super().__init__(f"{description} (HTTP {status}{', ' + code if code else ''})")


class AuthError(ServiceError):
    """The service refused the credentials (HTTP 401 or 403). New ones are fetched before the next attempt."""


class TokenExpiredError(PowerSyncError):
    """The service ended the stream because the token had expired. A new one is fetched before the next attempt."""


class UploadStalledError(PowerSyncError):
    """`upload_data` returned without completing a transaction while the queue was not empty."""


class WriteRejectedError(PowerSyncError):
    """The backend refused a local change that was waited for. It is kept among the rejected writes.

    The other changes were uploaded. `rejected_writes()` tells all that were refused, to retry, edit or discard.
    """


class NotConnectedError(PowerSyncError):
    """What was waited for cannot come, since no connection is wished for: call `connect` first.

    Also raised when `disconnect` is called during the wait. Local changes stay in the upload queue.
    """


class SyncTimeoutError(PowerSyncError, TimeoutError):
    """A wait of the sync engine took longer than its timeout. Nothing is lost, and synchronization goes on.

    Attributes:
        seconds: the timeout.
    """

    def __init__(self, awaited: str, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            f"{awaited} took longer than {seconds:g} seconds. Nothing is lost, and synchronization goes on; "
            "explain_sync() tells what it waits for."
        )


class UploadRetryError(PowerSyncError):
    """The backend could not carry out a transaction now. It is kept, first in the queue, and tried again.

    Attributes:
        after: not before so many seconds, or None.
        renew_credentials: the backend refused the token.
    """

    def __init__(self, reason: str, after: float | None = None, *, renew_credentials: bool = False) -> None:
        self.after = after
        self.renew_credentials = renew_credentials
        super().__init__(reason)


class UploadHeldError(PowerSyncError):
    """A transaction waits for something that no retry brings. It is kept, first in the queue.

    It is tried again at the next local write, the next `connect`, or after the longest back-off.
    """


class AccountMismatchError(PowerSyncError):
    """The file belongs to another user than the one who connects, and has writes of theirs that wait or were rejected.

    Nothing was uploaded or downloaded. Connect as the first user to upload the writes, or read them with
    `crud_transactions()` and `rejected_writes()` and keep them elsewhere, or give them up with
    `disconnect_and_clear()`. It is looked at again with each attempt to connect.

    Attributes:
        owner: the user whose writes wait.
        user_id: the user who connects.
        waiting: how many changes wait for upload or were rejected.
    """

    def __init__(self, owner: str, user_id: str, waiting: int) -> None:
        self.owner = owner
        self.user_id = user_id
        self.waiting = waiting
        super().__init__(
            f"{waiting} change(s) of the user {owner} wait for upload or were rejected, and {user_id} wants to connect."
            f" Nothing was sent. Connect as {owner} first, or export or clear the changes."
        )
