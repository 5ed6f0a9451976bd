"""Makes the reference pages from the code itself: `python docs/reference.py`; with `--check` it only compares.

Owns `keys.md`. What is in it comes from the registry of actions.
"""

from __future__ import annotations

import sys
from pathlib import Path

from app.keymap import ACTIONS, PRESETS, Keymap, Place

DOCS = Path(__file__).parent

_KEYS_HEAD = """# Keys

`?` in todo-tui shows the keys in force; typing there filters them. `ctrl+p` finds any action by its words.

## Other keys

In the [config file](../config.example.toml), `keymap` chooses a set of keys to begin with: `default`, `vim` or
`plain`, which moves with arrows and function keys instead of letters. The table `[keys]` changes single actions:

```toml
keymap = "vim"

[keys]
"todos.toggle_todo" = ["x", "ctrl+d"]
"anywhere.jump" = "ctrl+k"
"todos.copy_todo" = []
```

A key is named as in `d`, `ctrl+k`, `shift+up`, `f5` or `pageup`; an empty list leaves an action without a key. An
action that does not exist, a key that does not exist, and a key that would mean two things in one place are refused
with a sentence.

## All actions

This table is made from the code (`python docs/reference.py`).

| Action | default | vim | plain | What it does |
|---|---|---|---|---|
"""


def keys_page() -> str:
    """The text of `keys.md`."""
    keymaps = [Keymap.of(preset) for preset in PRESETS]
    rows: list[str] = []
    for place in Place:
        rows.append(f"| **{place.value}** | | | | |")
        for action in ACTIONS:
            if action.place is place:
                cells = [" ".join(f"`{key}`" for key in keymap.shown(action.id)) for keymap in keymaps]
                rows.append(f"| `{action.id}` | {' | '.join(cells)} | {action.help} |")
    return _KEYS_HEAD + "\n".join(rows) + "\n"


PAGES = {"keys.md": keys_page}


def main() -> int:
    """Write the pages, or tell which are out of date; returns the exit code."""
    if "--check" not in sys.argv:
        for name, make in PAGES.items():
            (DOCS / name).write_text(make(), "utf-8")
        return 0
    stale = [name for name, make in PAGES.items() if (DOCS / name).read_text("utf-8") != make()]
    if stale:
        sys.stderr.write(f"Out of date: {', '.join(stale)}; run python docs/reference.py.\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
