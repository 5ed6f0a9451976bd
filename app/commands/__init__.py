"""The commands of todo-tui besides the list itself, one module for each kind.

Each must import nothing but click and `app.command_context` at module level: wrong usage and `--help` answer at once,
and no command ever loads the interface.
"""
