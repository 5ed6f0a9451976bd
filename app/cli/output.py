"""What commands print: notes for people on stderr, data on stdout.

Owns how both look. Must import nothing but click at module level.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click


def print_note(context: click.Context, sentence: str) -> None:
    """Print a sentence on stderr, unless --quiet."""
    from app.system.display_text import sanitized

    if not context.find_root().params.get("quiet"):
        click.echo(sanitized(sentence), err=True)


def print_json(value: Any) -> None:
    """Print data as JSON: indented on a terminal, else on one line."""
    click.echo(json.dumps(value, ensure_ascii=not _prints_unicode(), indent=2 if sys.stdout.isatty() else None))


def _prints_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
