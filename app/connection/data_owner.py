"""Whom the lists of a data directory belong to: the file `backend.json` there.

Owns that file, and the rule that lists belong to one user and one backend for good: syncing them with another would
replace them, and upload the waiting changes to the wrong place. Must not know how backends are run or reached.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from app.system.private_file import replace_file
from app.system.user_error import UserError

_LOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class InnerBackend:
    """A backend inside todo-tui.

    Attributes:
        backend_id: the id kept in its database.
        database: its database file.
    """

    backend_id: str
    database: Path


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whom lists belong to.

    Attributes:
        user_id: their user; None if that was never recorded.
        backend: the address of a named backend, or the backend inside todo-tui; None while none has been reached.
        named_id: the id of the data at that address, if the backend gave one.
    """

    user_id: str | None = None
    backend: str | InnerBackend | None = None
    named_id: str | None = None


class DataOwner:
    """Records whom the lists of one data directory belong to."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._path = data_dir / "backend.json"

    def recall(self) -> Ownership:
        """What is recorded; nothing at the first start.

        Raises:
            UserError: the file cannot be read.
        """
        try:
            return self._parsed(json.loads(self._path.read_text("utf-8")))
        except FileNotFoundError:
            return Ownership()
        except OSError as error:
            raise UserError(f"{self._path} cannot be read: {error.strerror}; make it readable.") from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(
                f"{self._path} is damaged, so the backend of these lists is not known; restore it from a copy, or "
                "delete it to replace the lists with those of the next backend."
            ) from error

    def recall_inner(self) -> InnerBackend | None:
        """The backend inside todo-tui that the lists belong to; None if they were never synced.

        Raises:
            UserError: the file cannot be read, or the lists belong to a named backend.
        """
        known = self.recall()
        self._refuse(known, None, None)
        return known.backend if isinstance(known.backend, InnerBackend) else None

    def check(self, user_id: str, backend_url: str | None) -> None:
        """Return if the lists may be shown to this user and synced with this backend; None is the one inside todo-tui.

        Raises:
            UserError: they belong to another, or the file cannot be read.
        """
        self._refuse(self.recall(), user_id, backend_url)

    def claim(self, user_id: str | None, backend: str | InnerBackend | None, named_id: str | None = None) -> None:
        """Record the user and the backend, as far as they are not None; all of it or nothing.

        If the backend inside todo-tui has moved its file, the new path replaces the recorded one.

        Raises:
            UserError: the lists belong to another, or the file cannot be written.
        """
        if self._combined(self.recall(), user_id, backend, named_id) is None:
            return
        try:
            with self._locked():
                known = self._combined(self.recall(), user_id, backend, named_id)
                if known is not None:
                    self._write(known)
        except OSError as error:
            raise UserError(
                f"The data directory {self._data_dir} is not writable: {error.strerror or error}."
            ) from error

    def _combined(
        self, known: Ownership, user_id: str | None, backend: str | InnerBackend | None, named_id: str | None
    ) -> Ownership | None:
        """What is known and what is claimed together; None if nothing changes."""
        if backend is not None:
            self._refuse(known, user_id, backend if isinstance(backend, str) else None)
        elif user_id is not None:
            self._refuse_user(known, user_id)
        if (
            isinstance(known.backend, InnerBackend)
            and isinstance(backend, InnerBackend)
            and known.backend.backend_id != backend.backend_id
        ):
            raise UserError(
                f"The lists in {self._data_dir} were just synced with another backend inside todo-tui; start again."
            )
        if None not in (known.named_id, named_id) and known.named_id != named_id:
            raise UserError(
                f"{backend} now has other lists than those in {self._data_dir}, which were not changed; restore the "
                "database of that backend, or keep its new lists in another directory with --data-dir."
            )
        claimed = Ownership(user_id or known.user_id, backend or known.backend, named_id or known.named_id)
        return None if claimed == known else claimed

    def _refuse(self, known: Ownership, user_id: str | None, backend_url: str | None) -> None:
        self._refuse_user(known, user_id)
        if isinstance(known.backend, str) and known.backend != backend_url:
            raise UserError(
                f"The lists in {self._data_dir} are synced with the backend {known.backend}; use "
                f"--backend {known.backend}, or keep other lists in another directory with --data-dir."
            )
        if isinstance(known.backend, InnerBackend) and backend_url is not None:
            raise UserError(
                f"The lists in {self._data_dir} are synced with the backend inside todo-tui, not with {backend_url}; "
                "leave out --backend, or keep other lists in another directory with --data-dir."
            )

    def _refuse_user(self, known: Ownership, user_id: str | None) -> None:
        if None not in (user_id, known.user_id) and user_id != known.user_id:
            raise UserError(
                f"The lists in {self._data_dir} belong to user {known.user_id}; use --user {known.user_id}, "
                "or keep those of another user in another directory with --data-dir."
            )

    def _parsed(self, value: Any) -> Ownership:
        if not isinstance(value, dict):
            raise TypeError
        fields = cast("dict[str, Any]", value)
        user_id, url, backend_id = (fields.get(key) for key in ("user_id", "backend_url", "backend_id"))
        for text in (user_id, url, backend_id):
            if text is not None and not isinstance(text, str):
                raise TypeError
        if url is not None:
            return Ownership(user_id, url, backend_id)
        if fields.keys() == {"user_id"}:
            return Ownership(user_id)
        return Ownership(user_id, InnerBackend(str(fields["backend_id"]), self._data_dir / fields["database"]))

    def _write(self, known: Ownership) -> None:
        fields: dict[str, str] = {}
        if known.user_id is not None:
            fields["user_id"] = known.user_id
        if isinstance(known.backend, str):
            fields["backend_url"] = known.backend
            if known.named_id is not None:
                fields["backend_id"] = known.named_id
        elif known.backend is not None:
            database = known.backend.database
            if database.is_relative_to(self._data_dir):
                # A relative path survives moving the data directory.
                database = database.relative_to(self._data_dir)
            fields |= {"backend_id": known.backend.backend_id, "database": str(database)}
        replace_file(self._path, json.dumps(fields))

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Wait until no other process writes the file, and keep others out."""
        from filelock import FileLock

        with FileLock(f"{self._path}-lock", mode=0o600, timeout=_LOCK_SECONDS):
            yield
