"""What a backend may answer for an uploaded transaction.

Owns the verdicts and the default reading of an HTTP answer. What the engine does with a verdict is
`sync.api.transaction_connector`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Accepted:
    """The backend has carried it out, now or before. It leaves the queue.

    Attributes:
        checkpoint: a custom write checkpoint that the backend gave, if the service is set up for them.
    """

    checkpoint: int | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """It could not be carried out now. It stays first in the queue and is tried again.

    Attributes:
        reason: one sentence for people.
        after: not before so many seconds; None leaves it to the back-off.
        renew_credentials: the backend refused the token: the engine fetches new credentials before it uses them again.
    """

    reason: str
    after: float | None = None
    renew_credentials: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The backend refuses it. The whole transaction moves to the rejected writes, and the queue goes on.

    Attributes:
        reason: the backend's own sentence.
        code: the backend's own code, or the HTTP status.
        operation_index: which entry of the transaction is at fault, if the backend told.
        final: False if the backend may answer so for a passing trouble too: then it is tried a few times first.
    """

    reason: str
    code: str | None = None
    operation_index: int | None = None
    final: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """It has to wait for something that no retry brings, such as a sign-in. It stays first in the queue.

    It is tried again at the next local write, the next `connect`, or after the longest back-off.
    """

    reason: str


Verdict = Accepted | Retry | Rejected | Hold

_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


def verdict_for_status(
    status: int,
    reason: str = "",
    *,
    code: str | None = None,
    operation_index: int | None = None,
    retry_after: float | None = None,
) -> Verdict:
    """The default reading of an HTTP answer.

    2xx is accepted. 408, 425, 429, 5xx and whatever is not a refusal is retried, not before `retry_after` (seconds).
    401 is retried with new credentials. Other 4xx are refusals, but not final ones: PowerSync's demo backend answers
    400 for passing trouble of its database too.

    Args:
        status: of the answer.
        reason: the backend's sentence.
        code: the backend's own code.
        operation_index: which entry of the transaction is at fault.
        retry_after: of the answer's header.
    """
    sentence = reason or f"The backend answered HTTP {status}."
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Accepted()
    if status == HTTPStatus.UNAUTHORIZED:
        return Retry(sentence, retry_after, renew_credentials=True)
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _PASSING:
        return Rejected(sentence, code or str(status), operation_index, final=False)
    return Retry(sentence, retry_after)
