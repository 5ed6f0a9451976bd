"""The way to the backend: the connector, signing in, and the backend inside todo-tui.

Must not know how lists and to-dos are stored or shown.
"""
