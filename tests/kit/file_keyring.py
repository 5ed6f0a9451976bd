"""A keyring for tests: the library's own way to a backend, with a file behind it.

Chosen by `PYTHON_KEYRING_BACKEND=tests.kit.file_keyring.FileKeyring`; `TEST_KEYRING` names the file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked


class FileKeyring(KeyringBackend):
    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self._path = Path(os.environ["TEST_KEYRING"])

    def get_password(self, service: str, username: str) -> str | None:
        return self._read().get(f"{service} {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._path.write_text(json.dumps(self._read() | {f"{service} {username}": password}))

    def _read(self) -> dict[str, str]:
        if self._path.is_dir():
            raise KeyringLocked("it is locked.")
        return json.loads(self._path.read_text()) if self._path.exists() else {}
