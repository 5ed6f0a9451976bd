"""The three upload APIs of PowerSync's demo backends, and what their answers mean.

Owns paths, bodies and verdicts. Must not know tokens, addresses or the queue: requests are sent by a `Send`.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal, cast

import httpx

from sync import (
    Accepted,
    BatchLimits,
    CrudEntry,
    CrudTransaction,
    Hold,
    Rejected,
    Retry,
    Verdict,
    verdict_for_status,
)

UploadInterfaceName = Literal["batch", "transactions", "rows"]

Send = Callable[[str, str, bytes], Awaitable[httpx.Response]]
"""Sends a JSON body (method, path, body) to the backend, with a token, and returns the answer whatever its status."""

_MAX_SENTENCE = 300

_NODE_BODY_BYTES = 100_000
"""The largest body that the official Node demo accepts (the default of its body parser is 100 kB)."""

_NODE_WITHOUT_BATCH = "Request failed: batch is not iterable"
"""How the official Node demo answers a request of the write API."""


class UploadInterface(ABC):
    """The upload API of one kind of backend.

    Attributes:
        token_path: where tokens are requested.
        limits: how many transactions are uploaded at once.
    """

    token_path: str = "/api/auth/token"  # noqa: S105 - a path
    limits: BatchLimits = BatchLimits(transactions=100, operations=500, bytes=_NODE_BODY_BYTES * 9 // 10)

    @abstractmethod
    async def upload(self, send: Send, transactions: Sequence[CrudTransaction]) -> list[Verdict]:
        """Upload transactions in order, each completely or not at all; returns a verdict for each that was tried."""


class BatchInterface(UploadInterface):
    """The official Node demo: `POST /api/data {"batch": [...]}`, all or nothing in one transaction of the backend."""

    async def upload(self, send: Send, transactions: Sequence[CrudTransaction]) -> list[Verdict]:
        """All at once; if they are rejected, in halves, until the transaction at fault is found.

        The Node demo answers 400 both when it rejects a change and when its database fails. So after the first 400 it
        gets an empty batch, which makes it reach for its database: if it answers 400 to that too, no transaction is at
        fault, and all of them are retried later.
        """
        probed = False

        async def rejects_everything(verdict: Verdict) -> Verdict | None:
            nonlocal probed
            if probed or not isinstance(verdict, Rejected) or verdict.code != str(int(HTTPStatus.BAD_REQUEST)):
                return None
            probed = True
            answer = verdict_of(await send("POST", "/api/data", _json({"batch": []})))
            return Retry(answer.reason) if isinstance(answer, Rejected) and answer.code == verdict.code else None

        async def upload(part: Sequence[CrudTransaction]) -> list[Verdict]:
            operations = [
                {"op": entry.op, "table": entry.table, "id": entry.id, **_data(entry, "data")}
                for transaction in part
                for entry in _effective(transaction)
            ]
            body = _json({"batch": operations})
            if not operations:
                return [Accepted()] * len(part)
            if len(part) > 1 and len(body) > _NODE_BODY_BYTES:
                return await _in_halves(part, upload)
            verdict = verdict_of(await send("POST", "/api/data", body))
            verdict = await rejects_everything(verdict) or verdict
            return await _all_or_in_halves(part, verdict, upload)

        return await upload(transactions)


class TransactionsInterface(UploadInterface):
    """PowerSync's reference write API: `POST /api/data {"transactions": [...]}`, a result for each."""

    async def upload(self, send: Send, transactions: Sequence[CrudTransaction]) -> list[Verdict]:
        """All at once, answered one by one; if the request itself is rejected, in halves."""
        body = _json({"transactions": [self._transaction(transaction) for transaction in transactions]})
        response = await send("POST", "/api/data", body)
        verdict = verdict_of(response)
        if isinstance(verdict, Accepted):
            return _verdicts_of_results(response, len(transactions))
        return await _all_or_in_halves(transactions, verdict, lambda part: self.upload(send, part))

    def _transaction(self, transaction: CrudTransaction) -> dict[str, Any]:
        crud = [self._operation(entry) for entry in transaction.crud]
        if transaction.transaction_id is None:
            return {"crud": crud}
        return {"transaction_id": transaction.transaction_id, "crud": crud}

    def _operation(self, entry: CrudEntry) -> dict[str, Any]:
        operation: dict[str, Any] = {"id": entry.id, "op": entry.op, "table": entry.table, **_data(entry, "op_data")}
        if entry.previous_values is not None:
            operation["previous_values"] = entry.previous_values
        if entry.metadata is not None:
            operation["metadata"] = entry.metadata
        return operation


class RowsInterface(UploadInterface):
    """The official Django demo: one request for each row, `PUT | PATCH | DELETE /api/upload_data/`.

    Its PUT does not store every column and its PATCH of a list erases the columns that it does not name, so a PUT is
    followed by a PATCH, and a PATCH of a list names the whole row. It never stores `created_at` of a to-do, and drops
    columns that it does not know.
    """

    token_path = "/api/get_powersync_token/"  # noqa: S105 - a path
    limits = BatchLimits(transactions=20)

    async def upload(self, send: Send, transactions: Sequence[CrudTransaction]) -> list[Verdict]:
        """Row by row. A transaction that failed halfway is sent again from its beginning, which does no harm."""
        verdicts: list[Verdict] = []
        entries = [entry for transaction in transactions for entry in transaction.crud]
        for transaction in transactions:
            verdict = await self._upload_rows(send, transaction, entries)
            verdicts.append(verdict)
            if not isinstance(verdict, Accepted):
                break
        return verdicts

    async def _upload_rows(self, send: Send, transaction: CrudTransaction, entries: Sequence[CrudEntry]) -> Verdict:
        for index, entry in enumerate(transaction.crud):
            if not _has_effect(entry):
                continue
            if entry.op == "PATCH" and (erased := _LIST_COLUMNS - _whole_row(entry).keys()) and entry.table == "lists":
                reason = (
                    f"This backend would erase {', '.join(sorted(erased))} of the list, and their values are not known."
                )
                return Rejected(reason, "unknown_values", index)
            for method, data in _row_requests(entry):
                body = _json({"table": entry.table, "data": {**data, "id": entry.id}})
                response = await send(method, "/api/upload_data/", body)
                if _is_gone_already(entry, response, entries):
                    continue
                verdict = _verdict_of_row(response, index)
                if not isinstance(verdict, Accepted):
                    return verdict
        return Accepted()


_LIST_COLUMNS = frozenset({"created_at", "name", "owner_id"})
_TODO_COLUMNS_NOT_PUT = ("completed", "completed_at", "completed_by")

_DJANGO_EXCEPTION = re.compile(r"(\w+) at /\S*\n([^\n]*)")
_PERMANENT_EXCEPTIONS = frozenset(
    {"AssertionError", "DataError", "DoesNotExist", "IntegrityError", "TypeError", "ValidationError", "ValueError"}
)
"""Exceptions that the row itself causes: a null or a text that its column does not accept, a missing row."""


def _row_requests(entry: CrudEntry) -> Iterator[tuple[str, dict[str, Any]]]:
    """The requests (method and data) with which the Django demo applies an entry."""
    data = entry.data or {}
    match entry.op, entry.table:
        case "PATCH", "lists":
            yield "PATCH", _whole_row(entry)
        case "PUT", "lists":
            yield "PUT", data
            # A new list gets the time of the server; only an update stores the given one.
            if data.get("created_at") is not None:
                yield "PATCH", data
        case "PUT", "todos":
            yield "PUT", data
            completed = {name: data.get(name) for name in _TODO_COLUMNS_NOT_PUT}
            yield "PATCH", {**completed, "completed": completed["completed"] or 0}
        case _:
            yield entry.op, data


def _whole_row(entry: CrudEntry) -> dict[str, Any]:
    return {**(entry.previous_values or {}), **(entry.data or {})}


def _is_gone_already(entry: CrudEntry, response: httpx.Response, entries: Sequence[CrudEntry]) -> bool:
    """Whether a row is missing because this device has deleted it, or is about to."""
    if entry.op == "DELETE" and response.status_code == HTTPStatus.NOT_FOUND:
        # The demo answers with the bare word "message". An address without this API answers 404 with a page.
        return response.text == "message"
    # The answer to the deletion may have been lost; then everything before it is sent again.
    return _django_exception(response)[0] == "DoesNotExist" and any(
        later.op == "DELETE"
        and (later.table, later.id) == (entry.table, entry.id)
        and later.client_id > entry.client_id
        for later in entries
    )


def _verdict_of_row(response: httpx.Response, index: int) -> Verdict:
    """As `verdict_of`; but the Django demo answers 500 to everything that fails, with the name of the exception."""
    name, message = _django_exception(response)
    if name in _PERMANENT_EXCEPTIONS:
        reason = f"The backend did not accept a change: {message[:_MAX_SENTENCE].rstrip('.')} ({name})."
        return Rejected(reason, name, index, final=False)
    return verdict_of(response, index)


def _django_exception(response: httpx.Response) -> tuple[str, str]:
    """Name and message of the exception on the plain-text debug page; further down, the page may contain the token."""
    if response.status_code != HTTPStatus.INTERNAL_SERVER_ERROR:
        return "", ""
    found = _DJANGO_EXCEPTION.match(response.text)
    return (found[1], found[2].strip()) if found else ("", "")


UPLOAD_INTERFACES: Mapping[UploadInterfaceName, UploadInterface] = {
    "batch": BatchInterface(),
    "transactions": TransactionsInterface(),
    "rows": RowsInterface(),
}


def verdict_of(response: httpx.Response, operation_index: int | None = None) -> Verdict:
    """What an answer as a whole means."""
    if _lacks_interface(response):
        return Hold(f"The backend does not have this upload API; check upload_interface: {sentence_of(response)}")
    error = json_object(response).get("error")
    code = cast("dict[str, Any]", error).get("code") if isinstance(error, dict) else None
    return verdict_for_status(
        response.status_code,
        f"The backend did not accept a change: {sentence_of(response)}",
        code=code if isinstance(code, str) else None,
        operation_index=operation_index,
        retry_after=_seconds(response.headers.get("Retry-After", "")),
    )


def _lacks_interface(response: httpx.Response) -> bool:
    """Whether the kind of request was refused rather than a change: then the answer is no JSON object about it."""
    answer = json_object(response)
    if response.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        return "error" not in answer and "message" not in answer
    return answer.get("message") == _NODE_WITHOUT_BATCH


def sentence_of(response: httpx.Response) -> str:
    """The reason that the server gave for a refusal, as one line of bounded length."""
    answer = json_object(response)
    error = answer.get("error")
    if isinstance(error, dict):
        said = cast("dict[str, Any]", error).get("description")
    else:
        said = error or answer.get("message")
    text = " ".join(said.split()) if isinstance(said, str) else response.reason_phrase
    return f"{text[:_MAX_SENTENCE].rstrip('.') or 'no reason given'} (HTTP {response.status_code})."


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The answer's JSON object, or an empty one if it is something else."""
    try:
        value: Any = response.json()
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


_UploadPart = Callable[[Sequence[CrudTransaction]], Awaitable[list[Verdict]]]


async def _all_or_in_halves(
    transactions: Sequence[CrudTransaction], verdict: Verdict, upload: _UploadPart
) -> list[Verdict]:
    """Apply the verdict to all; if several were rejected, try them in halves."""
    if isinstance(verdict, Accepted):
        return [verdict] * len(transactions)
    if len(transactions) == 1 or not isinstance(verdict, Rejected):
        return [verdict]
    return await _in_halves(transactions, upload)


async def _in_halves(transactions: Sequence[CrudTransaction], upload: _UploadPart) -> list[Verdict]:
    middle = len(transactions) // 2
    verdicts = await upload(transactions[:middle])
    if len(verdicts) == middle and all(isinstance(each, Accepted) for each in verdicts):
        verdicts += await upload(transactions[middle:])
    return verdicts


def _verdicts_of_results(response: httpx.Response, asked: int) -> list[Verdict]:
    results = json_object(response).get("results")
    if not isinstance(results, list) or not results:
        return [Retry("The backend answered without results; it may have another upload API.")]
    verdicts: list[Verdict] = []
    for result in cast("list[Any]", results)[:asked]:
        verdict = _verdict_of_result(cast("dict[str, Any]", result) if isinstance(result, dict) else {})
        if verdict is None:
            break
        verdicts.append(verdict)
    return verdicts or [Retry("The backend did not attempt the first change.")]


def _verdict_of_result(result: dict[str, Any]) -> Verdict | None:
    message = result.get("message")
    reason = f"The backend did not accept a change: {message}" if isinstance(message, str) and message else ""
    match result.get("status"):
        case "success":
            return Accepted()
        case "fatal_error":
            failed = result.get("failed_operation")
            return _rejection(reason, cast("dict[str, Any]", failed) if isinstance(failed, dict) else {})
        case "retryable_error":
            after = result.get("retry_after_ms")
            seconds = after / 1000 if isinstance(after, int | float) and after >= 0 else None
            return Retry(reason or "The backend could not apply a change.", seconds)
        case "not_attempted":
            return None
        case _:
            return Retry("The backend answered with an unknown result; it may be newer than this program.")


def _rejection(reason: str, failed: dict[str, Any]) -> Rejected:
    said, code, index = failed.get("message") or failed.get("error_message"), failed.get("error_code"), None
    for key in ("operation_index", "index"):
        index = failed[key] if isinstance(failed.get(key), int) else index
    if not reason:
        reason = f"The backend did not accept a change: {said}" if isinstance(said, str) else "The backend rejected it."
    return Rejected(reason, None if code is None else str(code), index)


def _effective(transaction: CrudTransaction) -> Iterator[CrudEntry]:
    return (entry for entry in transaction.crud if _has_effect(entry))


def _has_effect(entry: CrudEntry) -> bool:
    """The demo backends answer an update without columns with an SQL error, every time."""
    return entry.op != "PATCH" or bool(entry.data)


def _data(entry: CrudEntry, key: str) -> dict[str, Any]:
    return {} if entry.data is None else {key: entry.data}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() else None
