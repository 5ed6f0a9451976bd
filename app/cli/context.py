"""What all commands share: exit codes, the settings of the run, and the options that set them.

Must import nothing but click at module level.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar

import click

from app.cli.setting_options import SETTING_OPTIONS

if TYPE_CHECKING:
    from app.settings.settings import Settings


F = TypeVar("F", bound=Callable[..., Any])


class ExitCode(IntEnum):
    """Done; failed, with the reason on stderr; wrong usage; not finished in time."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNFINISHED = 4


def setting_option(name: str, **attributes: Any) -> Callable[[F], F]:
    """The option that sets a setting, with the words that stand beside it in `app.settings.settings`."""
    flag, metavar, words = SETTING_OPTIONS[name]
    return click.option(flag, name, metavar=metavar, help=words, **attributes)


def settings_of(context: click.Context, **more: str) -> Settings:
    """The settings of this run.

    Args:
        context: of the command that runs.
        more: settings that this command has options of its own for, by name.

    Raises:
        click.UsageError: a setting cannot be used.
    """
    from app.settings.sources import SettingsError, load_settings

    config, options = context.find_root().obj
    try:
        return load_settings(config, options | more)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
