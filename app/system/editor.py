"""Editing a text in the user's own editor.

Owns which editor that is, and the temporary file with the text, which only the user can read. Must not know what the
text is, nor how the terminal is handed to the editor.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_DEFAULT_EDITOR: Final = "vi"


class EditorError(Exception):
    """The text was not edited; the message says why, in one sentence."""


def editor_command(environment: Mapping[str, str]) -> list[str]:
    """The user's editor: `VISUAL`, else `EDITOR`, else `vi`.

    Raises:
        EditorError: the variable does not hold a valid command.
    """
    for name in ("VISUAL", "EDITOR"):
        if command := environment.get(name, "").strip():
            try:
                return shlex.split(command)
            except ValueError as error:
                raise EditorError(f"{name} is not a valid command ({error}): nothing was changed.") from error
    return [_DEFAULT_EDITOR]


def edited(text: str, command: list[str]) -> str:
    """Edit a text, and wait until the editor exits. A line break that the editor adds at the end is dropped.

    Blocks: the editor has the terminal meanwhile.

    Raises:
        EditorError: the editor cannot be started or failed, or its file is not UTF-8; nothing should be changed then.
    """
    with tempfile.TemporaryDirectory(prefix="todo-tui-") as directory:  # mode 0700
        path = Path(directory, "todo.txt")
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            file.write(text)
        try:
            status = subprocess.run([*command, str(path)], check=False).returncode  # noqa: S603 -- the user's own
        except OSError as error:
            raise EditorError(f"The editor {command[0]} cannot be started: nothing was changed.") from error
        if status:
            raise EditorError(f"The editor exited with status {status}: nothing was changed.")
        try:
            left = path.read_bytes().decode("utf-8", errors="surrogatepass")
        except (OSError, UnicodeDecodeError) as error:
            raise EditorError("The edited file is not valid UTF-8: nothing was changed.") from error
    return left if text.endswith("\n") else left.removesuffix("\n").removesuffix("\r")
