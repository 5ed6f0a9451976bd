"""The command line: `todo-tui` and its commands, one module for each kind.

Command modules import nothing heavy at module level: wrong usage and `--help` answer at once, and no command loads the
interface.
"""
