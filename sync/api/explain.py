"""Why a database is not synced, as one value and one paragraph of plain English.

Owns the collection of what is known and its wording. Must not change anything: it reads the status, the file, and the
engine's records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from sync.api.stored_status import StoredStatus
from sync.client.backoff import requested_wait_seconds
from sync.client.credentials import without_tokens
from sync.errors import AccountMismatchError, AuthError, ChecksumError, ServiceError, TokenExpiredError
from sync.sqlite.pool import ConnectionPool
from sync.sqlite.sql_connection import SqlConnection
from sync.status.status import StatusBoard, SyncStatus
from sync.storage import checkpoint_requests, oplog, upload_queue
from sync.storage.checkpoint_requests import SyncGate

BUCKET_LIMIT = 1000
"""The service refuses connections with more buckets (`PSYNC_S2305`)."""

_NEAR_BUCKET_LIMIT = 900
_LONGEST_HEALTHY_SILENCE_SECONDS = 25.0
_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR

_SERVICE_ERRORS = {
    "PSYNC_S2302": "The service has not replicated its source database yet. It will do so on its own; just wait",
    "PSYNC_S2305": f"This user would get more than {BUCKET_LIMIT:,} buckets, which the service does not allow. "
    "Change the sync rules or the subscriptions to use fewer",
}
_HTTP_ERRORS: dict[int, str] = {
    HTTPStatus.NOT_FOUND: "There is no sync service at the endpoint. Check the URL that the connector returns",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request was too large for the service. Use fewer buckets or "
    "subscriptions, or smaller parameters",
    HTTPStatus.TOO_MANY_REQUESTS: "The service has too many connections or requests and asked to wait",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncExplanation:
    """What is known about why a database is, or is not, synced. `str()` of it is one paragraph.

    Attributes:
        at: when (UTC) the explanation was made.
        status: the status then.
        gate: whether downloaded data may become visible, and what it is waiting for.
        lock_holder: the id of the other process that holds the sync lock, if known.
        queue_oldest_at: about when (UTC) the oldest waiting change was made, or None.
        token_expires_at: time (UTC), or None if unknown.
        seconds_since_last_line: seconds, or None if the service has sent nothing to this process.
        streams_not_offered: names of subscribed streams that the service does not offer.
        stream_errors: stream names, each with the service's message.
        bucket_count: buckets in the file; the service allows 1,000.
        checksum_failure: the last one, or None.
        checksum_failed_at: its time (UTC).
        service_error: the last HTTP error of the service, or None.
        service_failed_at: its time (UTC).
    """

    at: datetime
    status: SyncStatus
    gate: SyncGate
    lock_holder: int | None = None
    queue_oldest_at: datetime | None = None
    token_expires_at: datetime | None = None
    seconds_since_last_line: float | None = None
    streams_not_offered: tuple[str, ...] = ()
    stream_errors: tuple[tuple[str, str], ...] = ()
    bucket_count: int = 0
    checksum_failure: ChecksumError | None = None
    checksum_failed_at: datetime | None = None
    service_error: ServiceError | None = None
    service_failed_at: datetime | None = None

    @property
    def is_synced(self) -> bool:
        """Whether nothing is missing in either direction, as far as this device knows."""
        status = self.status
        return (
            (status.connected or status.syncing_elsewhere)
            and status.has_synced
            and not status.downloading
            and self.gate.is_open
            and status.upload_error is None
        )

    @property
    def sentences(self) -> tuple[str, ...]:
        """What is known, each in one or two short sentences, the most important first."""
        return tuple(f"{sentence}." for sentence in (*self._state(), *self._upload(), *self._noteworthy()))

    def __str__(self) -> str:
        return " ".join(self.sentences)

    def _state(self) -> Iterator[str]:
        status = self.status
        if self.is_synced and status.last_synced_at is not None:
            yield f"Everything is synced; the last checkpoint arrived {_ago(self.at, status.last_synced_at)}"
        if not status.wanted:
            yield "Not connected: connect() was not called, or disconnect() was called since"
        elif status.syncing_elsewhere:
            who = "Another process" if self.lock_holder is None else f"Process {self.lock_holder}"
            yield f"{who} holds the sync lock of this file and syncs it; this process takes over when it ends"
        elif status.connected:
            yield from self._stream()
        else:
            yield from self._no_stream()
        if not status.has_synced:
            yield "This device has never had a complete checkpoint"
        elif not self.is_synced and status.last_synced_at is not None:
            yield f"The last complete checkpoint arrived {_ago(self.at, status.last_synced_at)}"

    def _stream(self) -> Iterator[str]:
        progress = self.status.download_progress
        if progress is not None:
            yield (
                f"A download is in progress: {progress.downloaded_operations:,} of {progress.total_operations:,} "
                f"operations received ({progress.downloaded_fraction:.0%})"
            )
        elif not self.status.has_synced:
            yield "The stream is open, waiting for its first complete checkpoint"
        silence = self.seconds_since_last_line
        if silence is not None and silence > _LONGEST_HEALTHY_SILENCE_SECONDS:
            yield (
                f"The service has been silent for {_span(silence)}, longer than a healthy stream is. "
                "If it stays silent, the engine will reconnect"
            )

    def _no_stream(self) -> Iterator[str]:
        status = self.status
        error = status.download_error
        if error is None:
            yield "Connecting" if status.connecting else "About to connect"
            return
        yield f"Not connected. {self._words(error)}"
        yield _next_attempt(self.at, status.download_retry_at, "connection", error)

    def _upload(self) -> Iterator[str]:
        status, gate = self.status, self.gate
        if gate.queue_length:
            count = gate.queue_length
            waiting = "1 local change is waiting" if count == 1 else f"{count:,} local changes are waiting"
            if self.queue_oldest_at is None:
                yield f"{waiting} for the backend"
            else:
                yield f"{waiting} for the backend, the oldest for {self._since(self.queue_oldest_at)}"
            if status.uploading:
                yield "An upload is in progress"
        if status.upload_error is not None and not self._is_another_account:
            what = "upload" if gate.queue_length else "checkpoint request"
            yield f"The last {what} failed. {self._words(status.upload_error)}"
            yield _next_attempt(self.at, status.upload_retry_at, what, status.upload_error)
        if gate.is_open:
            return
        if gate.queue_length:
            yield "Downloaded data is held back until then, so that the local changes do not flicker"
        elif gate.is_target_unknown:
            yield (
                "All local changes are uploaded, and downloaded data is held back until the service confirms them; "
                "the confirming checkpoint has not been requested yet"
            )
        else:
            seen = "none" if gate.seen is None else f"number {gate.seen}"
            applied = "none" if gate.applied is None else f"number {gate.applied}"
            yield (
                "All local changes are uploaded, and downloaded data is held back until checkpoint request number "
                f"{gate.target} comes back; the newest seen is {seen}, the newest applied {applied}"
            )

    def _noteworthy(self) -> Iterator[str]:
        if self.token_expires_at is not None:
            seconds = (self.token_expires_at - self.at).total_seconds()
            if seconds <= 0:
                yield f"The token expired {_span(-seconds)} ago; a new one is fetched before the next attempt"
            elif not self.is_synced:
                yield f"The token is valid for another {_span(seconds)}"
        if self.streams_not_offered:
            yield (
                f"The service does not offer these streams: {', '.join(self.streams_not_offered)}. "
                "Their names may be wrong, or the service may use sync rules without streams, which send all data "
                "anyway"
            )
        for name, message in self.stream_errors:
            yield f"The service could not resolve the stream {name}: {_sentence(message)}"
        if self.bucket_count >= _NEAR_BUCKET_LIMIT:
            yield f"This device has {self.bucket_count:,} buckets; the service allows {BUCKET_LIMIT:,}"
        if self.checksum_failure is not None and self.checksum_failed_at is not None:
            names = ", ".join(self.checksum_failure.buckets)
            yield (
                f"{_ago(self.at, self.checksum_failed_at).capitalize()}, downloaded data did not match its checksum "
                f"and was downloaded again ({names})"
            )
        if (
            self.service_error is not None
            and self.service_failed_at is not None
            and self.service_error not in {self.status.download_error, self.status.upload_error}
        ):
            yield (
                f"The service's last error was {_ago(self.at, self.service_failed_at)}. "
                f"{self._words(self.service_error)}"
            )

    @property
    def _is_another_account(self) -> bool:
        """Whether both directions fail for this one reason, which is reported once."""
        return isinstance(self.status.upload_error, AccountMismatchError) and isinstance(
            self.status.download_error, AccountMismatchError
        )

    def _words(self, error: Exception) -> str:
        if isinstance(error, ServiceError):
            return describe_service_error(error)
        if isinstance(error, TokenExpiredError):
            return "The token has expired; fetching a new one"
        return _sentence(without_tokens(str(error))) or type(error).__name__

    def _since(self, moment: datetime) -> str:
        return _span((self.at - moment).total_seconds())


def describe_service_error(error: ServiceError) -> str:
    """What an HTTP error of the service means, with the service's own message; without the full stop."""
    own = _sentence(str(error))
    if isinstance(error, AuthError):
        return (
            f"The service rejected the token: {own}. Fetching a new one; if that does not help, its signing key, "
            "audience or expiry is not what the service expects"
        )
    meaning = _SERVICE_ERRORS.get(error.code or "") or _HTTP_ERRORS.get(error.status)
    if meaning is None and error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        meaning = "The service, or a proxy in front of it, has a problem"
    return own if meaning is None else f"{meaning} (the service said: {own})"


async def explain(pool: ConnectionPool, board: StatusBoard, stored: StoredStatus) -> SyncExplanation:
    """Collect what is known. See `PowerSyncDatabase.explain_sync`."""
    await stored.refresh()

    def read(connection: SqlConnection) -> tuple[SyncGate, datetime | None, int]:
        return (
            checkpoint_requests.gate(connection),
            upload_queue.oldest_at(connection),
            len(oplog.bucket_positions(connection)),
        )

    gate, oldest_at, bucket_count = await pool.read(read)
    status, records = board.status, board.records
    return SyncExplanation(
        at=datetime.now(UTC),
        status=status,
        gate=gate,
        lock_holder=status.syncing_process,
        queue_oldest_at=oldest_at,
        token_expires_at=records.token_expires_at,
        seconds_since_last_line=status.seconds_since_last_line(),
        streams_not_offered=tuple(dict.fromkeys(stream.name for stream in status.streams if stream.offered is False)),
        stream_errors=tuple((stream.name, stream.error) for stream in status.streams if stream.error is not None),
        bucket_count=bucket_count,
        checksum_failure=records.checksum_failure,
        checksum_failed_at=records.checksum_failed_at,
        service_error=records.service_error,
        service_failed_at=records.service_failed_at,
    )


def _next_attempt(now: datetime, at: datetime | None, what: str, error: Exception) -> str:
    if at is None or (seconds := (at - now).total_seconds()) < 1:
        return f"Retrying the {what} now"
    if requested_wait_seconds(error):
        return f"Retrying the {what} in {_span(seconds)}, as requested by the service or the backend"
    return f"Retrying the {what} in {_span(seconds)}, or as soon as something is written"


def _ago(now: datetime, moment: datetime) -> str:
    seconds = (now - moment).total_seconds()
    return "just now" if seconds < 1 else f"{_span(seconds)} ago"


def _span(seconds: float) -> str:
    """A duration in its largest unit, rounded down."""
    for unit, size in (("day", _DAY), ("hour", _HOUR), ("minute", _MINUTE)):
        if seconds >= size:
            return _count(int(seconds // size), unit)
    return _count(max(0, int(seconds)), "second")


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _sentence(text: str) -> str:
    return " ".join(text.split()).removesuffix(".")
