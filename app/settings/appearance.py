"""What the interface looks like next time: the file `appearance.json` in the data directory.

Owns that file. If it cannot be read, the defaults are used; if it cannot be written, the choice is not saved.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, cast

from app.system.private_file import replace_file


class Appearance:
    """Remembers the theme of one data directory.

    Args:
        data_dir: the directory; it exists.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "appearance.json"

    def theme(self) -> str | None:
        """The name of the theme that was chosen last, or None if there is none."""
        try:
            value: Any = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        theme = cast("dict[str, Any]", value).get("theme") if isinstance(value, dict) else None
        return theme if isinstance(theme, str) else None

    def remember_theme(self, name: str) -> None:
        """Save the name of a theme, without waiting for the disk; a failure is ignored."""
        with contextlib.suppress(OSError):
            replace_file(self._path, json.dumps({"theme": name}), durable=False)
