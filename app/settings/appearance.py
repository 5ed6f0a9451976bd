"""What the interface is to look like next time: the file `appearance.json` in the data directory.

Owns that file. A file that cannot be read or written is no reason not to show the lists: the defaults are used then.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, cast


class Appearance:
    """Remembers the theme of one data directory.

    Args:
        data_dir: the directory; it exists.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "appearance.json"

    def theme(self) -> str | None:
        """The name of the theme that was chosen last, or None."""
        try:
            value: Any = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        theme = cast("dict[str, Any]", value).get("theme") if isinstance(value, dict) else None
        return theme if isinstance(theme, str) else None

    def remember_theme(self, name: str) -> None:
        """Keep the name of a theme; if that fails, it is not kept."""
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        with contextlib.suppress(OSError):
            with os.fdopen(os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
                json.dump({"theme": name}, file)
            draft.replace(self._path)
