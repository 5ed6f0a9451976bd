"""The command-line options of settings. Made from `app.settings.settings` by `python docs/reference.py`.

Owns nothing: it is here so that `--help` need not import pydantic.
"""

from __future__ import annotations

from typing import Final

SETTING_OPTIONS: Final[dict[str, tuple[str, str, str]]] = {
    "profile": (
        "--profile",
        "NAME",
        "Use the backend, user and data directory of this profile.",
    ),
    "data_dir": (
        "--data-dir",
        "DIR",
        "Keep the data in this directory.",
    ),
    "backend_url": (
        "--backend",
        "URL",
        "Sync with the backend at this address.",
    ),
    "user_id": (
        "--user",
        "ID",
        "Show and sync the lists of this user (a UUID or a number).",
    ),
    "port": (
        "--port",
        "N",
        "Port of the demo backend inside todo-tui.  [default: 6161]",
    ),
    "database": (
        "--database",
        "FILE|URL",
        "Keep the lists in this file, or in PostgreSQL (postgresql://…).  [default: backend.db in the data directory]",
    ),
    "sync_config": (
        "--sync-config",
        "FILE",
        "Take the sync config from this file.  [default: each user syncs their own lists]",
    ),
}
"""By setting: the option, what it calls its value, and its help."""
