"""The command line: `todo-tui` and its commands, one module for each kind.

Each command module imports nothing but click and `app.cli.context` at module level: wrong usage and `--help` answer at
once, and no command ever loads the interface.
"""
