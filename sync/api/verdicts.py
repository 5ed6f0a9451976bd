"""A backend's possible answers for an uploaded transaction.

Owns the verdicts and the default interpretation of an HTTP response. What the engine does with a verdict belongs to
`sync.api.transaction_connector`.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Accepted:
    """The backend has processed the transaction, now or earlier. It leaves the queue.

    Attributes:
        checkpoint: a custom write checkpoint from the backend, if the service is configured for them.
    """

    checkpoint: int | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """The transaction could not be processed now. It stays first in the queue and is retried.

    Attributes:
        reason: one sentence for people.
        after: how many seconds to wait at least; None leaves it to the back-off.
        renew_credentials: the backend rejected the token: the engine fetches new credentials before the next use.
    """

    reason: str
    after: float | None = None
    renew_credentials: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The backend rejects the transaction. It moves as a whole to the rejected writes, and the queue continues.

    Attributes:
        reason: the backend's message.
        code: the backend's code, or the HTTP status.
        operation_index: the index of the entry at fault, if the backend said.
        final: False if the same answer may come from a temporary problem: then it is retried a few times first.
    """

    reason: str
    code: str | None = None
    operation_index: int | None = None
    final: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """The transaction has to wait for something that retrying cannot bring about, such as a sign-in.

    It stays first in the queue and is retried at the next local write, the next `connect`, or after the longest
    back-off.
    """

    reason: str


Verdict = Accepted | Retry | Rejected | Hold

_TEMPORARY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


def verdict_for_status(
    status: int,
    reason: str = "",
    *,
    code: str | None = None,
    operation_index: int | None = None,
    retry_after: float | None = None,
) -> Verdict:
    """The default interpretation of an HTTP response.

    2xx is accepted. 408, 425, 429, 5xx and anything else that is not a rejection is retried, after `retry_after`
    seconds at the earliest. 401 is retried with new credentials. Other 4xx are rejections, but not final ones:
    PowerSync's demo backend also answers 400 for temporary problems of its database.

    Args:
        status: the HTTP status code.
        reason: the backend's message.
        code: the backend's code.
        operation_index: the index of the entry at fault.
        retry_after: seconds, from the response's `Retry-After` header.
    """
    sentence = reason or f"The backend answered HTTP {status}."
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Accepted()
    if status == HTTPStatus.UNAUTHORIZED:
        return Retry(sentence, retry_after, renew_credentials=True)
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _TEMPORARY:
        return Rejected(sentence, code or str(status), operation_index, final=False)
    return Retry(sentence, retry_after)
