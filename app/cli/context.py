"""What all commands share: exit codes, and the settings of the run.

Must import nothing but click at module level.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from app.settings.settings import Settings


class ExitCode(IntEnum):
    """What the exit code says: done; not done, and stderr tells why; wrong usage; not finished in time."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNFINISHED = 4


def settings_of(context: click.Context, **more: str) -> Settings:
    """The settings of this run, with options that a command has itself.

    Raises:
        click.UsageError: a setting cannot be used.
    """
    from app.settings.settings import SettingsError, load_settings

    config, options = context.find_root().obj
    try:
        return load_settings(config, options | more)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
