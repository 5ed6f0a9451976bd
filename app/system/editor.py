"""Editing a text in the user's own editor.

Owns which editor that is, and the file that the text is in meanwhile: readable by the user only, and gone afterwards.
Must not know what the text is, nor how the terminal is lent to the editor.
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
    """The text was not edited; the message tells why, in a sentence."""


def editor_command(environment: Mapping[str, str]) -> list[str]:
    """The user's editor: `VISUAL`, else `EDITOR`, else `vi`.

    Raises:
        EditorError: what the variable says cannot be a command.
    """
    for name in ("VISUAL", "EDITOR"):
        if said := environment.get(name, "").strip():
            try:
                return shlex.split(said)
            except ValueError as error:
                raise EditorError(f"{name} is no command ({error}): nothing was changed.") from error
    return [_DEFAULT_EDITOR]


def edited(text: str, command: list[str]) -> str:
    """Have a text edited, waiting for the editor to end. One line break at the end is the editor's, not the text's.

    Blocks: the editor has the terminal meanwhile.

    Raises:
        EditorError: the editor cannot be started or failed, or what it left is not UTF-8; nothing is to be changed.
    """
    with tempfile.TemporaryDirectory(prefix="todo-tui-") as directory:  # 0700: its files are nobody else's
        path = Path(directory, "todo.txt")
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            file.write(text)
        try:
            status = subprocess.run([*command, str(path)], check=False).returncode  # noqa: S603 -- the user's own
        except OSError as error:
            raise EditorError(f"The editor {command[0]} cannot be started: nothing was changed.") from error
        if status:
            raise EditorError(f"The editor ended with status {status}: nothing was changed.")
        try:
            left = path.read_bytes().decode("utf-8", errors="surrogatepass")
        except (OSError, UnicodeDecodeError) as error:
            raise EditorError("What the editor left cannot be read as UTF-8: nothing was changed.") from error
    return left if text.endswith("\n") else left.removesuffix("\n").removesuffix("\r")
